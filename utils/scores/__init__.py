"""The table of scores. Adding one = one file here and one line in SCORES."""
import contextlib
import traceback
from pathlib import Path

from utils.runtime import UserError
from .ash import ASHB, ASHP, ASHS
from .base import Outputs, Paper, Score
from .cadref import CADRef
from .dice import DICE, DICEReAct
from .energy import Energy
from .fdbd import FDBD
from .gen import GEN
from .gradnorm import GradNorm
from .klmatching import KLMatching
from .knn import KNN
from .mahalanobis import Mahalanobis
from .maxlogit import MaxLogit
from .msp import MSP
from .nci import NCI
from .nnguide import NNGuide
from .odin import ODIN
from .choose import names_all, parse_scores
from .react import ReAct
from .residual import Residual
from .rmds import RMDS
from .scale import SCALE
from .she import SHE
from .vim import ViM

SCORES = {
    "msp": MSP,
    "maxlogit": MaxLogit,
    "energy": Energy,
    "odin": ODIN,
    "mahalanobis": Mahalanobis,
    "rmds": RMDS,
    "react": ReAct,
    "dice": DICE,
    "dice+react": DICEReAct,
    "knn": KNN,
    "vim": ViM,
    "residual": Residual,
    "gen": GEN,
    "klmatching": KLMatching,
    "ash-p": ASHP,
    "ash-b": ASHB,
    "ash-s": ASHS,
    "scale": SCALE,
    "gradnorm": GradNorm,
    "she": SHE,
    "fdbd": FDBD,
    "nci": NCI,
    "nnguide": NNGuide,
    "cadref": CADRef,
}


def choose(text, dataset=None, T=None, noise=None):
    """Score instances of a --score value; UserError for an unknown name or a bad hyper-parameter."""
    with as_user_error():
        return parse_scores(text, SCORES, dataset, T, noise)


@contextlib.contextmanager
def as_user_error(score=None):
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
            raise UserError(f"score '{score.label}' failed: {type(error).__name__}: {error} "
                            f"({Path(frame.filename).name}, line {frame.lineno})") from None
        if isinstance(error, ValueError):
            raise UserError(str(error)) from None
        raise


def format_list():
    """What --list-scores prints: name, formula, needs and paper of every score."""
    lines = []
    for name, cls in SCORES.items():
        score = cls()
        defaults = ", ".join(f"{key}={value}" for key, value in score.defaults.items())
        lines += [f"{name:13}{cls.formula}", f"{'':13}needs {', '.join(score.needs)}" + (f"; {defaults}" if defaults else ""),
                  f"{'':13}{cls.paper.authors}: {cls.paper.title}. {cls.paper.venue}. {cls.paper.link}"]
    return "\n".join(lines)
