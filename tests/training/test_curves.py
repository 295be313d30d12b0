"""The figure of a run: made from its CSV, beside it, and kept or put aside with it."""

import pytest
from conftest import plain, stop_at_step, write_own

from utils.paper import curves, plots

SMALL = "--epochs 3 --layers 10 --widen-factor 1 --batch_size 30 --device cpu"


def test_a_resumed_run_draws_all_its_epochs(project, tmp_path, monkeypatch):
    train = f"baseline.py own --id {write_own(tmp_path / 'own')} {SMALL}"  # 2 steps an epoch
    stopped = project.run(train, prelude=stop_at_step("SIGKILL", 4), figure=True)
    assert stopped.status == -9 and not list(project.snapshots.rglob("*.png"))
    project.run(train + " --resume", figure=True)
    log = project.file("pretrained/own_wrn_pretrained_training_results.csv")
    assert len(log.read_text().splitlines()) == 4
    drawn = log.with_suffix(".png")
    made = drawn.read_bytes()
    curves.draw_curves(log)
    assert drawn.read_bytes() == made  # from the CSV alone
    # the next run of this name puts it aside with its CSV; without matplotlib there is none
    project.do(train)
    assert not drawn.exists() and log.exists()
    kept = {plain(file.name) for file in (log.parent / "replaced").glob("*/*")}
    ends = ("csv", "png")
    assert {f"own_wrn_pretrained_training_results.{end}" for end in ends} <= kept


@pytest.mark.parametrize("fault", ["empty", "missing", "drawing"])
def test_a_training_does_not_fail_at_its_figure(fault, tmp_path, monkeypatch, capsys):
    log = tmp_path / "x_training_results.csv"
    if fault != "missing":
        log.write_text("epoch,train_loss\n" + "0,1.5\n" * (fault == "drawing"))

    def fail(*a):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(plots, "save_figure", fail)
    curves.draw_curves(log)
    told = capsys.readouterr().err
    assert told.startswith(f"note: the figure of {log.name} has not been drawn: ")
    assert len(told.splitlines()) == 1 and list(tmp_path.iterdir()) == [log] * log.exists()
