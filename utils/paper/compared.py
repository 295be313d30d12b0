"""Networks compared within a family: a pre-trained network and what was fine-tuned from it. How far
their FPR95 lie apart, and the standard errors of that.

An error is binomial in the number of OOD images of a set, at the threshold of these ID images; that
of a difference is of two independent sets of images, which overstates it.
"""

from utils.losses import LOSSES

from . import results
from .results import whole_sr_runs
from .usual import USUAL

SURE = 2  # standard errors


def error_of(*rows: dict) -> float:
    """Standard error in percent of the FPR95 of a set, or of the difference of two on one set."""
    return sum(row["fpr95"] * (100 - row["fpr95"]) / row["n"] for row in rows) ** 0.5


def mean_error(*entries: dict) -> float:
    """That of the mean over an entry's sets, or of the difference of two."""
    variances = sum(error_of(row) ** 2 for entry in entries for row in entry["sets"])
    return variances**0.5 / len(entries[0]["sets"])


def mean(entry: dict) -> str:
    """Mean FPR95 over the sets, with its standard error."""
    return f"{entry['average']['fpr95']:.2f} ± {mean_error(entry):.2f}"


def gain(before: dict, after: dict) -> tuple[float, float]:
    """(points by which the mean FPR95 is lower after, their standard error)."""
    points = before["average"]["fpr95"] - after["average"]["fpr95"]
    return points, mean_error(before, after)


def lower(before: dict, after: dict) -> str:
    """On how many sets FPR95 is lower after, and on how many surely so."""
    pairs = list(zip(before["sets"], after["sets"]))
    gains = [(old["fpr95"] - new["fpr95"], error_of(old, new)) for old, new in pairs]
    surely = sum(points > SURE * error for points, error in gains)
    count = sum(points > 0 for points, _ in gains)
    return f"lower on {count} of {len(pairs)} sets, on {surely} by more than {SURE} standard errors"


class Family(dict):
    """{"pretrained" or the loss: result} of a pre-trained network and of what came of it by the
    papers' recipes.
    """

    def entry(self, stage: str) -> dict:
        """A stage's entry with the score of its paper; energy for the pre-trained network."""
        score = LOSSES[stage].score if stage in LOSSES else "energy"
        return self[stage].entry(score)

    def mean(self, stage: str) -> str:
        return mean(self.entry(stage))

    def gain(self, before: str, after: str) -> tuple[float, float]:
        return gain(self.entry(before), self.entry(after))

    def error(self, stage: str) -> float:
        """ID error in percent."""
        return self[stage].error

    def error_apart(self, *stages: str) -> float:
        """Standard error of the difference of two ID errors, in points."""
        counts = [self[stage]["id"]["images"] for stage in stages]
        errors = [self.error(stage) for stage in stages]
        return sum(e * (100 - e) / n for e, n in zip(errors, counts)) ** 0.5

    def images(self, stage: str) -> str:
        return f"n {self[stage]['id']['images']:,}"


def families(name: str) -> list[Family]:
    """The families of a data set, the longest trained network first."""
    wanted = [
        one
        for one in results.recorded_results(name)
        if results.enters(one) and one.of[1] == USUAL["arch"]
    ]
    wanted.sort(key=lambda one: one.recipe["epochs"])
    found = {}
    for one in wanted:
        if one.parent is None and one.has("energy"):
            found[one.sha256] = Family(pretrained=one)
    for one in wanted:
        family = found.get(one.parent)
        if family and one.has(LOSSES[one.stage].score) and one.sets == family["pretrained"].sets:
            family[one.stage] = one
    return list(found.values())[::-1]


def first_with(found: list[Family], *stages: str) -> Family | None:
    return next((family for family in found if set(stages) <= set(family)), None)


def at_alpha(name: str, family: Family, alpha: float) -> results.Result | None:
    """The whole run that differs from the family's of SR by this alpha alone."""
    usual = family["sr"].recipe
    for run in whole_sr_runs(name):
        recipe = run.recipe
        same = all(recipe[key] == usual[key] for key in ("epochs", "padding"))
        if same and recipe["alpha"] == alpha and run.parent == family["sr"].parent:
            return run
    return None
