"""Score specifications as one writes them: ``energy``, ``all``, ``knn:k=100,dice:p=85``, ``gen:gamma=0.1,M=50``, ``module:function``."""
import importlib
import inspect
import os
import sys

from .base import Paper, Score


class UserScore(Score):
    """A function of your own: ``function(outputs) -> (N,)``, larger = more OOD; it sees the Outputs of one image set."""

    formula = "a function of your own"
    needs = ("logits", "features", "head")
    paper = Paper("-", "-", "-", "-")

    def __init__(self, name, function):
        self.name, self.function = name, function
        super().__init__()

    def score(self, outputs):
        return self.function(outputs)


def split_specifications(text):
    """Split at commas; ``key=value`` after a comma belongs to the score before it."""
    parts = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        if "=" in piece and ":" not in piece.split("=")[0] and parts:
            parts[-1] += "," + piece
        else:
            parts.append(piece)
    return parts


def parse_scores(text, table, dataset=None, T=None, noise=None):
    """Score instances of a --score value; ``all`` = every score of the table, Mahalanobis with and without input step.

    ``T`` goes to energy and ODIN, ``noise`` (eps) to ODIN and Mahalanobis, where the specification leaves them open.
    Raises ValueError that names what there is.
    """
    specifications = split_specifications(text.replace("all", ",".join([*table, STEPPED]), 1) if text == "all" else text)
    scores = [parse_score(part, table, dataset, {"T": T, "eps": noise}) for part in specifications]
    if not scores:
        raise ValueError(f"no score named. There is: {', '.join(table)}, all, or module:function of your own")
    by_label = {score.label: score for score in scores}
    return list(by_label.values())


STEPPED = "mahalanobis:eps=0.0014"   # [ODIN]'s step size, the one [SR]'s code has as its --noise


def parse_score(text, table, dataset=None, common=()):
    """One Score of ``name``, ``name:key=value,key=value`` or ``module:function`` (or ``module:ScoreSubclass``)."""
    name, _, options = text.partition(":")
    lower = {key.lower(): key for key in table}
    if name.lower() in lower:
        cls = table[lower[name.lower()]]
        chosen = {key: value for key, value in dict(common).items() if value is not None and key in cls.defaults}
        for option in filter(None, options.split(",")):
            key, equals, value = option.partition("=")
            if not equals:
                raise ValueError(f"score '{text}': '{option}' is not of the form key=value")
            chosen[key.strip()] = value.strip()
        return cls(dataset, **chosen)
    if not options or "=" in options:
        raise ValueError(f"unknown score '{name}'. There is: {', '.join(table)}, all, or module:function of your own")
    return load_own(name, options)


def load_own(module, name):
    """A function or Score subclass of a user's module, found as ``python`` finds it or in the current folder."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        own = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"score '{module}:{name}' cannot be imported ({error}); looked in the current folder and on PYTHONPATH") from None
    if inspect.isclass(own) and issubclass(own, Score):
        return own()
    if not callable(own):
        raise ValueError(f"score '{module}:{name}' is not a function")
    return UserScore(f"{module}:{name}", own)
