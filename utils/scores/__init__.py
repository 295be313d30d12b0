"""The table of scores. Adding one = one file here and one line in SCORES."""

from .ash import ASHB, ASHP, ASHS
from .base import Outputs, Paper, Score, described_defaults
from .cadref import CADRef
from .choose import as_user_error, choose, format_list, names_all, split_specifications
from .dice import DICE, DICEReAct
from .energy import Energy
from .fdbd import FDBD
from .gen import GEN
from .gradnorm import GradNorm
from .klmatching import KLMatching
from .knn import KNN
from .lts import LTS
from .mahalanobis import Mahalanobis
from .mahalanobispp import MahalanobisPP
from .maxlogit import MaxLogit
from .msp import MSP
from .nci import NCI
from .neco import NECO
from .nnguide import NNGuide
from .odin import ODIN
from .optfs import OptFS
from .pnml import PNML
from .react import ReAct
from .relation import Relation
from .residual import Residual
from .rmds import RMDS
from .scale import SCALE
from .she import SHE
from .vim import ViM
from .vra import VRA
from .weiper import WeiPer

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
    "mahalanobis++": MahalanobisPP,
    "pnml": PNML,
    "neco": NECO,
    "lts": LTS,
    "vra": VRA,
    "optfs": OptFS,
    "relation": Relation,
    "weiper": WeiPer,
}
