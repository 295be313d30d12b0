"""Published beside measured: what is compared with what, what is not,
and that every line is in all three files.
"""

import argparse
import csv
import io
import json
import os
import re

import pytest

from utils import runtime
from utils.evaluation import report
from utils.loaders import STAND_INS
from utils.metrics import METRICS
from utils.paper import pages, published, results, tables, usual
from utils.training import recipes

STANDINS = {
    "textures_dtd": 800,
    "svhn": 1083,
    "places": 2000,
    "scenes_crop": 2000,
    "scenes_resize": 2000,
    "isun": 8925,
}


def entry(score, sets, value):
    rows = [
        {
            "set": name,
            "n": n,
            "drawn": min(n, 2000),
            "draws": 10 if n > 2000 else 1,
            "fpr95": value,
            "auroc": 90.0,
            "aupr_in": 95.0,
            "fpr95_out": value,
            "aupr_out": 85.0,
            "sd": dict.fromkeys(METRICS, 0.1) | {"fpr95": 0.5},
        }
        for name, n in sets.items()
    ]
    return {"score": score, "sets": rows, "average": {**rows[0], "set": "average"}}


def write(
    folder,
    stage="pretrained",
    scores=("msp", "energy"),
    sets=STANDINS,
    value=40.0,
    name=None,
    arch="wrn",
    **arguments,
):
    """A result file as test.py writes it, with what the tables read of it."""
    loss = (
        {}
        if stage == "pretrained"
        else {"loss": stage, "parent": "p_epoch_14.pt", "parent_sha256": "p" * 64}
    )
    snapshot = {
        "name": f"{'pretrained' if stage == 'pretrained' else f'tune_{stage}'}/x",
        "epoch": 14,
        "sha256": ("p" if stage == "pretrained" else stage[0]) * 64,
        "dataset": "cifar10",
        "arch": arch,
        "seed": 1,
        "train_images": 50000,
        **loss,
        "recipe": {
            **recipes.resolve(
                "tune" if loss else "pretrain", "cifar10", loss.get("loss"), arch=arch
            ),
            "epochs": 15,
        },
    }
    record = {
        "protocol": "paper",
        "arguments": {
            "ood": "",
            "id": None,
            "tune_scores": False,
            "num_to_avg": 10,
            "seed": 1,
            **arguments,
        },
        "snapshot": snapshot,
        "precision": "fp32",
        "id": {"error": 8.0, "accuracy": 92.0, "images": 10000, "fingerprint": "f"},
        "ood": [{"name": s, "images": n} for s, n in sets.items()],
        "scores": [entry(s, sets, value) for s in scores],
    }
    folder.mkdir(exist_ok=True)
    runtime.write_json(folder / f"{name or stage}.json", record)


def lines(folder, table):
    """The lines of RESULTS.csv of one table."""
    text = tables.render_csv(results.measured_results((folder,)))
    return [line for line in csv.DictReader(io.StringIO(text)) if line["table"] == table]


def compared(folder, table="energy"):
    return {
        (line["method"], line["ood_set"]) for line in lines(folder, table) if line["difference"]
    }


def row_of(folder, table, method, id_set="cifar10"):
    """The cells of a method's first row in the grid, by their place, and the header."""
    head, *rows = tables.grid(table, id_set, results.measured_results((folder,)))
    return head, next(row for row in rows if row[0] == method)


def test_only_the_papers_images_are_compared_with_the_paper(tmp_path):
    write(tmp_path)
    found = [
        line
        for line in lines(tmp_path, "energy")
        if (line["method"], line["metric"]) == ("MSP", "fpr95")
    ]
    assert [line["ood_set"] for line in found if line["difference"]] == ["isun"]
    assert [line["ood_set"] for line in found if not line["published"]] == [
        "textures_dtd",
        "svhn (not the paper's)",
        "places",
        "scenes_crop",
        "scenes_resize",
        "mean of the sets here",
    ]
    assert all(
        line["measured"] == "" and line["note"] == "paper's images not at hand"
        for line in found
        if line["published"] and line["ood_set"] != "isun"
    )
    isun = next(line for line in found if line["ood_set"] == "isun")
    assert [
        isun[key]
        for key in ("published", "measured", "sd", "difference", "n", "draws", "drawn", "epochs")
    ] == ["56.03", "40.00", "0.50", "-16.03", "8925", "10", "2000", "15"]


