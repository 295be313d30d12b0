"""Every command of every page is one its real parser takes, the worked examples run,
and rendered blocks are fresh.
"""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import baseline
import reproduce
import tune
from data import download
from utils import runtime, snapshots
from utils.evaluation import report
from utils.paper import pages, published, rendered, results
from utils.training import files, recipes

PAGES = {
    path.relative_to(runtime.ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in pages.page_files()
}
README = PAGES["README.md"]
SCRIPTS = ("baseline.py", "tune.py", "test.py", "reproduce.py", "data/download.py")


def commands_of(text):
    """Commands of a page: the lines of its sh blocks,
    and inline code that begins as a command does.
    """
    lines = [
        line.split("  #")[0].strip()
        for block in re.findall(r"```sh\n(.*?)```", text, re.S)
        for line in block.splitlines()
    ]
    plain = re.sub(r"```.*?```", "", text, flags=re.S)
    return [line for line in lines if line] + re.findall(r"`((?:python|make) [^`]+)`", plain)


COMMANDS = sorted(
    {(page, command) for page, text in PAGES.items() for command in commands_of(text)}
)


def load_test_script():
    """test.py by its path: the name belongs to a package of the standard library."""
    spec = importlib.util.spec_from_file_location("test_script", runtime.ROOT / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(command):
    words = shlex.split(re.sub(r"^torchrun (--\S+ )+", "python ", command))
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (runtime.ROOT / "Makefile").read_text()
        assert targets and all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
        assert all(
            re.search(rf"^{word.split('=')[0]} \?=", makefile, re.M)
            for word in words[1:]
            if "=" in word
        )
    elif words[1] == "-m":
        package = importlib.util.find_spec(words[2]).submodule_search_locations
        module = importlib.import_module(words[2] + ".__main__" if package else words[2])
        next(
            getattr(module, name)
            for name in ("parse", "parse_arguments", "main")
            if hasattr(module, name)
        )(words[3:])
    else:
        assert words[0] == "python"
        parsers = {
            "baseline.py": baseline.parse,
            "tune.py": tune.parse,
            "test.py": load_test_script().parse,
            "reproduce.py": reproduce.parse,
            "data/download.py": download.parse,
        }
        parsers[words[1]](words[2:])


@pytest.fixture
def trained(monkeypatch):
    """As if every snapshot and every interrupted run that a command names were there."""
    network = {"arch": "wrn", "layers": 40, "widen_factor": 2, "image_size": 32}
    monkeypatch.setattr(snapshots, "find_one", lambda *given: Path("snapshot.pt"))
    monkeypatch.setattr(
        "utils.training.describe_parent",
        lambda path, arch: {**network, "arch": arch or "wrn"} if not arch else {},
    )
    monkeypatch.setattr(files, "load_state", lambda *given: {"recipe": {}, "epoch": 0})


def test_there_are_commands_of_every_script_and_module():
    for word in (
        *SCRIPTS,
        "make test",
        "make reproduce",
        "make lint",
        "make test-long",
        "utils.benchmark ",
        "utils.benchmark.scores",
        "utils.paper.pages",
        "utils.paper.provide",
        "utils.training.recipes",
    ):
        assert any(word in f"{command} " for _, command in COMMANDS), word


@pytest.mark.parametrize("page, command", COMMANDS)
def test_command_parses(page, command, trained):
    try:
        parse(command)
    except SystemExit as stopped:  # --help
        assert stopped.code == 0


@pytest.mark.parametrize(
    "command",
    [
        "python baseline.py cifar10 --no-such-option",
        "python tune.py cifar10 --loss oe --alpha 0.1",
        "python -m utils.paper.pages --recrod digits",
        "python -m utils.paper.provide",
        "python -m utils.benchmark --parts speed",
        "python -m utils.benchmark.scores --sizes 3",
    ],
)
def test_a_wrong_command_would_not_parse(command, trained):
    with pytest.raises((SystemExit, runtime.UserError)):
        parse(command)


def test_the_first_page_is_one_page():
    assert len(README.splitlines()) <= 180
    plain = re.sub(
        r"(<!-- (\w+)[^>]*-->\n).*?(<!-- /\2 -->)|```.*?```|^\|.*$", "", README, flags=re.S | re.M
    )
    assert [line for line in plain.splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_and_figures_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+)\)", PAGES[name]):
        if not target.startswith("http"):
            assert ((runtime.ROOT / name).parent / target).exists(), target


def test_pages_and_tables_are_fresh():
    """Of the recorded results, or after reproduce.py --table of one's own beside them."""
    if pages.stale() and not pages.stale((results.RECORDED, report.RESULTS)):
        return
    assert sorted(map(str, pages.stale())) == [], "stale. Run: python -m utils.paper.pages"


def test_a_stale_page_is_found(tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text(
        README.replace("| `msp` |", "| `mps` |").replace("total.backward()", "total.forward()")
    )
    monkeypatch.setattr(pages, "page_files", lambda: [page])
    assert set(pages.stale()) == {page}
    with pytest.raises(runtime.UserError, match="stale"):
        pages.main(["--check"])
    pages.main([])
    assert page.read_text() == README


def test_every_block_is_known_and_every_kind_of_block_is_shown():
    shown = {word for text in PAGES.values() for word in re.findall(r"<!-- (\w+)[ \w]*-->", text)}
    assert shown == set(pages.BLOCKS)
    with pytest.raises(runtime.UserError, match="wrnog.*There is: loop"):
        pages.render("<!-- wrnog -->\n<!-- /wrnog -->")


def test_the_loop_of_the_page_is_that_of_the_script():
    shown = re.search(r"<!-- loop -->\n```python\n(.*?)```", README, re.S)[1].splitlines()
    source = [line.strip() for line in (runtime.ROOT / "tune.py").read_text().splitlines()]
    start = source.index(shown[0])
    assert [line.strip() for line in shown] == source[start : start + len(shown)]
    assert (
        shown[0].startswith("for ")
        and any("backward" in line for line in shown)
        and any("optimizer.step" in line for line in shown)
    )


def examples_of(page):
    """{file name: text} of the Python blocks of a page that begin with their file's name."""
    return {
        name: text
        for text, name in re.findall(r"```python\n(# (\w+\.py)\n.*?)```", PAGES[page], re.S)
    }


@pytest.mark.parametrize("page", ["models/README.md", "utils/scores/README.md"])
def test_worked_examples_run(make_project, page):
    project = make_project()
    for name, text in examples_of(page).items():
        (project.root / name).write_text(text)
    if "scores" in page:
        project.do("baseline.py digits --epochs 1")
    commands = [
        c
        for c in commands_of("".join(re.findall(r"```sh\n.*?```", PAGES[page], re.S)))
        if "digits" in c
    ]
    assert commands
    for command in commands:
        printed = project.do(command.removeprefix("python "))
    assert "AUROC" in printed


def test_recorded_results_were_made_with_the_recipes_of_the_code():
    name = next(iter(set(re.findall(r"<!-- seeds (\w+) -->", PAGES["CIFAR/README.md"]))))
    rows = rendered.result_rows(name)
    assert [title for title, *_ in rows] == [title for title, *_ in published.METHODS]
    for title, _, result in rows:
        assert recipes.departures(result["snapshot"]) == {}, title
        loss = result["snapshot"].get("loss")
        assert (
            result["snapshot"]["recipe"]["epochs"]
            == recipes.resolve("tune" if loss else "pretrain", name, loss)["epochs"]
        ), title
