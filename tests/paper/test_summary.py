"""reproduce.py --summary: mean and sd over one's own seeds, from result files written here."""

import csv
import json

import numpy as np
import pytest

import reproduce
from utils.paper import summary
from utils.runtime import UserError

FPR = {1: 30.5, 2: 28.25, 5: 34.75}


def write(folder, stem, seed, fpr95, score="energy", place="tune_sr", epoch=2, **changed):
    row = {"fpr95": fpr95, "auroc": 90 + seed, "aupr_in": 80.0, "set": "isun"}
    entry = {"score": score, "sets": [row], "average": {**row, "set": "average"}}
    name = f"{place}/{stem}_epoch_{epoch}"
    snapshot = {"name": name, "sha256": stem, "seed": seed, "epoch": epoch, "recipe": {"epochs": 3}}
    record = {
        "arguments": {"num_to_avg": 10},
        "protocol": "paper",
        "snapshot": snapshot,
        "id": {"name": "cifar10", "fingerprint": "a", "error": 5.0 + seed},
        "ood": [{"name": "isun", "images": 9, "fingerprint": "b"}],
        "scores": [entry],
        **changed,
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{stem}_{score}_{len(list(folder.glob('*.json')))}.json").write_text(
        json.dumps(record)
    )


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    monkeypatch.setattr(summary.report, "RESULTS", folder)
    for seed, value in FPR.items():
        write(folder, f"cifar10_wrn_s{seed}_tune_alpha0.05", seed, value)
    write(folder, "cifar10_wrn_s2_tune", 2, 99.0)  # the recipe's own alpha
    write(folder, "cifar10_wrn_s7_tune_alpha0.05", 7, 99.0, epoch=1)  # not at its end
    write(folder, "cifar10_wrn_s1_tune_alpha0.05", 1, 60.0, place="tune_sroe")
    (folder / "cifar10_sweep_alpha.json").write_text('{"rows": []}')
    (folder / "other.json").write_text("[")
    return folder


def test_mean_and_sd_over_seeds(results, capsys):
    reproduce.main(["--summary", "tune_sr/cifar10_wrn_s1_tune_alpha0.05"])
    out, values = capsys.readouterr().out, np.array(list(FPR.values()))
    mean, sd = values.mean(), values.std(ddof=1)
    assert f"| 3 (1, 2, 5) | {mean:.2f} ± {sd:.2f} |" in out and "99.00" not in out
    stem = "tune_sr_cifar10_wrn_tune_alpha0.05_summary"
    lines = list(csv.DictReader((results / f"{stem}.csv").open()))
    assert [line["set"] for line in lines] == ["isun", "average"]
    assert float(lines[1]["fpr95"]) == pytest.approx(mean, abs=1e-4)
    assert float(lines[1]["fpr95_sd"]) == pytest.approx(sd, abs=1e-4)
    errors = np.array([5.0 + seed for seed in FPR])
    assert float(lines[1]["id_error_sd"]) == pytest.approx(errors.std(ddof=1), abs=1e-4)
    assert (
        lines[1]["n"] == "3" and lines[1]["seeds"] == "1 2 5" and float(lines[1]["aupr_in_sd"]) == 0
    )
    tex = (results / f"{stem}.tex").read_text()
    assert rf"& {mean:.2f} $\pm$ {sd:.2f} &" in tex and r"cifar10\_wrn\_s*\_tune" in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1


def test_one_seed_has_no_sd(results, capsys):
    summary.summarise("cifar10_wrn_s2_tune")
    assert "| 1 (2) | 99.00 | 92.00 | 80.00 | 7.00 |" in capsys.readouterr().out
    (line, *_) = csv.DictReader((results / "cifar10_wrn_tune_summary.csv").open())
    assert line["n"] == "1" and line["fpr95_sd"] == ""


def test_a_newer_result_of_a_seed_counts_and_other_settings_stand_apart(results, capsys):
    write(results, "cifar10_wrn_s1_tune_alpha0.05", 1, 40.0)
    write(results, "cifar10_wrn_s2_tune_alpha0.05", 2, 1.0, arguments={"num_to_avg": 3})
    summary.summarise("tune_sr/cifar10_wrn_s2_tune_alpha0.05")
    rows = [line for line in capsys.readouterr().out.splitlines() if "tune_sr/" in line]
    values = np.array([40.0, FPR[2], FPR[5]])
    assert f"| {values.mean():.2f} ± {values.std(ddof=1):.2f} |" in rows[0]
    assert (
        "num_to_avg 10" in rows[0] and "num_to_avg 3" in rows[1] and "| 1 (2) | 1.00 |" in rows[1]
    )


def test_runs_from_one_network_and_from_that_of_their_seed_are_two_series(results, capsys):
    for seed, value in ((1, 10.0), (2, 20.0), (3, 40.0)):
        write(results, f"cifar100_wrn_s{seed}_tune", seed, value)
    write(results, "cifar100_wrn_s2_tune_from-s1", 2, 12.0)
    summary.summarise("cifar100_wrn_s1_tune")
    own, fixed = [line for line in capsys.readouterr().out.splitlines() if "tune_sr/" in line]
    assert f"3 (1, 2, 3) | 23.33 ± {np.std([10, 20, 40], ddof=1):.2f}" in own
    assert f"from-s1 | paper | energy | average | 2 (1, 2) | 11.00 ± {2**0.5:.2f}" in fixed


def test_a_name_of_no_run_says_what_there_is(results):
    with pytest.raises(UserError) as told:
        summary.summarise("cifar10_wrn_s1_tune_alpha0.5")
    assert "tune_sr/cifar10_wrn_tune_alpha0.05" in str(told.value) and "\n" not in str(told.value)
    for words in (["--sweep"], ["--preset", "quick"], ["--seeds", "1,2"]):
        with pytest.raises(SystemExit) as stopped:
            reproduce.main(["--summary", "x", *words])
        assert stopped.value.code == 2
    assert "--summary DIR/NAME" in str(told.value)
    summary.summarise("cifar10_wrn_s1_tune_alpha0.05")  # without a folder: SROE's too


def test_results_of_another_folder_are_summarised_there(results, tmp_path, capsys):
    for seed, value in ((1, 3.0), (2, 5.0)):
        write(tmp_path / "mine", f"cifar10_wrn_s{seed}_tune", seed, value)
    paths = summary.summarise(f"{tmp_path}/mine/cifar10_wrn_s1_tune")
    assert f"| 2 (1, 2) | 4.00 ± {2**0.5:.2f} |" in capsys.readouterr().out
    assert {path.parent for path in paths} == {tmp_path / "mine"}
