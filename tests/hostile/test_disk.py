"""A small disk at every level of filling: nothing that was there is lost, and the run goes on when
there is space again. The full disk of make test is a stand-in (training/test_training.py).
"""

import json
import subprocess

import pytest
import torch
from conftest import noise, write_images
from test_kills import command, go_on, weights  # noqa: F401  (fixtures)

from utils import snapshots


@pytest.fixture
def disk(tmp_path):
    """Function that makes a disk of so many kB, and one that enlarges it; skips without the right."""
    mounted = []

    def mount(*words):
        return subprocess.run(["mount", *words], capture_output=True).returncode == 0

    def make(size):
        place = tmp_path / f"{len(mounted)}"
        place.mkdir()
        if not mount("-t", "tmpfs", "-o", f"size={size}k", "none", str(place)):
            pytest.skip("a small disk cannot be mounted here")
        mounted.append(place)
        return place

    yield make, lambda place: mount("-o", "remount,size=64m", str(place))
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def is_told(result):
    """Whether a run has ended well, or in the one line of a full disk."""
    assert result.status in (0, 2), result.err
    if result.status == 2:
        assert len(result.err.splitlines()) == 1 and "disk is full" in result.err, result.err
    return result.status == 0


@pytest.mark.long
def test_a_training_on_a_disk_that_fills(make_project, command, weights, disk):  # noqa: F811
    project, (make, enlarge) = make_project(), disk
    whole = 0
    for size in (*range(4, 64, 12), *range(64, 3200, 112)):
        folder = make(size)
        whole += is_told(project.run(f"{command} --save {folder}"))
        for file in folder.rglob("*.pt"):
            assert torch.load(file, weights_only=True)
            if not file.name.endswith(snapshots.STATES):
                assert snapshots.load_model(file)
        assert not [file for file in folder.rglob(".*") if file.is_file()]
        assert enlarge(folder)
        go_on(project, f"{command} --save {folder}", weights, folder)
    assert 0 < whole < 30  # both kinds of levels have been seen


@pytest.mark.long
def test_a_scoring_on_a_disk_that_fills(make_project, command, disk):  # noqa: F811
    project, (make, _) = make_project(), disk
    project.do(command)
    write_images(project.root / "ood", noise(12, 8, 0))
    own = command.split()[3]
    (file,) = (project.snapshots / "pretrained").glob("*_epoch_1.pt")
    score = f"test.py --model {file} --id {own} --ood x={project.root / 'ood'} --save-scores"
    whole = 0
    for size in range(4, 100, 8):
        folder = make(size)
        whole += is_told(project.run(f"{score} --score msp,energy --device cpu --save {folder}"))
        assert all(json.loads(file.read_text())["scores"] for file in folder.glob("*.json"))
        assert not list(folder.glob(".*"))
    assert 0 < whole < 12
