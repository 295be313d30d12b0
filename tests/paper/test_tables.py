"""Published beside measured: what is compared with what, what is not, and that every line is in all three files."""
import csv
import io
import json
import os

import pytest

from utils import runtime
from utils.evaluation import report
from utils.paper import pages, tables

STANDINS = {"textures_dtd": 800, "svhn": 1083, "places": 2000, "scenes_crop": 2000, "scenes_resize": 2000, "isun": 8925}


def entry(score, sets, value):
    rows = [{"set": name, "n": n, "drawn": min(n, 2000), "draws": 10 if n > 2000 else 1, "fpr95": value, "auroc": 90.0, "aupr_in": 95.0,
             "sd": {"fpr95": 0.5, "auroc": 0.1, "aupr_in": 0.1}} for name, n in sets.items()]
    return {"score": score, "sets": rows, "average": {**rows[0], "set": "average"}}


def write(folder, stage="pretrained", scores=("msp", "energy"), sets=STANDINS, value=40.0, name=None, arch="wrn", **arguments):
    """A result file as test.py writes it, with what the tables read of it."""
    loss = {} if stage == "pretrained" else {"loss": stage, "parent_sha256": "p" * 64}
    snapshot = {"name": f"{'pretrained' if stage == 'pretrained' else f'tune_{stage}'}/x", "epoch": 14, "sha256": ("p" if stage == "pretrained" else stage[0]) * 64, "dataset": "cifar10", "arch": arch, "seed": 1,
                "train_images": 50000, "recipe": {"epochs": 15}, **loss}
    record = {"protocol": "paper", "arguments": {"ood": "", "id": None, "tune_scores": False, "num_to_avg": 10, "seed": 1, **arguments},
              "snapshot": snapshot, "precision": "fp32", "id": {"error": 8.0, "accuracy": 92.0, "images": 10000, "fingerprint": "f"},
              "ood": [{"name": s, "images": n} for s, n in sets.items()], "scores": [entry(s, sets, value) for s in scores]}
    folder.mkdir(exist_ok=True)
    runtime.write_json(folder / f"{name or stage}.json", record)


def lines(folder, table):
    return tables.build(table, "cifar10", tables.measured_results((folder,)))


def test_only_the_papers_images_are_compared_with_the_paper(tmp_path):
    write(tmp_path)
    found = [line for line in lines(tmp_path, "energy") if line["method"] == "MSP"]
    compared = [line["ood_set"] for line in found if line["fpr95"][0] and line["fpr95"][1] is not None]
    assert compared == ["isun"]
    assert [line["ood_set"] for line in found if line["fpr95"][0] is None] == \
        ["textures_dtd", "svhn (not the paper's)", "places", "scenes_crop", "scenes_resize", "mean of the sets here"]
    assert all(line["fpr95"][1] is None and line["note"] == "paper's images not at hand"
               for line in found if line["fpr95"][0] and line["ood_set"] != "isun")
    isun = next(line for line in found if line["ood_set"] == "isun")
    text = tables.cells("energy", isun)
    assert text[5:8] == ["56.03", "40.00 ± 0.50", "-16.03"] and text[3] == "8,925; 10 x 2,000" and text[4] == "15"


def test_with_all_six_official_sets_the_averages_are_compared(tmp_path):
    write(tmp_path, sets=tables.OFFICIAL)
    found = [line for line in lines(tmp_path, "srf1") if line["method"] == "EBD"]
    assert [line["ood_set"] for line in found] == ["average"]
    assert tables.cells("srf1", found[0])[5:8] == ["34.92 [disagreement]", "40.00 ± 0.50", "+5.08"]
    assert tables.cells("srf1", found[0])[-3:] == ["5.08", "8.00", ""]


def test_a_misprint_is_shown_and_not_compared(tmp_path):
    write(tmp_path, scores=("msp", "energy", "dice"), sets=tables.OFFICIAL)
    dice = next(line for line in lines(tmp_path, "srf1") if line["method"] == "DICE")
    assert tables.cells("srf1", dice)[5:8] == ["26.55 [misprint]", "40.00 ± 0.50", ""]


def test_unmeasured_rows_say_why(tmp_path):
    notes = {line["method"]: line["note"] for line in lines(tmp_path, "srf1")}
    assert notes["SROE"] == "not measured" and notes["VOS"] == notes["OECC"] == "method not in this project"
    assert "Nothing measured yet." in tables.render((tmp_path,))[tables.OUTPUT.with_suffix(".md")].decode()


