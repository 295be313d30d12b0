"""Every command of the README is one the real parsers take, and its rendered tables are fresh."""
import importlib.util
import re
import shlex

import pytest

import baseline
import reproduce
import tune
from data import download
from utils import runtime
from utils.paper import methods, pages, rendered
from utils.training import recipes

TEXT = (runtime.ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.S)
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()] \
    + re.findall(r"`(python [^`]+)`", TEXT)
COMMANDS = sorted({command for command in COMMANDS if command and "SCRIPT" not in command})


def load_test_script():
    """test.py by its path: the name belongs to a package of the standard library."""
    spec = importlib.util.spec_from_file_location("test_script", runtime.ROOT / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(command):
    words = shlex.split(command)
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (runtime.ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
        assert all(re.search(rf"^{word.split('=')[0]} \?=", makefile, re.M) for word in words[1:] if "=" in word)
        return
    assert words[0] == "python"
    if words[1] == "-m":
        assert importlib.util.find_spec(words[2]) is not None
        return
    assert (runtime.ROOT / words[1]).exists()
    parsers = {"baseline.py": baseline.parse, "tune.py": tune.parse, "test.py": load_test_script().parse,
               "reproduce.py": reproduce.parse, "data/download.py": download.parse}
    parsers[words[1]](words[2:])


def test_there_are_commands_of_every_script():
    for script in ("baseline.py", "tune.py", "test.py", "reproduce.py", "data/download.py", "make test", "make reproduce"):
        assert any(script in command for command in COMMANDS), script


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command):
    parse(command)


def test_a_wrong_command_would_not_parse():
    with pytest.raises((SystemExit, runtime.UserError)):
        parse("python baseline.py cifar10 --no-such-option")


def test_rendered_tables_are_fresh():
    assert pages.render(TEXT) == TEXT, "README.md is stale. Run: python -m utils.paper.pages"


def test_every_block_of_the_page_is_known():
    assert set(re.findall(r"<!-- (\w+) -->", TEXT)) == set(pages.BLOCKS)


@pytest.mark.parametrize("dataset", ["digits"])
def test_recorded_results_were_made_with_the_recipes_of_the_code(dataset):
    rows = list(rendered.result_rows(dataset))
    assert len(rows) == len(methods.METHODS)
    for title, _, result, _ in rows:
        loss = result["snapshot"].get("loss")
        recipe = recipes.resolve("tune" if loss else "pretrain", dataset, loss)
        made = result["snapshot"]["recipe"]
        assert {key: made[key] for key in recipe if key in made} == {key: recipe[key] for key in recipe if key in made}, title
        assert {"epochs", "learning_rate", "batch_size"} <= set(made)


def test_recording_keeps_what_has_not_been_measured_again(tmp_path, monkeypatch):
    from test_tables import write
    for name in ("RESULTS", "RECORDED", "FIGURES"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(pages.report, "RESULTS", tmp_path / "RESULTS")
    monkeypatch.setattr(pages, "RECORDED", tmp_path / "RESULTS" / "recorded")
    monkeypatch.setattr(pages, "FIGURES", tmp_path / "FIGURES")
    old, new = tmp_path / "RESULTS" / "recorded", tmp_path / "RESULTS"
    old.mkdir()
    write(old, name="cifar10_few", scores=("msp",))
    write(old, name="cifar10_other", scores=("odin",))
    write(old, name="cifar10_sr", stage="sr")
    write(new, name="cifar10_many", scores=("msp", "energy"))
    (new / "cifar10_many.csv").write_text("score\n")
    pages.record("cifar10")
    assert sorted(path.stem for path in old.glob("*.json")) == ["cifar10_many", "cifar10_other", "cifar10_sr"]


def test_every_figure_of_the_page_is_there():
    figures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert figures and all((runtime.ROOT / figure).exists() for figure in figures)
