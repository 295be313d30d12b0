"""Two processes at once: of one training the second is refused, two scorings both end well."""

import json
import os

import pytest
import torch
from conftest import plain, write_images, write_own

from utils.training.files import RunFiles, fcntl

SHAPE = "--layers 10 --widen-factor 1 --batch_size 16 --epochs 1"
# The script runs twice from here on, with the output of the second in files of its own. At the first
# call of {at} each waits until the other has come there too, or has ended.
TWICE = """
import os, pathlib, time, torch
place, own = pathlib.Path({place!r}), os.getpid()
child = os.fork()
other = str(os.getppid() if child == 0 else child)
if child == 0:
    for target, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), target)
leave, waited = os._exit, []
def end(status):
    (place / str(os.getpid())).write_text("ended")
    if child:
        (place / "status").write_text(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    leave(status)
os._exit = end
def meet(real):
    def act(*a, **k):
        if not waited:
            waited.append(1)
            (place / str(os.getpid())).write_text("here")
            for _ in range(3000):
                if (place / other).exists() and ({until!r} in (place / other).read_text()): break
                time.sleep(0.01)
        return real(*a, **k)
    return act
{at} = meet({at})
"""


def run_twice(project, command, at, until=""):
    """((status, out, err) of both runs of a command, begun together."""
    place = project.root / "second"
    place.mkdir(exist_ok=True)
    for file in place.iterdir():
        file.unlink()
    first = project.run(command, prelude=TWICE.format(place=str(place), at=at, until=until))
    texts = [(place / name).read_text() for name in ("status", "out", "err")]
    return (first.status, first.out, first.err), (int(texts[0]), *texts[1:])


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return write_own(tmp_path_factory.mktemp("own"))


def test_two_trainings_then_two_scorings(project, own):
    command = f"baseline.py own --id {own} --device cpu {SHAPE}"
    # the one that trains goes on when the other has ended
    runs = run_twice(project, command, "torch.optim.SGD.step", "ended")
    (won, lost) = sorted(runs)
    assert won[0] == 0 and won[2] == "" and "Snapshot:" in won[1]
    assert lost[0] == 2 and lost[2].startswith("baseline.py: another process is training own_wrn")
    assert len(lost[2].splitlines()) == 1
    stem = "own_wrn_pretrained"
    made = {f"{stem}{end}" for end in ("_epoch_0.pt", "_epoch_0.json", "_best.pt", "_best.json")}
    folder = project.snapshots / "pretrained"
    assert {plain(file.name) for file in folder.iterdir()} == made | {
        f"{stem}_training_results.csv"
    }
    images = torch.randint(0, 256, (12, 8, 8, 3), dtype=torch.uint8).numpy()
    write_images(project.root / "ood", images)
    file = project.file(f"pretrained/{stem}_epoch_0.pt")
    score = f"test.py --model {file} --id {own} --ood x={project.root / 'ood'} --score msp"
    for status, out, err in run_twice(project, f"{score} --device cpu --save-scores", "os.fsync"):
        assert status == 0 and err == "" and "result:" in out
    files = sorted(project.results.iterdir())
    assert [file.name[-4:] for file in files] == [".csv", "json", ".npz"]
    record = json.loads(files[1].read_text())
    assert [entry["score"] for entry in record["scores"]] == ["msp"]
    for place in ("CIFAR", "data", "ood"):
        assert not list((project.root / place).rglob(".*"))


def test_a_process_that_decodes_images_does_not_keep_the_lock(tmp_path):
    """It may live seconds longer than a training that was killed."""
    first, second = RunFiles(tmp_path, "a"), RunFiles(tmp_path, "a")
    first.start()
    (read, write), (begun, begin) = os.pipe(), os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(write)
        os.write(begin, b"x")
        os.read(read, 1)  # until the test closes its end
        os._exit(0)
    try:
        os.read(begun, 1)  # the other process is there
        first.release()
        second.hold()
    finally:
        for end in (write, read, begun, begin):
            os.close(end)
        os.waitpid(worker, 0)
    second.release()


def test_a_disk_that_knows_no_locks_stops_nobody(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    RunFiles(tmp_path, "a").start()
