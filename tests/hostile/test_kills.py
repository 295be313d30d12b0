"""Runs that are killed, at random and before every change of a file, end with the same weights."""

import numpy as np
import pytest
import torch
from conftest import plain, stop_at_step, write_own

STEM = "own_wrn_pretrained"

# Sends SIGKILL before the n-th change of a file's name or existence.
KILL_BEFORE = """
import os, signal
count = []
def guard(name):
    real = getattr(os, name)
    def act(*a, **k):
        count.append(1)
        if len(count) == {which}: os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **k)
    setattr(os, name, act)
for name in ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync"): guard(name)
"""
# Sends SIGKILL after a time, whatever the process is at.
KILL_AFTER = """
import signal
signal.signal(signal.SIGALRM, signal.SIG_DFL)
signal.setitimer(signal.ITIMER_REAL, {seconds})
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    own = write_own(tmp_path_factory.mktemp("own"))
    shape = "--layers 10 --widen-factor 1 --batch_size 16 --epochs 2"
    return f"baseline.py own --id {own} --device cpu {shape}"


@pytest.fixture(scope="module")
def weights(make_project, command):
    project = make_project()
    project.do(command)
    return weights_of(project.snapshots / "pretrained")


def weights_of(folder):
    (file,) = [f for f in folder.glob("*_epoch_1.pt") if plain(f.name) == f"{STEM}_epoch_1.pt"]
    return torch.load(file, weights_only=True)


def go_on(project, command, weights, folder=None):
    """Resume, or begin again where nothing had been kept; the weights are the same, and no
    temporary file is left.
    """
    folder = folder or project.snapshots / "pretrained"
    states = [*folder.glob("*.run/*.resume.pt"), *folder.glob("*.run/*.ended.pt")]
    if states or not [*folder.glob("*_epoch_1.pt")]:
        resume = " --resume" if states else ""
        result = project.run(command + resume)
        assert result.status == 0, result.err
    found = weights_of(folder)
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert not [f for f in folder.rglob(".*") if f.is_file()]


@pytest.mark.long
def test_killed_before_every_change_of_a_file(make_project, command, weights):
    for which in range(1, 200):
        project = make_project()
        if project.run(command, prelude=KILL_BEFORE.format(which=which)).status == 0:
            break
        go_on(project, command, weights)
    assert which > 20


@pytest.mark.long
def test_killed_at_random(make_project, command, weights):
    rng = np.random.default_rng(0)
    for seconds in rng.uniform(0.05, 6, 30):
        project = make_project()
        project.run(command, prelude=KILL_AFTER.format(seconds=seconds))
        go_on(project, command, weights)


def test_killed_once_more_while_it_goes_on(make_project, command, weights):
    project = make_project()
    result = project.run(command, prelude=stop_at_step("SIGKILL", 6))  # in the second epoch
    assert result.status == -9
    # before a change of its snapshot: where the kernels are there, nothing else is changed before
    result = project.run(command + " --resume", prelude=KILL_BEFORE.format(which=7))
    assert result.status == -9
    go_on(project, command, weights)