@pytest.mark.parametrize("unusual", [{"ood": "svhn"}, {"id": "/x"}, {"tune_scores": True}, {"num_to_avg": 3}, {"seed": 2}, {"id_train": "/x"},
                                     {"image_size": 64}])
def test_results_of_another_protocol_do_not_enter(tmp_path, unusual):
    write(tmp_path, **unusual)
    assert tables.measured_results((tmp_path,)) == {}


@pytest.mark.parametrize("change", [{"epoch": 7}, {"recipe": {}}, {"recipe": None}, {"name": "sweep/x"}, {"name": "/elsewhere/tune_sr/x"},
                                    {"name": "pretrained/x_best"}])
def test_only_whole_runs_in_their_usual_folder_enter(tmp_path, change):
    write(tmp_path)
    path = tmp_path / "pretrained.json"
    result = json.loads(path.read_text())
    result["snapshot"].update(change)
    if change.get("recipe", 0) is None:
        del result["snapshot"]["recipe"], result["snapshot"]["epoch"], result["snapshot"]["seed"]    # a published file
    runtime.write_json(path, result)
    assert tables.measured_results((tmp_path,)) == {}
    assert b"Nothing measured yet." in tables.render((tmp_path,))[tables.OUTPUT.with_suffix(".md")]


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_result_file_is_named(tmp_path, content):
    (tmp_path / "half.json").write_text(content)
    with pytest.raises(runtime.UserError, match="half.json is not a result file"):
        tables.measured_results((tmp_path,))


def test_a_stage_s_numbers_are_of_one_snapshot_the_newest(tmp_path):
    write(tmp_path, value=40.0, name="z_all")
    write(tmp_path, value=30.0, scores=("energy",), name="a_energy")
    newer = json.loads((tmp_path / "a_energy.json").read_text())
    newer["snapshot"]["sha256"] = "n" * 64
    runtime.write_json(tmp_path / "a_energy.json", newer)
    os.utime(tmp_path / "z_all.json", (1, 1))
    measured = tables.measured_results((tmp_path,))
    assert list(measured) == [("cifar10", "wrn", "pretrained", "energy")]
    assert measured["cifar10", "wrn", "pretrained", "energy"][0]["average"]["fpr95"] == 30.0


def test_other_id_images_are_compared_with_nothing(tmp_path):
    write(tmp_path)
    result = json.loads((tmp_path / "pretrained.json").read_text())
    result["id"]["images"] = 40
    runtime.write_json(tmp_path / "pretrained.json", result)
    assert not any(line["fpr95"][0] and line["fpr95"][1] for line in lines(tmp_path, "energy"))


def test_ones_own_results_come_before_the_recorded(tmp_path):
    write(tmp_path / "recorded", value=40.0)
    write(tmp_path / "own", value=30.0, scores=("energy",))
    measured = tables.measured_results((tmp_path / "recorded", tmp_path / "own"))
    assert [measured["cifar10", "wrn", "pretrained", score][0]["average"]["fpr95"] for score in ("msp", "energy")] == [40.0, 30.0]


def change(path, **changes):
    """Change a result file: snapshot__NAME changes the snapshot's entry."""
    result = json.loads(path.read_text())
    for key, value in changes.items():
        (result["snapshot"] if key.startswith("snapshot__") else result)[key.removeprefix("snapshot__")] = value
    runtime.write_json(path, result)


def test_a_fine_tuning_of_another_network_is_not_shown_beside_this_one(tmp_path):
    write(tmp_path)
    write(tmp_path, "sr", ("energy",))
    measured = ("cifar10", "wrn", "sr", "energy")
    assert measured in tables.measured_results((tmp_path,))
    write(tmp_path, "sr", ("energy",), arch="densenet", name="sr_densenet")     # a network of its own, not measured itself
    assert set(tables.measured_results((tmp_path,))) == {measured, *(("cifar10", "wrn", "pretrained", score) for score in ("msp", "energy"))}
    change(tmp_path / "sr.json", snapshot__parent_sha256="q" * 64)
    assert measured not in tables.measured_results((tmp_path,))
    assert {line["note"] for line in lines(tmp_path, "srf4") if line["method"] == "SR"} == {"not measured"}


