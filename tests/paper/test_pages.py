"""--record: what is copied to recorded/, and what stays."""

from test_tables import change, write

from utils.evaluation import report
from utils.paper import pages, results


def test_recording_keeps_what_has_not_been_measured_again(tmp_path, monkeypatch):
    for name in ("RESULTS", "RECORDED", "FIGURES"):
        (tmp_path / name).mkdir()
    old, new = tmp_path / "RESULTS" / "recorded", tmp_path / "RESULTS"
    monkeypatch.setattr(report, "RESULTS", new)
    monkeypatch.setattr(results, "RECORDED", old)
    monkeypatch.setattr(pages, "FIGURES", tmp_path / "FIGURES")
    old.mkdir()
    write(old, name="cifar10_few", scores=("msp",))
    write(old, name="cifar10_other", scores=("odin",))
    write(old, name="cifar10_sr", stage="sr")
    write(old, name="cifar10_short", scores=("msp",))  # of another run of the stage
    change(old / "cifar10_short.json", snapshot__name="pretrained/x_epochs3_epoch_2")
    write(new, name="cifar10_many", scores=("msp", "energy"))
    (new / "cifar10_many.csv").write_text("score\n")
    for name in (
        "cifar10_table",
        "cifar10_s2_table",
        "cifar10_quick_table",
        "cifar10_s2_quick_table",
    ):
        (new / f"{name}.csv").write_text(name)
    for name in (
        "cifar10_bars",
        "cifar10_training_sr",
        "cifar10_densenet_bars",
        "cifar10_quick_densities",
    ):
        (tmp_path / "FIGURES" / f"{name}.png").write_text(name)
    pages.record("cifar10")
    assert sorted(path.stem for path in old.glob("*.json")) == [
        "cifar10_many",
        "cifar10_other",
        "cifar10_short",
        "cifar10_sr",
    ]
    assert sorted(path.stem for path in old.glob("*_table.csv")) == [
        "cifar10_s2_table",
        "cifar10_table",
    ]
    assert sorted(path.stem for path in (tmp_path / "FIGURES" / "recorded").glob("*")) == [
        "cifar10_bars",
        "cifar10_training_sr",
    ]