def test_a_row_shows_a_pair_for_each_set_and_marks_other_images(tmp_path):
    write(tmp_path)
    head, row = row_of(tmp_path, "energy", "MSP")
    assert head == [
        "method",
        "metric",
        *(
            word
            for name in (
                "Textures",
                "SVHN",
                "Places365",
                "LSUN-C",
                "LSUN-R",
                "iSUN",
                "Average",
                "ID error",
            )
            for word in (name, "here")
        ),
        "note",
    ]
    assert row == [
        "MSP",
        "FPR95",
        "59.28",
        "40.00 †",
        "48.49",
        "40.00 †",
        "59.48",
        "40.00 †",
        "30.80",
        "40.00 †",
        "52.15",
        "40.00 †",
        "56.03",
        "40.00",
        "51.04",
        "40.00 †",
        "5.16",
        "8.00",
        "[1]",
    ]


def test_with_all_six_official_sets_the_averages_are_compared(tmp_path):
    write(tmp_path, sets=published.OFFICIAL)
    found = [
        line
        for line in lines(tmp_path, "srf1")
        if (line["method"], line["metric"]) == ("EBD", "fpr95")
    ]
    assert [line["ood_set"] for line in found] == ["average"]
    assert [
        found[0][key]
        for key in (
            "published",
            "flag",
            "measured",
            "difference",
            "id_error_published",
            "id_error",
            "note",
        )
    ] == ["34.92", "disagreement", "40.00", "+5.08", "5.08", "8.00", ""]
    assert row_of(tmp_path, "srf1", "EBD")[1][1:3] == ["34.92 [disagreement]", "40.00"]


def test_a_misprint_is_shown_and_not_compared(tmp_path):
    write(tmp_path, scores=("msp", "energy", "dice"), sets=published.OFFICIAL)
    assert row_of(tmp_path, "srf1", "DICE")[1][1:3] == ["26.55 [misprint]", "40.00"]
    assert not any(
        line["difference"] for line in lines(tmp_path, "srf1") if line["method"] == "DICE"
    )


def test_unmeasured_rows_say_why(tmp_path):
    notes = {line["method"]: line["note"] for line in lines(tmp_path, "srf1")}
    assert (
        notes["SROE"] == "not measured"
        and notes["VOS"] == notes["OECC"] == "method not in this project"
    )
    assert tables.describe_notes({}) == ["Nothing measured yet."]


def test_each_note_tells_what_its_rows_were_made_of(tmp_path):
    write(tmp_path)
    write(tmp_path, "greg")  # in no row of a table: no note
    write(tmp_path, "oe", ("msp",))
    change(
        tmp_path / "oe.json", snapshot__outliers={"name": "own", "images": 1234}, precision="bf16"
    )
    first, second, ood, *_ = tables.describe_notes(results.measured_results((tmp_path,)))
    assert first == (
        "[1] `pretrained/x`: CIFAR-10, seed 1, 15 epochs, 50,000 training images, "
        "ID accuracy 92.00 % of 10,000, scored in fp32, sha256 pppppppppppp."
    )
    assert (
        second.startswith("[2] `tune_oe/x`, from `p_epoch_14`: CIFAR-10")
        and "1,234 outliers of own, " in second
        and "scored in bf16" in second
    )
    assert (
        ood.startswith("OOD images of [1], [2]: `textures_dtd` † 800")
        and "`isun` 8,925" in ood
        and "`svhn` † 1,083" in ood
    )
    assert row_of(tmp_path, "srf1", "OE")[1][-1] == "[2]"


@pytest.mark.parametrize(
    "unusual",
    [
        {"ood": "svhn"},
        {"id": "/x"},
        {"tune_scores": True},
        {"num_to_avg": 3},
        {"seed": 2},
        {"id_train": "/x"},
        {"image_size": 64},
    ],
)
def test_results_of_another_protocol_do_not_enter(tmp_path, unusual):
    write(tmp_path, **unusual)
    assert results.measured_results((tmp_path,)) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 7},
        {"recipe": {}},
        {"recipe": None},
        {"name": "sweep/x"},
        {"name": "/elsewhere/tune_sr/x"},
        {"name": "pretrained/x_best"},
    ],
)
def test_only_whole_runs_in_their_usual_folder_enter(tmp_path, change):
    write(tmp_path)
    path = tmp_path / "pretrained.json"
    result = json.loads(path.read_text())
    result["snapshot"].update(change)
    if change.get("recipe", 0) is None:
        # a published file
        del result["snapshot"]["recipe"], result["snapshot"]["epoch"], result["snapshot"]["seed"]
    runtime.write_json(path, result)
    assert results.measured_results((tmp_path,)) == {}


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_result_file_is_named(tmp_path, content):
    (tmp_path / "half.json").write_text(content)
    with pytest.raises(runtime.UserError, match="half.json is not a result file"):
        results.measured_results((tmp_path,))


