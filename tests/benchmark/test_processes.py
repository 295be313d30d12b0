"""The benchmark's part "processes": the commands that it runs and what it makes of their files."""

import argparse

import pytest
import torch

from utils.benchmark import processes

CPU = torch.device("cpu")
SMALL = argparse.Namespace(arch="wrn", layers=10, widen_factor=1, train_batch=10, rounds=2)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(processes, "STEPS", 5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def check(rows):
    one, two = rows
    assert one["what"] == "one process, 2 threads" and two["what"] == "2 processes"
    assert one["part"] == two["part"] == "torchrun, batch 10"
    for row in rows:
        assert len(row["seconds"]) == row["rounds"] == 2 and row["peak_mib"] > 50
        assert row["rate"] == pytest.approx(50 / sorted(row["seconds"])[0], rel=1)
    return one, two


def test_epochs_after_the_first_are_held_against_each_other(monkeypatch, two_cores):
    seen = []

    def run_apart(command, **environment):
        words = [str(word) for word in command]
        seen.append((words, environment))
        folder, epochs = (words[words.index(name) + 1] for name in ("--save", "--epochs"))
        took = {"1": 5, "2": 10}[environment["OMP_NUM_THREADS"]]
        table = "".join(f"{epoch},{100 if not epoch else took}\n" for epoch in range(int(epochs)))
        file = processes.Path(folder) / "run" / "a_training_results.csv"
        file.parent.mkdir(parents=True)
        file.write_text("epoch,time(s)\n" + table)
        return "", 1.0, 60.0

    monkeypatch.setattr(processes, "run_apart", run_apart)
    one, two = check(processes.part_processes(SMALL, CPU, "fp32"))
    assert (one["seconds"], two["seconds"], two["ratio"]) == ([10, 10], [5, 5], 2)
    (plain, _), (several, _) = seen
    assert plain[0] == "baseline.py" and several[:2] == ["-m", "torch.distributed.run"]
    assert several[several.index("--nproc_per_node") + 1] == "2"


def test_one_core_has_nothing_to_compare(monkeypatch, capsys):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert processes.part_processes(SMALL, CPU, "fp32") == []
    assert "one core" in capsys.readouterr().out


@pytest.mark.long
def test_both_ways_train(two_cores):
    check(processes.part_processes(SMALL, CPU, "fp32"))
