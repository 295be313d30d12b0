"""Whole runs with some losses side by side, whatever their recipe: what one loss does that another
one, or none, does not.
"""

from utils.evaluation.protocol import is_usual
from utils.losses import LOSSES
from utils.snapshots import is_complete

from . import results
from .markdown import fpr_cells, table
from .published import PUBLISHED, printed_number, set_names
from .results import Result, epochs_of, parents_of
from .usual import USUAL


def render_beside(name: str, first: str, *others: str) -> str:
    """Every recorded run with the loss ``first``, after those with ``others`` that began with the
    same network and after that network, by the scores of these losses. Of their recipes it has the
    options that not all have alike.
    """
    runs = [
        one
        for one in results.recorded_results(name)
        if one.of[1] == USUAL["arch"] and is_usual(one) and is_complete(one["snapshot"])
    ]
    origins = {one.parent for one in runs if one.stage == first}
    stages = (*others, first)
    runs = [one for one in runs if one.stage in stages and one.parent in origins]
    runs.sort(key=lambda one: (stages.index(one.stage), one.recipe["epochs"], one.name))
    options, scores = differing(runs), dict.fromkeys(LOSSES[one.stage].score for one in runs)
    rows, columns = [], []
    for result in [*parents_of(runs), *runs]:
        recipe = result.recipe if result in runs else {}
        made = [number_of(recipe.get(option)) for option in options]
        for score in filter(result.has, scores):
            entry = result.entry(score)
            cells = [f"`{score}`", result.error, *fpr_cells(entry)]
            printed = published_mean(name, first, result.stage, score)
            rows.append([f"`{result.name}`", *made, epochs_of(result), *cells, printed])
            columns = set_names(entry)
    head = ["run", *(f"`{option}`" for option in options), "epochs", "`--score`", "ID error"]
    return table([*head, *columns, f"average, published ({first})"], rows)


def differing(runs: list[Result]) -> list[str]:
    """Options of which the recipes of some runs have more than one value; not loss and epochs."""
    values = {}
    for run in runs:
        for option, value in run.recipe.items():
            values.setdefault(option, set()).add(value)
    return [key for key in values if len(values[key]) > 1 and key not in ("loss", "epochs")]


def number_of(value: object) -> object:
    """An option's value as it is typed: a table would write its float with two digits."""
    return f"{value:g}" if isinstance(value, float) else value


def published_mean(name: str, source: str, stage: str, score: str) -> str | None:
    """The mean FPR95 that a paper has of a loss on the usual network, with its flag."""
    wanted = {"id_set": name, "source": source, "stage": stage, "score": score}
    wanted |= {"ood_set": "average", "metric": "fpr95", "network": USUAL["arch"]}
    found = [record for record in PUBLISHED["records"] if wanted.items() <= record.items()]
    return printed_number(found[0]) if found else None
