"""The order of the house: nothing imports what stands to its right (the data flow's direction), and
models know nothing of utils.
"""

import ast

import pytest
from conftest import ROOT

# Rooms from left to right; those of one line may import one another only from left to right too.
ORDER = (
    "utils.interrupt",
    "utils.output",
    "models",
    "utils.runtime",
    "utils.metrics",
    "utils.losses",
    "utils.loaders",
    "utils.scores",
    "utils.snapshots",
    "utils.training",
    "utils.evaluation",
    "utils.paper",
    "utils.benchmark",
    "scripts",
)
FILES = [f for f in [*ROOT.glob("*.py"), *ROOT.glob("models/**/*.py"), *ROOT.glob("utils/**/*.py")]]


def room(module):
    """The room of a module's dotted name, None for one that is not the project's."""
    if module in {file.stem for file in ROOT.glob("*.py")}:
        return "scripts"
    return next((name for name in ORDER if module == name or module.startswith(name + ".")), None)


def imported(file, package):
    """Dotted names of what a file imports, relative ones resolved."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
                if node.level
                else node.module
            )
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_imports_what_stands_to_its_right(file):
    package = file.relative_to(ROOT).parent.parts
    own = room(".".join(package)) or room(".".join([*package, file.stem]))
    rooms = {room(name) for name in imported(file, package)} - {None}
    assert own is not None, f"{file} lies in no room"
    assert [other for other in rooms if ORDER.index(other) > ORDER.index(own)] == []


def functions(node):
    """Functions of a module and methods of its classes, not what stands inside them."""
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from functions(child)
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child


def untyped(source):
    """Names of the public functions that leave the type of a parameter or of the result open."""
    found = []
    for function in functions(ast.parse(source)):
        given = function.args
        named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        bare = [p for p in named if p and not p.annotation and p.arg not in ("self", "cls")]
        if not function.name.startswith("_") and (bare or function.returns is None):
            found.append(f"{function.name} (line {function.lineno})")
    return found


def test_public_functions_are_typed():
    files = [*FILES, *ROOT.glob("data/*.py")]
    found = {str(file.relative_to(ROOT)): untyped(file.read_text()) for file in files}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source, bare",
    [
        ("def f(x): ...", True),
        ("def f(x: int): ...", True),
        ("def f(*, x=1) -> int: ...", True),
        ("def f(*x) -> int: ...", True),
        ("class A:\n    def f(self, x) -> int: ...", True),
        ("class A:\n    def f(self) -> int: ...\n    def __len__(self): ...", False),
        ("def f(x: int) -> None:\n    def inner(y): ...", False),
        ("def _f(x): ...", False),
    ],
)
def test_what_leaves_a_type_open(source, bare):
    assert bool(untyped(source)) is bare
