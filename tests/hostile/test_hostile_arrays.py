"""Arrays, lists and folders that a stranger made, or that went wrong: one line, or what they hold."""

import struct
import zlib

import numpy as np
import pytest
from test_hostile import PIXELS, refused

from utils import loaders
from utils.loaders import bounds
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
