"""The table of losses. Adding one = one file here and one line in LOSSES."""

from .base import Batch, Loss
from .ce import CrossEntropy
from .dal import DAL
from .energy import Energy
from .greg import GReg
from .gregplus import GRegPlus
from .logitnorm import LogitNorm
from .oe import OE
from .reweightood import ReweightOOD
from .sr import SR
from .sroe import SROE
from .supcon import SupCon

LOSSES = {
    "sr": SR,
    "sroe": SROE,
    "oe": OE,
    "energy": Energy,
    "greg": GReg,
    "greg+": GRegPlus,
    "dal": DAL,
    "logitnorm": LogitNorm,
    "reweightood": ReweightOOD,
    "supcon": SupCon,
}


def losses_of(stage: str) -> dict[str, type[Loss]]:
    """The losses that a stage, "pretrain" or "tune", can train with;
    what a snapshot names none for is "ce".
    """
    every = {"ce": CrossEntropy, **LOSSES}
    return {name: loss for name, loss in every.items() if stage in loss.stages}
