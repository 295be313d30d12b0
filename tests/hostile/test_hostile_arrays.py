"""Arrays, lists and folders that a stranger made, or that went wrong: one line, or what they hold."""

import os
import struct
import zlib

import numpy as np
import pytest
from test_hostile import PIXELS, WHOLE, refused

from data import download
from utils import loaders
from utils.loaders import bounds, containers, lists
from utils.runtime import UserError, run


def head(shape, version=1):
    """A .npy that is its head alone."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H", len(text)) + text


HEADS = ("(" * 5000, "(((\n'''", "-" * 9000 + "1", "{" * 300, "\0", "(5,)\n a\n  b\n c")


@pytest.mark.parametrize("shape", HEADS)
def test_heads_of_arrays(tmp_path, shape):
    """Beside others they may be a set of corruptions; alone they are read as an array."""
    folder = tmp_path / "f"
    folder.mkdir()
    for name in ("labels.npy", "fog.npy"):
        (folder / name).write_bytes(head(shape))
    assert "holds no image" in refused(loaders.load, "x", path=folder, data=tmp_path)
    assert "fog.npy" in refused(loaders.load, "x", path=folder / "fog.npy", data=tmp_path)


def test_a_name_in_a_mat_that_is_long(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "FREE_BYTES", 1 << 22)
    size = 1 << 26
    start = struct.pack("<10I", 14, size + 48, 6, 8, 9, 0, 5, 8, 2, 3)
    packer = zlib.compressobj(1)
    packed = packer.compress(start + struct.pack("<II", 1, size))
    packed += packer.compress(b"a" * size) + packer.flush()
    content = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    (tmp_path / "a.mat").write_bytes(content + struct.pack("<II", 15, len(packed)) + packed)
    line = refused(loaders.load, "x", path=tmp_path / "a.mat", data=tmp_path)
    assert "packed into" in line


@pytest.mark.parametrize("kind", ("m8[s]", "M8[s]", "V4", "c8"))
def test_labels_of_other_kinds(tmp_path, kind):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=np.zeros(3, kind))
    assert "not 3 integers" in refused(loaders.load, "x", path=tmp_path / "a.npz", data=tmp_path)


def test_names_of_classes_in_an_array(tmp_path):
    def read(classes):
        labels = np.zeros(3, int)
        np.savez(tmp_path / "a.npz", images=PIXELS, labels=labels, classes=np.array(classes))
        return loaders.load("x", path=tmp_path / "a.npz", data=tmp_path)

    assert read([b"a", "é".encode()]).classes == ("a", "é")
    assert read([7, 8]).classes == ("7", "8")
    assert read(["\x1b[2J"]).classes == ("\\x1b[2J",)
    for wrong in ([["a", "b"]], "a", [1.5], [b"\xff"]):
        assert "a.npz" in refused(read, wrong)


def test_a_long_error_is_shown_without_its_middle(capsys):
    def fail():
        raise UserError("begin " + "x" * (1 << 20) + " end")

    assert run(fail) == 2
    line = capsys.readouterr().err
    assert len(line) < 2200 and "begin" in line and line.endswith("end\n")


def listed(tmp_path, content):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(WHOLE["a.png"])
    (tmp_path / "l.txt").write_bytes(content)
    return loaders.load("x", path=tmp_path / "l.txt", data=tmp_path / "d", size=8)


def test_a_list_that_another_system_wrote(tmp_path):
    found = listed(tmp_path, "\ufeffa.png 0\r\n\r\nb.png\t1".encode())
    assert found.names == ("a.png", "b.png") and found.labels.tolist() == [0, 1]
    assert lists.is_list(tmp_path / "l.txt")


@pytest.mark.parametrize(
    "content, words",
    (
        (b"a.png 0\n" + b"x" * 10_000_000, "is not a list"),
        (b"a.png 0\n" + "\U0001f600".encode() * 1_000_000, "is not a list"),
        (b"a.png 0\nb\0.png 1\n", "cannot be read"),
        (b"a.png 0\n\xff.png 1\n", "is not a list"),
        (b"a.png 0\n" * 10, "more than 9 images"),
    ),
)
def test_lists_that_are_none(tmp_path, monkeypatch, content, words):
    monkeypatch.setattr(bounds, "FILES", 9)
    assert words in refused(listed, tmp_path, content)


def test_a_link_to_itself_hides_nothing(tmp_path):
    """Whatever the order in which a folder is listed, what lies beside it is there."""
    for name in "abcdefgh":
        (tmp_path / f"{name}.png").write_bytes(WHOLE["a.png"])
        (tmp_path / name).symlink_to(tmp_path / name)
        (tmp_path / f"{name}{name}").symlink_to(tmp_path / "nosuch")
    assert containers.Folder(tmp_path).names == [f"{name}.png" for name in "abcdefgh"]


@pytest.mark.parametrize("name, is_said", (("b", True), ("lost+found", False), (".b", False)))
def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch, name, is_said):
    """Without it the classes after it would have other labels."""
    for folder in ("a", name, "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(WHOLE["a.png"])
    whole = os.scandir

    def scandir(path):  # root may read everything
        if str(path).endswith(f"/{name}"):
            raise PermissionError
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    if is_said:
        assert "may not be read" in refused(containers.Folder, tmp_path)
    else:
        assert containers.Folder(tmp_path).names == ["a/a.png", "c/a.png"]


def test_the_home_of_nobody(capsys):
    assert run(lambda: loaders.load("x", path="~nosuchuser/a")) == 2
    assert "begins with ~" in capsys.readouterr().err
    assert download.main(["--check", "--data", "~nosuchuser/a"]) == 2
    assert "no user" in capsys.readouterr().err
