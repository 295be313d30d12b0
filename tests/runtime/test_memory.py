"""Freed memory stays with the process, where glibc can be told so."""

import ctypes
from types import SimpleNamespace

import pytest

from utils.runtime import errors, keep_freed_memory, run


def test_glibc_is_told_once_before_main(monkeypatch):
    calls = []
    monkeypatch.setattr(
        ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=lambda *a: calls.append(a))
    )
    assert run(lambda: calls.append("main")) == 0
    assert calls == [(-3, 2**31 - 1), (-1, 2**31 - 1), "main"]
    assert run(lambda: None, keep_memory=False) == 0 and len(calls) == 3


@pytest.mark.parametrize("failure", [OSError, AttributeError, TypeError])
def test_where_there_is_no_mallopt_nothing_is_said(failure, monkeypatch, capfd):
    def missing(name):
        raise failure("mallopt")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    keep_freed_memory()
    assert capfd.readouterr() == ("", "")


def test_the_current_folder_is_searched_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(errors.sys, "path", [])
    errors.search_current_folder()
    errors.search_current_folder()
    assert errors.sys.path == [str(tmp_path)]
