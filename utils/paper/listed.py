"""The pages' tables of what the code, data/sources.json and published.json know of themselves."""

import ast
import textwrap

from utils import loaders, runtime
from utils.losses import LOSSES
from utils.scores import SCORES, described_defaults
from utils.training import options, recipes

from .markdown import table
from .published import ID_SETS, TABLES, published_rows

FRAMEWORK = ("srf1", "srf3")  # tables: all methods on the WRN, then SR on four networks


def render_scores() -> str:
    """Every score with its formula, needs, defaults and paper."""
    rows = []
    for name, score in SCORES.items():
        paper = f"{score.paper.authors}, {score.paper.venue} ({score.paper.link})"
        needs, defaults = ", ".join(score().needs), described_defaults(score) or None
        rows.append([f"`{name}`", f"`{score.formula}`", needs, defaults, paper])
    return table("`--score` | value (larger = more OOD) | needs | defaults | paper", rows)


def render_losses() -> str:
    """Every loss of tune.py: formula, outliers, hyper-parameters,
    the score of its paper, the paper.
    """
    rows = []
    for name, loss in LOSSES.items():
        defaults = ", ".join(f"{key}={value}" for key, value in loss.defaults.items()) or None
        needs = "yes" if loss.outliers else "no"
        names = [f"`{name}`", loss.title, f"`{loss.formula}`"]
        rows.append([*names, needs, defaults, f"`{loss.score}`", loss.paper])
    return table("`--loss` | method | terms | outliers | defaults | scored with | paper", rows)


def render_options() -> str:
    """Recipe options of the training scripts with every default and its origin."""
    rows = []
    for stage, script in (("pretrain", "baseline.py"), ("tune", "tune.py")):
        parser = options.Parser(prog=script)
        options.add_training(parser, stage)
        for action in parser._actions:
            described = recipes.describe(action.dest, stage).removeprefix("default: ")
            if described:
                rows.append([f"`{action.option_strings[0]}`", script, described])
    return table("option | script | default (origin)", rows)


def render_images() -> str:
    """Every set that data/download.py knows, then those that stand in:
    what it is, its images, where it lies.
    """
    rows = []
    for name, entry in loaders.SOURCES["sets"].items():
        images, path = f"{entry['images']:,}", f"`{entry['layout']}`"
        rows.append([f"`{name}`", entry["title"], images, path, entry["licence"]])
    for name, entry in loaders.STAND_INS["sets"].items():
        what = f"in the place of `{entry['for']}`: {entry['kind']}"
        rows.append([f"`{name}`", what, "yours", f"`ood/{name}.npz`", None])
    return table("name | what | images | path below the data folder | licence", rows)


def render_by_hand() -> str:
    """The sets of other protocols that nothing fetches: where they are, and where they go."""
    return table(
        "name | what | from | path below the data folder | what goes there",
        [
            [f"`{name}`", entry["title"], entry["from"], f"`{entry['layout']}`", entry["what"]]
            for name, entry in loaders.SOURCES["by_hand"].items()
        ],
    )


def render_loop() -> str:
    """The training loop of tune.py, as it stands there:
    the innermost ``for`` around ``backward()`` and the optimiser's step.
    """
    source = (runtime.ROOT / "tune.py").read_text(encoding="utf-8")
    loops = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.For)
        and all(call in ast.unparse(node) for call in (".backward()", ".step()"))
    ]
    loop = max(loops, key=lambda node: node.col_offset)
    lines = source.splitlines()[loop.lineno - 1 : loop.end_lineno]
    return "```python\n" + textwrap.dedent("\n".join(lines)) + "\n```"


def commands_of(dataset: str, network: str, score: str, stage: str) -> list[str]:
    """The training, or fine-tuning, and the scoring of a row; none where its loss is not here."""
    arch = "" if network == "wrn" else f" --arch {network}"
    if stage == "pretrained":
        train, model = f"baseline.py {dataset}{arch}", f"{dataset}_{network}_pretrained"
    elif stage in LOSSES:
        loss = "" if stage == "sr" else f" --loss {stage}"
        train = f"tune.py {dataset}{arch}{loss}"
        model = f"tune_{stage}/{dataset}_{network}_s1_tune"
    else:
        return []
    return [f"python {train}", f"python test.py --model {model} --score {score}"]


def render_workflows() -> str:
    """Every row of the framework's tables 1, 2 and 4 with its two commands."""
    rows = []
    for dataset in ID_SETS:
        for name in FRAMEWORK:
            for method, network, score, stage in published_rows(TABLES[name], dataset):
                if name == "srf3" and network == "wrn":  # among all methods already
                    continue
                made = commands_of(dataset, network, score, stage)
                cells = [f"`{command}`" for command in made] or ["not in this project", ""]
                rows.append([dataset, network, method, *cells])
    return table("ID | network | row | trained by | scored by", rows)