def test_a_stage_s_numbers_are_of_one_snapshot_the_newest(tmp_path):
    write(tmp_path, value=40.0, name="z_all")
    write(tmp_path, value=30.0, scores=("energy",), name="a_energy")
    newer = json.loads((tmp_path / "a_energy.json").read_text())
    newer["snapshot"]["sha256"] = "n" * 64
    runtime.write_json(tmp_path / "a_energy.json", newer)
    os.utime(tmp_path / "z_all.json", (1, 1))
    measured = results.measured_results((tmp_path,))
    assert list(measured) == [("cifar10", "wrn", "pretrained", "energy")]
    assert measured["cifar10", "wrn", "pretrained", "energy"][0]["average"]["fpr95"] == 30.0


def test_other_id_images_are_compared_with_nothing(tmp_path):
    write(tmp_path)
    result = json.loads((tmp_path / "pretrained.json").read_text())
    result["id"]["images"] = 40
    runtime.write_json(tmp_path / "pretrained.json", result)
    assert compared(tmp_path) == set()


def test_ones_own_results_come_before_the_recorded(tmp_path):
    write(tmp_path / "recorded", value=40.0)
    write(tmp_path / "own", value=30.0, scores=("energy",))
    measured = results.measured_results((tmp_path / "recorded", tmp_path / "own"))
    assert [
        measured["cifar10", "wrn", "pretrained", score][0]["average"]["fpr95"]
        for score in ("msp", "energy")
    ] == [40.0, 30.0]


def change(path, **changes):
    """Change a result file: snapshot__NAME changes the snapshot's entry."""
    result = json.loads(path.read_text())
    for key, value in changes.items():
        (result["snapshot"] if key.startswith("snapshot__") else result)[
            key.removeprefix("snapshot__")
        ] = value
    runtime.write_json(path, result)


def test_a_fine_tuning_of_another_network_is_not_shown_beside_this_one(tmp_path):
    write(tmp_path)
    write(tmp_path, "sr", ("energy",))
    measured = ("cifar10", "wrn", "sr", "energy")
    assert measured in results.measured_results((tmp_path,))
    # a network of its own, not measured itself
    write(tmp_path, "sr", ("energy",), arch="densenet", name="sr_densenet")
    assert set(results.measured_results((tmp_path,))) == {
        measured,
        *(("cifar10", "wrn", "pretrained", score) for score in ("msp", "energy")),
    }
    change(tmp_path / "sr.json", snapshot__parent_sha256="q" * 64)
    assert measured not in results.measured_results((tmp_path,))
    assert {line["note"] for line in lines(tmp_path, "srf4") if line["method"] == "SR"} == {
        "not measured"
    }


def test_of_two_recorded_networks_the_longer_trained_one_counts_with_what_came_of_it(
    tmp_path, monkeypatch
):
    """A stage of which it has no fine-tuned network keeps that of the other one."""
    monkeypatch.setattr(results, "RECORDED", tmp_path)
    write(tmp_path, name="z_short", value=40.0)
    long = {
        **json.loads((tmp_path / "z_short.json").read_text())["snapshot"]["recipe"],
        "epochs": 99,
    }
    write(tmp_path, name="a_long", value=30.0)
    change(
        tmp_path / "a_long.json",
        snapshot__sha256="l" * 64,
        snapshot__recipe=long,
        snapshot__epoch=98,
    )
    write(tmp_path, "sr", value=20.0)
    write(tmp_path, "oe", value=10.0)

    def shown(stage):
        found = results.measured_results((tmp_path,))[("cifar10", "wrn", stage, "energy")]
        return found[0]["average"]["fpr95"]

    assert [shown(stage) for stage in ("pretrained", "sr", "oe")] == [30.0, 20.0, 10.0]
    write(tmp_path, "sr", value=15.0, name="of_long")
    change(tmp_path / "of_long.json", snapshot__parent_sha256="l" * 64, snapshot__sha256="n" * 64)
    assert [shown(stage) for stage in ("pretrained", "sr", "oe")] == [30.0, 15.0, 10.0]


