"""The chain where little is as usual: the project may not be written to, nobody takes what is
printed, and names of files and classes are bytes that are no text.
"""

import csv
import json
import os

import numpy as np
from conftest import coloured, noise, write_images

from utils import snapshots
from utils.runtime import printable

CLASSES = (b"plain", b"na\xefve", "größe".encode())
# Every change of a file below the project fails as on a disk that is mounted to be read only.
READ_ONLY = """
import builtins, errno, io, os
root = {root!r} + os.sep
def inside(path):
    return not isinstance(path, int) and os.path.abspath(os.fsdecode(path)).startswith(root)
def guard(module, name, changes):
    real = getattr(module, name)
    def act(path, *a, **k):
        if changes(a, k) and (inside(path) or name in ("rename", "replace") and inside(a[0])):
            raise OSError(errno.EROFS, "Read-only file system", os.fspath(path))
        return real(path, *a, **k)
    setattr(module, name, act)
for name in ("mkdir", "unlink", "rmdir", "utime", "chmod", "rename", "replace"):
    guard(os, name, lambda a, k: True)
guard(os, "open", lambda a, k: bool(a) and a[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
for module in (builtins, io):
    guard(module, "open", lambda a, k: set(a[0] if a else k.get("mode", "r")) & set("wax+"))
access = os.access
os.access = lambda path, mode, **k: access(path, mode, **k) and not (mode & os.W_OK and inside(path))
"""
FULL = 'os.dup2(os.open("/dev/full", os.O_WRONLY), 1)\n'
CLOSED = "r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
ASCII = 'import sys\nsys.stdout.reconfigure(encoding="ascii", errors="strict")\n'


def test_the_chain_in_the_worst_place(project, tmp_path):
    place = tmp_path / os.fsdecode(b"pl\xe4ce")
    for split, count in (("train", 30), ("test", 15)):
        images, labels = coloured(count, 3, 8, seed=count)
        for i, name in enumerate(CLASSES):
            folder = place / "own" / split / os.fsdecode(name)
            write_images(folder, images[labels == i])
    ood = write_images(place / "ood" / os.fsdecode(b"\xff"), noise(8, 8, 0))
    prelude = READ_ONLY.format(root=str(project.root))
    before = project.files()
    given = ["--id", place / "own", "--device", "cpu", "--data", tmp_path / "data"]
    train = ["baseline.py", "own", *given, "--save", place / "a", "--layers", 10, "--epochs", 1]
    small = ["--widen-factor", 1, "--batch_size", 10]
    result = project.run([*train, *small], prelude=prelude + FULL)
    assert (result.status, result.err) == (0, "")
    (parent,) = (place / "a").glob("*_epoch_0.pt")
    tune = ["tune.py", "own", *given, "--load", parent, "--save", place / "b", "--epochs", 1]
    result = project.run([*tune, "--batch_size", 10], prelude=prelude + CLOSED)
    assert (result.status, result.err) == (0, "")
    (file,) = (place / "b").glob("*_epoch_0.pt")
    assert snapshots.read_description(file)["classes"] == [
        printable(name) for name in sorted(map(os.fsdecode, CLASSES))
    ]
    score = ["test.py", "--model", file, *given, "--ood", f"folder:{ood}", "--save", place / "c"]
    result = project.run([*score, "--score", "msp", "--save-scores"], prelude=prelude + ASCII)
    assert result.status == 0 and "Traceback" not in result.err
    (found,) = (place / "c").glob("*.json")
    assert json.loads(found.read_text())["scores"][0]["sets"][0]["n"] == 8
    rows = list(csv.DictReader(found.with_suffix(".csv").open(encoding="utf-8")))
    assert [row["set"] for row in rows] == ["\\udcff", "average"]
    with np.load(found.with_name(f"{found.stem}_scores.npz")) as scores:
        assert any(name.startswith("msp/") for name in scores.files)
    assert project.files() == before
