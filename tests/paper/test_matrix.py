"""reproduce.py --scores-matrix: which networks, which scores, ranks and the rendered table."""

import argparse
import hashlib
import json

import numpy as np
import pytest

from utils import runtime, snapshots
from utils.evaluation import report
from utils.paper import commands, pages, results, studied, studies
from utils.runtime import UserError
from utils.scores import choose
from utils.training import options, recipes

FPR95 = {"pretrained/a_epoch_14": (50, 30, 30), "tune_sr/b_epoch_2": (20, 10, 40)}
USUAL = ("pretrain", "cifar10")
LABELS = ("energy", "knn", "odin:eps=0")


def record():
    rows = [
        {
            "name": name,
            "error": 10.0,
            "precision": "fp32",
            "scores": [
                {"score": label, "average": {"fpr95": value, "auroc": 90.0}}
                for label, value in zip(LABELS, values)
            ],
        }
        for name, values in FPR95.items()
    ]
    return {"rows": rows, "ood": [{}, {}], "num_to_avg": 10, "id": {"images": 1000}}


def test_scores_are_ranked_on_each_network_and_ties_share_a_rank():
    labels, names, fpr95, ranks = studied.arrays(record())
    assert labels == ["knn", "odin:eps=0", "energy"] and names == list(FPR95)
    np.testing.assert_array_equal(fpr95, [[30, 10], [30, 40], [50, 20]])
    np.testing.assert_array_equal(ranks, [1.25, 2.25, 2.5])


def test_a_score_that_one_network_lacks_is_left_out():
    made = record()
    made["rows"][1]["scores"].pop(1)
    assert sorted(studied.arrays(made)[0]) == ["energy", "odin:eps=0"]


def test_the_page_says_what_is_best(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "RECORDED", tmp_path)
    render = pages.BLOCKS["matrix"]
    assert render("cifar10").startswith("Not measured")
    runtime.write_json(tmp_path / "cifar10_scores_matrix.json", record())
    text = render("cifar10")
    assert "| `knn` | 1.2 | 30.00 / 90.00 | 10.00 / 90.00 |" in text
    assert "`energy` is at place 3 of 3" in text
    assert "`knn` on `pretrained`, `knn` on `tune_sr`" in text


@pytest.fixture
def arguments():
    parser = options.Parser()
    options.add_common(parser)
    given = {"dataset": "cifar10", "arch": "wrn", "seed": 1, "preset": "paper", "fresh": False}
    return argparse.Namespace(**vars(parser.parse_args([])), **given)


@pytest.fixture
def described(monkeypatch, tmp_path):
    """Snapshots of these descriptions: whole runs of the papers' recipe, where none says otherwise."""

    def make(made):
        files = {}
        for name, own in made.items():
            file = tmp_path / f"{name}.pt"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(name.encode())
            recipe = recipes.resolve(*(("tune", "cifar10", "sr") if "loss" in own else USUAL))
            whole = {"recipe": {**recipe, "epochs": 1}, "epoch": 0}
            files[file] = {"dataset": "cifar10", "arch": "wrn", "seed": 1, **whole, **own}
        monkeypatch.setattr(snapshots, "all_snapshots", lambda: list(files))
        monkeypatch.setattr(snapshots, "read_description", files.get)

    return make


def sha256_of(name):
    return hashlib.sha256(name.encode()).hexdigest()


def test_only_whole_runs_of_the_network_with_a_classifier(described, arguments):
    from_it = {"loss": "sr", "parent_sha256": sha256_of("pretrained/a_epoch_0")}
    recipe = recipes.resolve("tune", "cifar10", "sr") | {"epochs": 1}
    described(
        {
            "tune_b/b_epoch_0": from_it,
            "pretrained/a_epoch_0": {},
            "other/c_epoch_0": {"arch": "resnet18"},
            "half/d_epoch_0": {"recipe": {"epochs": 9}},
            "pairs/e_epoch_0": {"classifier": False},
            "digits/f_epoch_0": {"dataset": "digits"},
            "third/g_epoch_0": {"seed": 3},
            "alpha/h_epoch_0": from_it | {"recipe": recipe | {"alpha": 0.5}},
            "stranger/i_epoch_0": from_it | {"parent_sha256": sha256_of("another")},
        }
    )
    assert [path.parent.name for path in studies.networks(arguments)] == ["pretrained", "tune_b"]
    arguments.dataset = "cifar100"
    with pytest.raises(UserError, match=r"python baseline\.py cifar100"):
        studies.networks(arguments)


def test_of_each_folder_the_longest_run_and_what_was_made_from_it(described, arguments):
    recipe = recipes.resolve(*USUAL) | {"epochs": 3}
    short, long = sha256_of("pretrained/a_epoch_0"), sha256_of("pretrained/b_epoch_2")
    described(
        {
            "pretrained/a_epoch_0": {},
            # it began with given weights, which are not there
            "pretrained/b_epoch_2": {"recipe": recipe, "epoch": 2, "parent_sha256": "given"},
            "tune_sr/c_epoch_0": {"loss": "sr", "parent_sha256": long},
            "tune_sr_code/d_epoch_0": {"loss": "sr", "parent_sha256": short},
        }
    )
    assert [path.stem for path in studies.networks(arguments)] == ["b_epoch_2", "c_epoch_0"]


def test_each_network_is_scored_by_every_score_of_one_pass(
    monkeypatch, tmp_path, arguments, capsys
):
    asked = []

    def run_script(command):
        asked.append(command)
        words = dict(zip(command[1::2], command[2::2]))
        chosen = choose(words["--score"], "cifar10")
        row = {"set": "svhn", "n": 9, "fpr95": 40.0, "auroc": 90.0, "aupr_in": 95.0}
        entries = [
            {"score": s.label, "hyper": s.hyper, "average": row, "sets": [row]} for s in chosen
        ]
        words["--save"].mkdir(parents=True, exist_ok=True)
        result = {
            "arguments": {},
            "protocol": "paper",
            "snapshot": {"sha256": runtime.sha256_file(words["--model"])},
            "id": {"name": "cifar10", "images": 9, "fingerprint": "f", "error": 8.0},
            "ood": [{"name": "svhn", "images": 9}],
            "num_to_avg": 10,
            "scores": entries,
            "precision": "fp32",
            "machine": {},
            "seconds": 1.0,
        }
        name = report.result_name(words["--model"], [s.label for s in chosen])
        (words["--save"] / f"{name}.json").write_text(json.dumps(result))

    file = tmp_path / "pretrained" / "a_epoch_0.pt"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    monkeypatch.setattr(studies, "networks", lambda args: [file])
    monkeypatch.setattr(commands, "run_script", run_script)
    monkeypatch.setattr(studies, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(runtime, "CIFAR", tmp_path)
    studies.matrix(arguments)
    record = json.loads((tmp_path / "cifar10_scores_matrix.json").read_text())
    labels = [entry["score"] for entry in record["rows"][0]["scores"]]
    assert {"energy", "mahalanobis++", "odin:eps=0"} <= set(labels) and "odin" not in labels
    assert len(asked) == 1 and record["rows"][0]["snapshot"] == runtime.sha256_file(file)
    assert "| `energy` |" in capsys.readouterr().out
    assert (tmp_path / "figures" / "cifar10_scores_matrix.png").exists()
