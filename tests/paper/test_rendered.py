"""The pages' tables against numbers computed by hand from made-up results."""

import json

import pytest
from test_tables import change, write

from utils import runtime
from utils.paper import compared, pages, published, rendered, results, tables


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """An empty folder in the place of the recorded results."""
    monkeypatch.setattr(results, "RECORDED", tmp_path)
    return tmp_path


def put(folder, stage="pretrained", fpr95=None, error=8.0, mean_l1=40.0, **keywords):
    """A result with these FPR95 of its sets, {set: percent}, where they differ from ``value``."""
    name = keywords.setdefault("name", f"cifar10_{stage}")
    write(folder, stage, keywords.pop("scores", ("msp", "energy")), **keywords)
    result = json.loads((folder / f"{name}.json").read_text())
    result["id"].update(error=error, mean_l1=mean_l1)
    result["num_to_avg"] = 10
    for entry in result["scores"]:
        for row in entry["sets"]:
            row["fpr95"] = (fpr95 or {}).get(row["set"], row["fpr95"])
    runtime.write_json(folder / f"{name}.json", result)
    return folder / f"{name}.json"


def cells(text, first):
    """The cells of the table line that begins with this one."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_standard_error_of_the_difference_of_two_fpr95():
    # n OOD images each: sqrt(40*60/800 + 30*70/800) = sqrt(5.625)
    before, after = {"fpr95": 40.0, "n": 800}, {"fpr95": 30.0, "n": 800}
    assert compared.error_of(before, after) == pytest.approx(2.371708, abs=1e-6)
    assert compared.error_of({"fpr95": 0.0, "n": 9}, {"fpr95": 100.0, "n": 9}) == 0


def test_the_answer_counts_the_sets_that_are_lower_and_clearly_so(recorded):
    put(recorded, error=10.11, mean_l1=41.65)
    put(recorded, "sr", {"textures_dtd": 36.0, "svhn": 45.0}, value=30.0, error=9.55, mean_l1=23.4)
    text = rendered.render_answer("cifar10")
    # textures_dtd, n 800: sqrt((40*60 + 36*64)/800) = 2.42, more than half of the 4 points it gains
    assert cells(text, "textures_dtd")[1:5] == ["40.00", "36.00", "-4.00", "2.42"]
    assert cells(text, "svhn (not the paper's)")[1:5] == ["40.00", "45.00", "+5.00", "2.12"]
    assert cells(text, "isun")[1:5] == ["40.00 ± 0.50", "30.00 ± 0.50", "-10.00", "0.71"]
    assert "lower on 5 of 6 sets, on 4 by more than 2 standard errors" in text
    assert (
        "ID error 10.11 % before, 9.55 % after; mean ‖h‖₁ of the ID test images "
        "41.65 before, 23.40 after" in text
    )


def test_the_answer_is_of_one_network_alone(recorded):
    put(recorded)
    assert "Not measured" in rendered.render_answer("cifar10")
    put(recorded, "sr", value=30.0)
    assert "lower on 6 of 6 sets" in rendered.render_answer("cifar10")
    sets = json.loads((recorded / "cifar10_sr.json").read_text())["ood"]
    change(recorded / "cifar10_sr.json", ood=sets[1:])
    assert "Not measured" in rendered.render_answer("cifar10")
    change(recorded / "cifar10_sr.json", ood=sets, snapshot__parent_sha256="q" * 64)
    assert "Not measured" in rendered.render_answer("cifar10")


def test_seeds_are_the_mean_and_the_sample_deviation_of_the_usual_runs(recorded):
    head = "method,id_error,set,n,fpr95,auroc\n"
    for name, fpr95, auroc, error in (
        ("digits_table", 10, 90, 1),
        ("digits_s2_table", 20, 92, 1),
        ("digits_s3_table", 30, 97, 4),
        ("digits_densenet_table", 99, 1, 99),
        ("digits_quick_table", 99, 1, 99),
        ("digitsx_table", 99, 1, 99),
    ):
        line = f"SR,{error},isun,5,77,77\nSR,{error},average,,{fpr95},{auroc}\n"
        (recorded / f"{name}.csv").write_text(head + line)
    text = rendered.render_seeds("digits")
    # sd with n - 1: sqrt((9 + 1 + 16) / 2) of 90, 92, 97; sqrt((1 + 1 + 4) / 2) of 1, 1, 4
    assert cells(text, "SR") == ["SR", "20.00 ± 10.00", "93.00 ± 3.61", "2.00 ± 1.73"]
    assert "over 3 training seeds" in text


def test_whole_runs_are_told_apart_by_crop_alpha_and_epochs(recorded):
    put(recorded)
    for name, alpha, padding, value in (
        ("a", 0.05, 0, 22.5),
        ("b", 0.0, 0, 38.5),
        ("c", 0.02, 4, 42.25),
    ):
        path = put(
            recorded,
            "sr",
            value=value,
            name=f"cifar10_wrn_s1_tune_sr_{name}",
            error=9.5,
            mean_l1=30.0,
        )
        made = json.loads(path.read_text())["snapshot"]["recipe"]
        change(
            path,
            snapshot__recipe={**made, "alpha": alpha, "padding": padding},
            snapshot__name=f"tune_{name}/x",
        )
    other = put(recorded, "sr", value=1.0, name="cifar10_wrn_s1_tune_sr_energy_openood")
    change(other, protocol="openood", snapshot__name="tune_other/x")
    text = rendered.render_whole("cifar10")
    shown = [line.split(" | ")[0].strip("| `") for line in text.splitlines()]
    assert shown[2:] == ["pretrained/x", "tune_b/x", "tune_a/x", "tune_c/x"]
    assert cells(text, "`pretrained/x`")[1:5] == ["-", "-", "15", "8.00"]
    assert cells(text, "`tune_a/x`")[1:6] == ["0", "0.05", "15", "9.50", "30.00"]
    assert cells(text, "`tune_a/x`")[-2:] == ["22.50 ± 0.50", "22.50 / 90.00"]


def test_the_summary_has_the_papers_number_beside_the_papers_recipe_alone(recorded):
    put(recorded, value=47.5)
    for name, alpha, padding, value in (
        ("a", 0.05, 0, 22.5),
        ("b", 0.02, 0, 29.5),
        ("c", 0.02, 4, 42.5),
    ):
        path = put(recorded, "sr", value=value, name=f"cifar10_wrn_s1_tune_sr_{name}")
        made = json.loads(path.read_text())["snapshot"]["recipe"]
        change(
            path,
            snapshot__recipe={**made, "alpha": alpha, "padding": padding},
            snapshot__name=f"tune_{name}/x",
        )
    text = rendered.render_summary("cifar10")
    shown = [line.split(" | ")[0].strip("| ") for line in text.splitlines()[2:]]
    assert shown == [
        "MSP",
        "Energy",
        "SR, alpha 0.02",
        "SR, alpha 0.05",
        "SR, alpha 0.02, with the random crop",
    ]
    # [SRF], table 1: 16.30 / 96.51 of SR, 34.92 / 91.27 of the energy score
    assert cells(text, "SR, alpha 0.02")[1:3] == ["29.50 / 90.00", "16.30 / 96.51"]
    assert cells(text, "SR, alpha 0.05")[1:3] == ["22.50 / 90.00", "-"]
    assert cells(text, "Energy")[1:3] == ["47.50 / 90.00", "34.92 / 91.27"]


def test_the_summary_shows_the_network_that_its_fine_tunings_were_made_from(recorded):
    put(recorded, value=47.5)
    put(recorded, "sr", value=30.0)
    path = put(recorded, value=35.0, name="cifar10_long")
    long = {**json.loads(path.read_text())["snapshot"]["recipe"], "epochs": 100}
    change(path, snapshot__sha256="l" * 64, snapshot__recipe=long, snapshot__epoch=99)
    lines = [line for line in rendered.render_summary("cifar10").splitlines() if "Energy" in line]
    assert [line.split(" | ")[1] for line in lines] == ["35.00 / 90.00", "47.50 / 90.00"]
    assert [line.strip("| ").split(" | ")[-1] for line in lines] == ["100", "15"]
    assert cells(rendered.render_summary("cifar10"), "SR, alpha 0.02")[-1] == "15 + 15"


def test_losses_are_compared_at_one_score(recorded):
    put(recorded, value=47.72)
    put(recorded, "oe", value=15.64, mean_l1=60.11)
    put(recorded, "sr", value=42.0, scores=("energy",))  # not measured with msp: no row
    text = rendered.render_same_score("cifar10")
    assert cells(text, "OE") == ["OE", "15 + 15", "8.00", "60.11", "15.64 / 90.00", "15.64 / 90.00"]
    assert (
        cells(text, "pre-trained")[4:] == ["47.72 / 90.00", "47.72 / 90.00"]
        and "| SR |" not in text
    )


def test_what_has_not_been_measured_says_so(recorded):
    for block in ("result", "seeds", "same_score", "every", "answer", "sweep", "ablation", "whole"):
        assert pages.BLOCKS[block]("cifar10").startswith(rendered.NOTHING[:-1]), block
    assert "Nothing measured yet." in tables.render_markdown({})
    assert all(
        "40.00" not in line
        for name in published.TABLES
        for line in map(str, tables.grid(name, "cifar10", {}))
    )


def test_a_recorded_score_is_named_by_the_defaults_of_today():
    """ash-s was recorded with p=95, its default then."""
    for recorded, p, label in (("ash-s", 95.0, "ash-s:p=95"), ("ash-s:p=65", -1.0, "ash-s")):
        entry = {"score": recorded, "hyper": {"p": p}}
        assert rendered.label_of(entry, "cifar10") == label
    assert rendered.label_of({"score": "ash-s", "hyper": {"p": 90.0}}, "imagenet") == "ash-s"
