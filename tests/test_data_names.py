"""Data sets are named and fingerprinted in few files: no other string constant has either."""

import ast
import re

import pytest
from conftest import ROOT

from utils import loaders

# The files whose business data sets are; tests and docstrings may name any.
ALLOWED = {
    "utils/loaders/sets.py",
    "utils/loaders/digits.py",  # the set that the project makes itself
    "utils/training/recipes.py",
    "data/download.py",
}
RECORDS = ("utils/losses/", "utils/scores/")  # there, ``per_dataset`` may
FINGERPRINT = re.compile(r"\b[0-9a-f]{64}\b")
NAMES = re.compile(
    rf"(?<![\w-])({'|'.join(sorted(map(re.escape, loaders.DATASETS), key=len, reverse=True))})(?![\w-])"
)
USAGE = re.compile(r"python \S+.*|\S+\.py .*")  # an example in a message or --help
FILES = [*ROOT.glob("*.py"), *ROOT.glob("models/**/*.py"), *ROOT.glob("utils/**/*.py")]
# English first; as a whole constant they are a set's name all the same
OWN_WORDS = {"digits", "places", "gaussian"}


def passed_over(tree, path):
    """ids of constants that may name a data set: docstrings, help and,
    in a record, ``per_dataset``.
    """
    found = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            found.add(id(body[0].value))
        if isinstance(node, ast.keyword) and node.arg in ("help", "description"):
            found.update(id(part) for part in ast.walk(node.value))
        named = isinstance(node, (ast.Assign, ast.AnnAssign)) and {
            target.id
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        if path.startswith(RECORDS) and named and named & {"per_dataset", "origins"}:
            found.update(id(part) for part in ast.walk(node))
    return found


def offences(text, path):
    """[(line, what)] of a file's string constants that name a data set or are a fingerprint."""
    tree, found = ast.parse(text), []
    allowed = passed_over(tree, path)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in allowed
        ):
            words = USAGE.sub("", node.value)
            names = [
                name for name in NAMES.findall(words) if name not in OWN_WORDS or words == name
            ]
            found += [(node.lineno, what) for what in [*names, *FINGERPRINT.findall(words)]]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_data_set_is_named_elsewhere(file):
    path = file.relative_to(ROOT).as_posix()
    if path not in ALLOWED:
        assert offences(file.read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    "line, found",
    [
        ("x = 'cifar10'", ["cifar10"]),
        ("x = f'{a}/isun_{b}'", []),
        ("x = f'{a} isun {b}'", ["isun"]),
        ("def f(name='cifar100'): pass", ["cifar100"]),
        (f"NOTES = {{'{'ab' * 32}': 1}}", ["ab" * 32]),
        ("'''cifar10 in a docstring'''", []),
        ("raise E('Run: python tune.py cifar10')", []),
        ("add(help='cifar10 or another')", []),
        ("x = 'its digits'", []),
        ("x = 'digits'", ["digits"]),
    ],
)
def test_what_counts_as_naming_one(line, found):
    assert [what for _, what in offences(line, "utils/paper/x.py")] == found


def test_a_record_may_name_them_in_per_dataset_alone():
    assert offences("per_dataset = {'cifar100': 1}", "utils/losses/x.py") == []
    assert offences("other = {'cifar100': 1}", "utils/losses/x.py") == [(1, "cifar100")]
    assert offences("per_dataset = {'cifar100': 1}", "utils/paper/x.py") == [(1, "cifar100")]