@pytest.mark.parametrize("recipe", [{"alpha": 0.05}, {"learning_rate": 0.1}, {"padding": 0}, {"layers": 28}])
def test_only_the_papers_recipe_enters(tmp_path, recipe):
    write(tmp_path)
    write(tmp_path, "sr", ("energy",))
    change(tmp_path / "sr.json", snapshot__recipe={"epochs": 15, "alpha": 0.02, **recipe})
    assert ("cifar10", "wrn", "sr", "energy") not in tables.measured_results((tmp_path,))
    change(tmp_path / "sr.json", snapshot__recipe={"epochs": 15, "alpha": 0.02, "learning_rate": 0.001})
    assert ("cifar10", "wrn", "sr", "energy") in tables.measured_results((tmp_path,))
    change(tmp_path / "sr.json", snapshot__data="elsewhere")
    assert ("cifar10", "wrn", "sr", "energy") not in tables.measured_results((tmp_path,))


@pytest.mark.parametrize("other", [{"precision": "bf16"}, {"ood": [{"name": "svhn", "images": 26032}]}])
def test_a_stage_s_rows_are_of_the_same_images_and_precision(tmp_path, other):
    write(tmp_path / "recorded", scores=("msp", "energy", "odin"))
    write(tmp_path / "own", scores=("msp", "energy"))
    folders = (tmp_path / "recorded", tmp_path / "own")
    assert len(tables.measured_results(folders)) == 3
    change(tmp_path / "own" / "pretrained.json", **other)
    assert {key[3] for key in tables.measured_results(folders)} == {"msp", "energy"}


def test_id_images_that_are_known_to_be_others_are_compared_with_nothing(tmp_path):
    write(tmp_path)
    fingerprint, = (f for f, (stands, _) in tables.ID_NOTES.items() if not stands)
    change(tmp_path / "pretrained.json", id={"error": 8.0, "accuracy": 92.0, "images": 10000, "fingerprint": fingerprint})
    found = lines(tmp_path, "energy")
    assert not any(line["fpr95"][0] and line["fpr95"][1] for line in found) and "not its test split" in tables.caption(found)


def test_every_line_is_in_every_file(tmp_path):
    write(tmp_path)
    write(tmp_path, "sr", ("energy",))
    made = {path.suffix: content.decode() for path, content in tables.render((tmp_path,)).items()}
    rows = list(csv.DictReader(io.StringIO(made[".csv"])))
    for name in tables.TABLES:
        count = len(lines(tmp_path, name))
        assert len({(r["method"], r["network"], r["ood_set"]) for r in rows if r["table"] == name}) == count
        section = made[".md"].split(f"`--table {name}`")[1].split("\n## ")[0]
        assert section.count("\n| ") == count + 2
    body = [line for line in made[".tex"].splitlines() if line.endswith(r" \\")]
    assert len(body) == sum(len(lines(tmp_path, name)) + 1 for name in tables.TABLES)
    widths = [len(tables.header(name)) - 1 for name in tables.TABLES for _ in range(len(lines(tmp_path, name)) + 1)]
    assert [line.count(" & ") for line in body] == widths
    assert not any("_" in line.replace(r"\_", "") for line in made[".tex"].splitlines() if not line.startswith("%")) and "±" not in made[".tex"]
    measured = {(r["table"], r["method"], r["metric"]): r for r in rows if r["ood_set"] == "isun" and r["measured"]}
    assert measured["srf4", "SR", "fpr95"]["difference"] == "+27.26" and measured["srf4", "SR", "fpr95"]["precision"] == "fp32"
    assert all(r["sd"] == "" for r in rows if r["ood_set"] == "places") and {r["sd"] for r in rows if r["ood_set"] == "isun" and r["measured"]} == {"0.50", "0.10"}
    assert {r["id_error"] for r in rows if r["ood_set"] == "mean of the sets here"} == {"8.00"}
    assert made[".tex"].count("% Measured with") == len(tables.TABLES)
    assert measured["srf4", "SR", "fpr95"]["measured"] == "40.00" and measured["srf4", "SR", "fpr95"]["published"] == "12.74"


def test_committed_tables_are_fresh():
    if any(key[0].startswith("cifar") for key in tables.measured_results((report.RESULTS,))):
        pytest.skip("there are results of one's own, which RESULTS.md may show")
    for path, content in tables.render((pages.RECORDED,)).items():
        assert path.exists() and path.read_bytes() == content, f"{path} is stale. Run: python -m utils.paper.pages"
