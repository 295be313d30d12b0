"""Score specifications as one writes them: ``energy``, ``all``, ``knn:k=100,dice:p=85``,
``gen:gamma=0.1,M=50``, ``zscore(energy+knn)``, ``module:function``.
"""

import contextlib
import inspect
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import models
from utils import scores
from utils.runtime import UserError

from .base import Outputs, Paper, Score, described_defaults
from .zscore import ZScore

# of Mahalanobis under "all": [ODIN]'s step size, the one [SR]'s code has as its --noise
STEP = 0.0014


class UserScore(Score):
    """A function of your own: ``function(outputs) -> (N,)``, larger = more OOD;
    it sees the Outputs of one image set.
    """

    formula = "a function of your own"
    needs = ("logits", "features", "head")
    paper = Paper("-", "-", "-", "-")

    def __init__(self, name: str, function: Callable[[Outputs], np.ndarray]):
        self.name, self.function = name, function
        super().__init__()

    def score(self, outputs: Outputs) -> np.ndarray:
        return self.function(outputs)


def choose(
    text: str, dataset: str | None = None, T: float | None = None, noise: float | None = None
) -> list[Score]:
    """Score instances of a --score value; ``all`` = every score there is,
    Mahalanobis with and without input step.

    ``T`` goes to energy and ODIN, ``noise`` (eps) to ODIN and Mahalanobis, where the specification
    leaves them open. UserError for an unknown name or a bad hyper-parameter.
    """
    every = [name if name != "mahalanobis" else "mahalanobis:eps=0" for name in scores.SCORES]
    every += [f"mahalanobis:eps={STEP if noise is None else noise}"]
    specifications = []
    for part in split_specifications(text):
        specifications += every if part.lower() == "all" else [part]
    if not specifications:
        raise UserError(f"no score named. There is: {there()}")
    with as_user_error():
        found = [parse_score(part, dataset, {"T": T, "eps": noise}) for part in specifications]
    return list({score.label: score for score in found}.values())


def there() -> str:
    """What a --score value can name."""
    names = ", ".join(scores.SCORES)
    return f"{names}, all, zscore(A+B) of several, or module:function of your own"


@contextlib.contextmanager
def as_user_error(score: Score | None = None) -> Iterator[None]:
    """Scores raise ValueError, as functions of arrays do; a script's user reads it as one line.

    Inside a score of the user's own any exception becomes one, with the line it comes from.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if getattr(score, "own", False):
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"score '{score.label}' failed: {type(error).__name__}: "
                f"{error} ({Path(frame.filename).name}, line {frame.lineno})"
            ) from None
        if isinstance(error, ValueError):
            raise UserError(str(error)) from None
        raise


def format_list() -> str:
    """What --list-scores prints: name, formula, needs and paper of every score."""
    lines = []
    for name, cls in scores.SCORES.items():
        score = cls()
        defaults = described_defaults(cls)
        lines += [
            f"{name:13}{cls.formula}",
            f"{'':13}needs {', '.join(score.needs)}" + (f"; {defaults}" if defaults else ""),
            f"{'':13}{cls.paper.authors}: {cls.paper.title}. {cls.paper.venue}. {cls.paper.link}",
        ]
    return "\n".join(lines)


def split_specifications(text: str) -> list[str]:
    """Split at commas; ``key=value`` after a comma belongs to the score before it, as does what
    stands in brackets. White space does not count.
    """
    parts = []
    for piece in filter(None, ("".join(piece.split()) for piece in text.split(","))):
        open_bracket = bool(parts) and parts[-1].count("(") > parts[-1].count(")")
        if open_bracket or ("=" in piece and ":" not in piece.split("=")[0] and parts):
            parts[-1] += "," + piece
        else:
            parts.append(piece)
    return parts


def names_all(text: str) -> bool:
    """Whether a --score value asks for every score there is."""
    return "all" in (part.lower() for part in split_specifications(text))


def parse_score(text: str, dataset: str | None, common: dict) -> Score:
    """One Score of ``name``, ``name:key=value,key=value``, ``module:function`` or
    ``module:ScoreSubclass[:key=value]``; ValueError when it cannot be had.

    ``common``: values for a score that has these hyper-parameters and whose specification leaves
    them open.
    """
    if text.lower().startswith(f"{ZScore.name}("):
        return parse_sum(text, dataset, common)
    name, _, options = text.partition(":")
    # [SR]'s code and its ancestors write --score M
    known = scores.SCORES.get("mahalanobis" if name == "M" else name.lower())
    if known is None and (not options or "=" in options.split(":")[0]):
        raise ValueError(f"unknown score '{name}'. There is: {there()}")
    if known is None:
        function, _, options = options.partition(":")
        return load_own(f"{name}:{function}", parse_options(text, options))
    chosen = {
        key: value for key, value in common.items() if value is not None and key in known.defaults
    }
    chosen.update(parse_options(text, options))
    score = known(dataset, **chosen)
    score.chosen = frozenset(chosen)  # what --tune-scores leaves alone
    return score


def parse_sum(text: str, dataset: str | None, common: dict) -> ZScore:
    """The ZScore of ``zscore(A+B)``; ValueError when it cannot be had."""
    inside = text[len(ZScore.name) + 1 : -1]
    if not text.endswith(")") or "(" in inside:
        raise ValueError(
            f"score '{text}' is not of the form {ZScore.name}(A+B), with scores such as "
            "energy or knn:k=10 for A and B"
        )
    members = [parse_score(part, dataset, common) for part in split_sum(inside)]
    if len({member.label for member in members}) < 2:
        raise ValueError(f"score '{text}' is a sum: name at least two different scores")
    total = ZScore(members)
    total.chosen = frozenset()
    return total


def split_sum(text: str) -> list[str]:
    """The members of ``A+B+C``. Names have a plus too: what makes the longest name is one."""
    pieces, parts = text.split("+"), []
    while pieces:
        ends = range(len(pieces), 0, -1)
        names = ("+".join(pieces[:end]) for end in ends)
        known = (name for name in names if name.partition(":")[0].lower() in scores.SCORES)
        # options go to the last name alone: ``knn:k=5+energy`` is not one of knn
        part = next((name for name in known if "+" not in name.partition(":")[2]), pieces[0])
        parts.append(part)
        pieces = pieces[part.count("+") + 1 :]
    return parts


def parse_options(text: str, options: str) -> dict[str, str]:
    """{key: value} of ``key=value,key=value``."""
    chosen = {}
    for option in filter(None, options.split(",")):
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"score '{text}': '{option}' is not of the form key=value")
        chosen[key] = value
    return chosen


def load_own(label: str, chosen: dict[str, str]) -> Score:
    """A Score of the function or Score subclass that ``module:name`` is;
    ValueError when it cannot be had.
    """
    try:
        own = models.load_function(label)
    except ValueError as error:
        raise ValueError(f"score {error}") from None
    if inspect.isclass(own) and issubclass(own, Score):
        score = own(**chosen)
        score.name = score.name or label
    elif not callable(own):
        raise ValueError(f"score '{label}' is not a function")
    elif chosen:
        raise ValueError(f"score '{label}' is a function and takes no key=value")
    else:
        score = UserScore(label, own)
    score.own = True
    return score
