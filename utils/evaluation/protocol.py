"""The protocol: which image sets, which draws of them, which class is positive."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from utils import loaders
from utils.runtime import DATA, UserError


@dataclass(frozen=True)
class Rules:
    """What ``--protocol NAME`` means: the sets, in groups, and how they are measured."""

    title: str
    # ID data set -> ((group, its sets), ...); "" = whatever the ID images are
    groups: Mapping[str, tuple] = field(default_factory=dict)
    # sets that are ID all the same: their scores count with those of the ID images
    shifted: tuple = ()
    lists: str = ""  # whose image lists in data/benchmark_imglist/ are read; {id} = the ID data set
    draws: bool = False  # draws of OOD images, else whole sets once
    metrics: str = "papers"  # "papers": detection_metrics; "openood": openood_metrics
    out_as_pos: bool = False  # the positive class of FPR95
    resize: float = 1.0  # side that images are brought to before the crop, in sides of the crop

    def size_of(self, side: int) -> int | tuple[int, int]:
        """The size that images are read at, for a side of the crop."""
        return side if self.resize == 1 else (round(side * self.resize), side)

    def groups_of(self, dataset: str) -> tuple:
        """The groups for ID images; UserError where the protocol is of other ones."""
        if not self.groups:
            return ()
        found = self.groups.get(dataset, self.groups.get(""))
        if found is None:
            raise UserError(
                f"the protocol of {self.title} is of the ID images {', '.join(self.groups)}, "
                f"not of {dataset}. Take --protocol paper or full, and name sets by --ood"
            )
        return found


RESIZE = 256 / 224
OPENOOD = {"metrics": "openood", "out_as_pos": True}
OF_IMAGENET = {"groups": {"": loaders.IMAGENET_GROUPS}, "resize": RESIZE, **OPENOOD}
PROTOCOLS = {
    "paper": Rules("the papers' six sets", draws=True),
    "full": Rules("the papers' six sets, whole"),
    "openood": Rules("OpenOOD v1.5", loaders.OPENOOD_GROUPS, lists="{id}", **OPENOOD),
    "imagenet200": Rules("OpenOOD v1.5, ImageNet-200", lists="imagenet200", **OF_IMAGENET),
    "imagenet1k": Rules("OpenOOD v1.5, ImageNet-1k", lists="imagenet", **OF_IMAGENET),
    "fsood": Rules(
        "OpenOOD v1.5, full spectrum", lists="imagenet", shifted=loaders.SHIFTED, **OF_IMAGENET
    ),
    "imagenet4": Rules("ReAct and DICE on ImageNet-1k", {"": loaders.IMAGENET_FOUR}, resize=RESIZE),
}


def beside(default: Any) -> Any:
    """A field that does not make it another protocol."""
    return field(default=default, compare=False)


@dataclass(frozen=True)
class Protocol:
    """How a table's numbers come about; the defaults are the papers' protocol,
    what is usual ([Energy], [SR]).

    Fields are options of test.py. Two results with equal protocols may stand in one table. The
    other fields do not count there, but tell two results of one snapshot apart: hyper-parameters (a
    score's label has them too), the place of the images (which sets there are, and of how many
    images, is in the result), and what rounds the outputs.
    """

    ood: str = ""  # OOD sets; "": the data set's own, loaders.OOD_SETS
    id_train: str | None = None  # ID training images of one's own, for scores that are fitted
    num_to_avg: int = 10  # draws
    seed: int = 1  # of the draws
    tune_scores: bool = False  # hyper-parameters chosen on held-out ID images
    validation_ood: str | None = None  # OOD images that these are chosen against
    T: float | None = beside(None)
    noise: float | None = beside(None)
    mean: str | None = None  # what images are normalised with; None: as the network was trained
    std: str | None = None
    image_size: int | None = None  # side that images are brought to; None: the data set's own
    id: str | None = None  # ID images of one's own
    data: str = beside(str(DATA))
    precision: str = beside("auto")
    skip_bad: bool = beside(False)
    arch: str | None = beside(None)
    protocol: str = "paper"  # a name of PROTOCOLS
    share: int = 5  # a draw has len(ID) // share OOD images: 2,000 for CIFAR's 10,000
    # the positive class of the printed table: ID, or OOD; a result has both
    out_as_pos: bool = beside(False)
    harmonise: int | None = None  # JPEG quality that all images are brought to
    outputs: list[str] | None = None  # files of outputs in the place of network and images

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Protocol":
        """The protocol of test.py's arguments; what these do not name is as usual."""
        return cls(**{f.name: arguments[f.name] for f in fields(cls) if f.name in arguments})

    @property
    def rules(self) -> Rules:
        return PROTOCOLS[self.protocol]


USUAL = Protocol()


def departures(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """{option: value} of all that is not as usual in test.py's arguments,
    in the order of the fields.
    """
    given = vars(Protocol.of(arguments))
    return {option: value for option, value in given.items() if value != getattr(USUAL, option)}


def is_usual(result: Mapping[str, Any]) -> bool:
    """Whether a result file's record is of the papers' protocol."""
    return Protocol.of({**result["arguments"], "protocol": result["protocol"]}) == USUAL
