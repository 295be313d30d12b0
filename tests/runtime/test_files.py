"""Files are whole or not there, and what killed processes leave goes."""

import os

import pytest

from utils.runtime import Cache, files, remove_left, write_files, write_text

GONE = 2**31 - 1  # no process has this number


def temporary(name, machine=files.MACHINE, process=GONE):
    return f".{name}.{machine}_{process}_abc_1234"


def test_what_nobody_writes_any_more_is_removed(tmp_path):
    names = {
        temporary("a.json"): False,
        temporary("of another run.npz"): False,
        temporary("being written", process=os.getpid()): True,
        temporary("on another machine", "00000000"): True,
        temporary("on another machine, long ago", "00000000"): False,
        temporary("by a number given anew", process=os.getpid()).replace("_1234", "_9999"): False,
        ".bashrc.20240101_12345678": True,
        "a.json": True,
    }
    for name in names:
        (tmp_path / name).write_text("x")
        if "ago" in name or "anew" in name:
            os.utime(tmp_path / name, (1e9, 1e9))
    (tmp_path / temporary("folder")).mkdir()
    remove_left(tmp_path)
    assert {name for name, kept in names.items() if kept} | {temporary("folder")} == {
        file.name for file in tmp_path.iterdir()
    }
    remove_left(tmp_path / "missing")


def test_a_temporary_file_is_known_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(os, "unlink", lambda path: made.append(os.path.basename(path)))
    made = []
    with pytest.raises(KeyboardInterrupt):
        write_files({tmp_path / "a b.json": b"x"})
    assert files.TEMPORARY.fullmatch(made[0])[2] == str(os.getpid())


def test_the_cache_removes_them_in_all_its_folders(tmp_path):
    cache = Cache(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / temporary("x.npz")).write_text("half of it")
    cache.save("one/x", {"a": [1]})
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["x.npz"]


def test_a_text_with_names_that_are_not_utf_8_is_written(tmp_path):
    write_text(tmp_path / "a.csv", "set,b\udcffd\n")
    assert (tmp_path / "a.csv").read_text() == "set,b\\udcffd\n"


def test_a_disk_of_another_clock_takes_files_that_belong_together(tmp_path, monkeypatch):
    """What this process has begun is not left by anybody, whatever day the disk says it is."""
    monkeypatch.setattr(files.time, "time", lambda: 4e9)
    files.write_files({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]
