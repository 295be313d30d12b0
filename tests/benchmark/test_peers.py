"""The benchmark's parts "peers" and "memory" on tiny sizes: what they hold against what, and what
the page says of it.
"""

import argparse
import json

import numpy as np
import pytest
import torch

from utils.benchmark import __main__ as benchmark
from utils.benchmark import measure, peers, steps
from utils.paper import results, speed

CPU = torch.device("cpu")


def another(train, images):
    """A library with the energy and a knn that is none."""
    logits = torch.from_numpy(images.logits)
    return {
        "energy": peers.Peer(None, lambda: -logits.logsumexp(1).numpy()),
        "knn": peers.Peer(lambda: None, lambda: np.arange(len(images)) % 7),
        "vim": peers.Peer(lambda: None, lambda: pytest.fail("vim was not asked for")),
    }


def not_there(train, images):
    raise ImportError("No module named 'pytorch_ood'")


@pytest.fixture
def rows(monkeypatch, capsys):
    monkeypatch.setattr(peers, "LIBRARIES", {"another": another, "not there": not_there})
    monkeypatch.setattr(measure, "SHORTEST", 1e-9)
    args = argparse.Namespace(peers=[(200, 12, 30)], evaluation_scores="energy,knn", rounds=2)
    before = torch.get_num_threads()
    found = peers.part_peers(args, CPU, "fp32")
    assert torch.get_num_threads() == before
    assert "not there is left out: No module named" in capsys.readouterr().out
    return found


def test_a_score_is_held_against_what_others_have(rows):
    fit, score = "peers, fit on 200 x 12", "peers, score 30 of 200 x 12"
    found = [(row["part"], row["what"].partition(" (ranks differ")[0]) for row in rows]
    assert found == [
        (f"{score}, energy", "another"),
        (f"{score}, energy", "this project"),
        (f"{fit}, knn", "another"),
        (f"{fit}, knn", "this project"),
        (f"{score}, knn", "another"),
        (f"{score}, knn", "this project"),
    ]
    assert [row["what"] for row in rows if "differ" in row["what"]] == [rows[4]["what"]]


def test_the_page_marks_what_is_slower(rows, tmp_path, monkeypatch):
    for row, seconds in zip(rows, (1.0, 2.0, 0.0, 1.0, 3.0, 2.0), strict=True):
        row["seconds"] = [seconds] * 2
    machine = {"device_name": "CPU", "threads": 1, "torch": "2", "commit": "a", "modified": False}
    record = {"rows": rows, "accuracy": None, "machine": machine}
    (tmp_path / "benchmark_peers.json").write_text(json.dumps(record))
    monkeypatch.setattr(results, "RECORDED", tmp_path)
    page = speed.render_peers()
    assert "| score | held against | score 30 of 200 x 12 | fit on 200 x 12 |" in page
    assert "| `energy` | another | **0.50** |  |" in page and "CPU, 1 thread" in page
    assert "| `knn` | another |  | **0.00** |" in page and "| 1.50 |  |" in page
    # it has a table of its own
    assert speed.render_performance() == speed.render_losses() == "Not measured yet."


@pytest.mark.parametrize("text", ["5x6", "5x6x0", "5x6xseven"])
def test_bad_sizes(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.parse(["--peers", text])
    assert text in capsys.readouterr().err
    assert benchmark.parse(["--peers", "5x6x7"]).peers == [(5, 6, 7)]


def test_memory_kept_is_a_process_of_its_own(tmp_path, monkeypatch):
    calls = []

    def call_apart(function, *given, keep):
        calls.append((function, given, keep))
        return ([1.0, 1.0], 9.0, 140.0) if keep else ([2.0, 3.0], 9.0, 100.0)

    monkeypatch.setattr(steps, "call_apart", call_apart)
    words = "--rounds 2 --batch 4 --train-batch 2 --layers 10 --widen-factor 1"
    rows = steps.part_memory(benchmark.parse(words.split()), CPU, "fp32")
    assert len(rows) == len(calls) == 2 * 2 * len(steps.NETWORKS) == 16
    assert [keep for _, _, keep in calls] == [False, True] * 8
    assert {(row["ratio"], row["peak_mib"], row["rounds"]) for row in rows} == {
        (1.0, 100.0, 2),
        (2.5, 140.0, 2),
    }
    machine = {"device_name": "CPU", "threads": 2, "torch": "2", "commit": "a", "modified": False}
    record = {"rows": rows, "accuracy": None, "machine": machine, "arguments": {"arch": "wrn"}}
    (tmp_path / "benchmark.json").write_text(json.dumps(record))
    monkeypatch.setattr(results, "RECORDED", tmp_path)
    page = speed.render_kept()
    assert "| training step, densenet, batch 2 | freed memory kept | 4 | 2.50 | 140 |" in page
    # what is called apart does the work
    assert {function for function, _, _ in calls} == {"steps:time_work"}
    made = [steps.time_work(*given) for _, given, _ in calls[:4:2]]
    assert [len(seconds) for seconds in made] == [2, 2] and np.min(made) > 0
