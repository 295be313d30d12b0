"""Freed memory is kept for later tensors where the C library can, and nothing is said where it cannot."""

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

import models
from utils import runtime
from utils.runtime import errors, memory

FAULTS = """
import resource, sys
import models
from utils import runtime
sys.argv[0] = "script"
def main():
    count = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        bytearray(2 ** 26)      # zeroed: every page is touched, or mapped anew
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - count)
runtime.run(main, keep_memory=KEEP)
"""


def library(answers, calls):
    """A stand-in of the C library whose mallopt gives these answers."""

    def mallopt(option, value):
        calls.append((option, value))
        return answers.get(option, 1)

    return lambda name: SimpleNamespace(mallopt=mallopt)


def test_a_script_keeps_memory_before_its_work(monkeypatch):
    calls = []
    monkeypatch.setattr(ctypes, "CDLL", library({}, calls))
    monkeypatch.setattr(errors.sys, "path", [])
    assert runtime.run(lambda: calls.append("main")) == 0
    assert calls == [(-3, 2**31 - 1), (-1, 2**31 - 1), "main"]
    calls.clear()
    assert runtime.run(lambda: calls.append("main"), keep_memory=False) == 0
    assert calls == ["main"]


def test_the_current_folder_is_searched_last_and_for_a_function_of_ones_own(monkeypatch, tmp_path):
    (tmp_path / "a_net_of_my_own.py").write_text("def net(classes): return classes\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(errors.sys, "path", ["first"])
    assert runtime.run(lambda: 0, keep_memory=False) == 0
    assert errors.sys.path == ["first"]  # a package that a file names is not taken from there
    for _ in range(2):
        assert models.load_function("a_net_of_my_own:net")(3) == 3
    assert errors.sys.path == ["first", str(tmp_path)]


def test_an_older_glibc_maps_no_block_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(ctypes, "CDLL", library({-3: 0}, calls))
    memory.keep_freed_memory()
    assert calls == [(-3, 2**31 - 1), (-4, 0), (-1, 2**31 - 1)]


@pytest.mark.parametrize("failure", ["no such function", "no such library"])
def test_another_c_library_is_left_as_it_is(failure, monkeypatch, capsys):
    def load(name):
        if failure == "no such library":
            raise OSError(failure)
        return SimpleNamespace()

    monkeypatch.setattr(ctypes, "CDLL", load)
    memory.keep_freed_memory()
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_large_blocks_are_mapped_once():
    faults = {}
    for keep in (True, False):
        script = FAULTS.replace("KEEP", str(keep))
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True
        )
        faults[keep] = int(done.stdout)
    assert faults[True] < 0.2 * faults[False]