@pytest.mark.parametrize(
    "recipe", [{"alpha": 0.05}, {"learning_rate": 0.1}, {"padding": 4}, {"layers": 28}]
)
def test_only_the_papers_recipe_enters(tmp_path, recipe):
    write(tmp_path)
    write(tmp_path, "sr", ("energy",))
    made = json.loads((tmp_path / "sr.json").read_text())["snapshot"]["recipe"]
    change(tmp_path / "sr.json", snapshot__recipe={**made, **recipe})
    assert ("cifar10", "wrn", "sr", "energy") not in results.measured_results((tmp_path,))
    change(
        tmp_path / "sr.json",
        snapshot__recipe={key: value for key, value in made.items() if key != "learning_rate"},
    )
    # not known is not as usual
    assert ("cifar10", "wrn", "sr", "energy") not in results.measured_results((tmp_path,))
    change(tmp_path / "sr.json", snapshot__recipe=made)
    assert ("cifar10", "wrn", "sr", "energy") in results.measured_results((tmp_path,))
    change(tmp_path / "sr.json", snapshot__data="elsewhere")
    assert ("cifar10", "wrn", "sr", "energy") not in results.measured_results((tmp_path,))


@pytest.mark.parametrize(
    "other", [{"precision": "bf16"}, {"ood": [{"name": "svhn", "images": 26032}]}]
)
def test_a_stage_s_rows_are_of_the_same_images_and_precision(tmp_path, other):
    write(tmp_path / "recorded", scores=("msp", "energy", "odin"))
    write(tmp_path / "own", scores=("msp", "energy"))
    folders = (tmp_path / "recorded", tmp_path / "own")
    assert len(results.measured_results(folders)) == 3
    change(tmp_path / "own" / "pretrained.json", **other)
    assert {key[3] for key in results.measured_results(folders)} == {"msp", "energy"}


def test_id_images_that_are_known_to_be_others_are_compared_with_nothing(tmp_path):
    write(tmp_path)
    (fingerprint,) = (f for f, note in STAND_INS["id_notes"].items() if not note["stands"])
    change(
        tmp_path / "pretrained.json",
        id={"error": 8.0, "accuracy": 92.0, "images": 10000, "fingerprint": fingerprint},
    )
    assert compared(tmp_path) == set()
    assert "not its test split" in tables.describe_notes(results.measured_results((tmp_path,)))[-1]


def test_every_published_row_is_in_every_file(tmp_path):
    write(tmp_path)
    write(tmp_path, "sr", ("energy",))
    measured = results.measured_results((tmp_path,))
    page, tex = tables.render_markdown(measured), tables.render_tex(measured)
    for name, table in published.TABLES.items():
        methods = {key[:2] for key in published.published_rows(table, "cifar10")}
        assert {(line["method"], line["network"]) for line in lines(tmp_path, name)} == methods
        section = page.split(f"`--table {name}`")[1].split("\n### ")[0]
        shown = {
            tuple(line.split(" | ")[:2]) for line in section.splitlines() if line.startswith("| ")
        }
        assert {method for method, _ in methods} <= {first.removeprefix("| ") for first, _ in shown}
    parts = re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end", tex, re.S)
    assert len(parts) == len(published.TABLES)
    for columns, body in parts:
        assert {line.count(" & ") for line in body.splitlines() if " & " in line} == {
            len(columns) - 1
        }
    assert not any(
        "_" in line.replace(r"\_", "") for line in tex.splitlines() if not line.startswith("%")
    ) and "†" not in "".join(body for _, body in parts)
    of = {
        (r["method"], r["metric"]): r
        for r in lines(tmp_path, "srf4")
        if r["ood_set"] == "isun" and r["measured"]
    }
    assert [
        of["SR", "fpr95"][key] for key in ("measured", "published", "difference", "precision")
    ] == ["40.00", "12.74", "+27.26", "fp32"]
    # all its images are one draw
    assert all(r["sd"] == "" for r in lines(tmp_path, "energy") if r["ood_set"] == "places")
    assert {
        r["id_error"] for r in lines(tmp_path, "energy") if r["ood_set"] == "mean of the sets here"
    } == {"8.00"}


def test_a_name_says_what_is_not_as_usual():
    def given(**options):
        return argparse.Namespace(
            **{"dataset": "cifar10", "arch": "wrn", "seed": 1, "preset": "paper", **options}
        )

    names = [
        usual.file_name(given(**options), "table")
        for options in ({}, {"seed": 2}, {"arch": "densenet"}, {"preset": "quick"})
    ]
    assert names[0] == "cifar10_table" and len(set(names)) == 4
    assert usual.file_name(given(seed=2, arch="densenet", preset="quick"), "roc") not in names


def test_committed_tables_are_fresh():
    """Also where there are results of one's own: reproduce.py --table
    writes the tables from both.
    """
    folders = [(results.RECORDED,)]
    if any(key[0] in published.ID_SETS for key in results.measured_results((report.RESULTS,))):
        folders.append((results.RECORDED, report.RESULTS))
    left = [pages.stale(one) for one in folders]
    assert {} in left, f"{', '.join(map(str, left[0]))}: stale. Run: python -m utils.paper.pages"
