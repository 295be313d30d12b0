"""Cached arrays: back as they were, made again where a file is damaged,
and never more than the limit.
"""

import os

import numpy as np
import pytest

from utils.runtime import Cache
from utils.runtime import cache as cache_module


def array(number):
    """800 bytes, in a file of about 1,060."""
    return {"x": np.full(100, float(number))}


def used(cache, name, time):
    os.utime(cache.path(name), (time, time))


def test_arrays_come_back_as_they_were(tmp_path):
    cache = Cache(tmp_path)
    assert cache.load("a/b-1.5") is None
    arrays = {"x": np.arange(6.0).reshape(2, 3), "names": np.array(["one", "two"])}
    cache.save("a/b-1.5", arrays)
    found = Cache(tmp_path).load("a/b-1.5")
    assert list(found) == list(arrays) and all(
        np.array_equal(found[key], arrays[key]) for key in arrays
    )
    cache.path("a/b-1.5").write_bytes(cache.path("a/b-1.5").read_bytes()[:100])
    assert cache.load("a/b-1.5") is None


@pytest.mark.parametrize("place", ["", "snapshot/"])
def test_the_longest_unused_go_first(tmp_path, monkeypatch, place):
    cache = Cache(tmp_path)
    for number in range(3):
        cache.save(f"{place}{number}", array(number))
        used(cache, f"{place}{number}", 1000 + number)
    monkeypatch.setattr(cache_module, "LIMIT", 3.5 * cache.path(f"{place}0").stat().st_size)
    cache.load(f"{place}0")  # the oldest, but used just now
    cache.save(f"{place}3", array(3))
    assert [cache.load(f"{place}{number}") is not None for number in range(4)] == [
        True,
        False,
        True,
        True,
    ]
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.npz")) <= cache_module.LIMIT


def test_what_is_larger_than_the_limit_is_kept_until_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "LIMIT", 100)
    cache = Cache(tmp_path)
    cache.save("a", array(1))
    assert cache.load("a")
    cache.save("b", array(2))
    assert cache.load("a") is None and cache.load("b")


def test_other_files_of_the_folder_are_left_alone(tmp_path, monkeypatch):
    others = [
        tmp_path / "sweep" / "x" / "train.npz",
        tmp_path / "sweep" / "train.npz",
        tmp_path / "notes.txt",
    ]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"0" * 1000)
    monkeypatch.setattr(cache_module, "LIMIT", 1)
    Cache(tmp_path).save("a", array(1))
    assert all(file.exists() for file in others)


def test_a_folder_that_cannot_be_written_costs_nothing_else(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    cache = Cache(tmp_path / "cache")
    cache.save("a", array(1))
    assert cache.load("a") is None
