"""What a loss is: the record that everything else reads, the batch it sees,
and the terms that several losses share.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Batch:
    """One step's images and what ONE forward pass over cat(ID, outliers) made of them.

    x (n,3,H,W) ID images and y (n,) int64 their labels; x_out (m,3,H,W) auxiliary outliers, m = 0
    for a loss without; logits (n+m,C) and features (n+m,D) float32 in that order. A loss with
    ``gradient`` gets x and x_out with requires_grad, one with two ``views`` both views of each
    image as the rows i and n/2 + i of x. ``head`` is the network's last layer, logits = head
    (features); None where it has no such layer.
    """

    x: Tensor | None
    x_out: Tensor | None
    y: Tensor
    logits: Tensor
    features: Tensor
    head: torch.nn.Linear | None = None

    @property
    def logits_in(self) -> Tensor:
        return self.logits[: len(self.y)]

    @property
    def logits_out(self) -> Tensor:
        return self.logits[len(self.y) :]

    @property
    def features_in(self) -> Tensor:
        return self.features[: len(self.y)]

    def cross_entropy(self) -> Tensor:
        """Mean cross-entropy of the ID images: scalar >= 0, in nats."""
        return F.cross_entropy(self.logits_in, self.y)


class Loss:
    """Base of every loss: one subclass a file, one line in ``LOSSES``.

    A subclass states its record and defines ``__call__``, which returns its named terms: scalars
    whose sum the script optimises and logs. Options of the scripts, their --help, the recorded
    recipe, what --resume compares and the table of utils/losses/README.md are read from the record.
    Its hyper-parameters become attributes of the instance. ValueError: a hyper-parameter that the
    loss does not have, or one out of its range.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    stages: ClassVar[tuple] = ("tune",)  # "pretrain" = baseline.py, "tune" = tune.py
    score: ClassVar[str] = "energy"  # the score its paper evaluates it with
    # needs auxiliary outliers; they are never opened for a loss without
    outliers: ClassVar[bool] = False
    features: ClassVar[bool] = False  # acts on the features, not on the logits alone
    linear: ClassVar[bool] = False  # puts features of its own through the network's last layer
    gradient: ClassVar[bool] = False  # needs the gradient by the input images
    views: ClassVar[int] = 1  # augmented views of each image in a batch
    # has a head of its own, ``make_head``, which is no part of the snapshot
    head: ClassVar[bool] = False
    help: ClassVar[dict] = {}  # hyper-parameter -> what it is, for --help
    choices: ClassVar[dict] = {}  # hyper-parameter -> the words it may be
    defaults: ClassVar[dict] = {}  # hyper-parameter -> value
    # option of the stage -> value that this loss has otherwise than the stage
    recipe: ClassVar[dict] = {}
    scratch: ClassVar[dict] = {}  # the same for baseline.py, of a loss that tune.py has too
    # shares of a pre-training at which the learning rate falls to a tenth; () = cosine
    drops: ClassVar[tuple] = ()
    # share of a pre-training over which the learning rate rises from a hundredth
    warmup: ClassVar[float] = 0.0
    final: ClassVar[float] = 0.0  # share of the learning rate that the cosine ends at; 0 = 1e-6
    per_dataset: ClassVar[dict] = {}  # data set -> what of the two differs there
    presets: ClassVar[dict] = {}  # preset -> what of the two differs there
    # hyper-parameter younger than recorded runs -> the value those were made with
    before: ClassVar[dict] = {}
    origin: ClassVar[str] = ""  # where these values come from ...
    origins: ClassVar[dict] = {}  # ... but for those of this option, data set or preset

    def __init__(self, **chosen):
        unknown = sorted(set(chosen) - set(self.defaults))
        if unknown:
            there = ", ".join(f"{key}={value}" for key, value in self.defaults.items()) or "none"
            raise ValueError(f"loss '{self.name}' has no '{unknown[0]}'. There is: {there}")
        self.hyper = {**self.defaults, **chosen}
        vars(self).update(self.hyper)
        for key, words in self.choices.items():
            if self.hyper[key] not in words:
                raise ValueError(f"{key} {self.hyper[key]} is none of {', '.join(words)}")
        self.check()

    # what ``attach`` made by ``make_head``; of a loss without a head it has no parameters
    projection: torch.nn.Module = torch.nn.Identity()
    # what goes on from step to step beside the network and is kept in the state of the run: the
    # head, or numbers of the loss's own; None where nothing does
    kept: torch.nn.Module | None = None
    # of a loss with ``gradient``: (n+m,) bool, which images of the last batch had a gradient whose
    # norm is a finite number; the error of a step whose terms are not finite names how many had not
    finite: Tensor | None = None

    def attach(self, feature_dim: int, device: torch.device) -> None:
        """Make the head of a loss that has one, and put what is kept on the device."""
        if self.head:
            self.projection = self.kept = self.make_head(feature_dim)
        if self.kept is not None:
            self.kept.to(device)

    def check(self) -> None:
        """Raise ValueError when a hyper-parameter is out of its range."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """{name: scalar} of the terms, in the order of the formula."""
        raise NotImplementedError

    def make_head(self, feature_dim: int) -> torch.nn.Module:
        """The module that this loss trains beside the network; only with ``head``."""
        raise NotImplementedError

    @property
    def chooses_outliers(self) -> bool:
        """Whether a step's outliers are chosen out of more candidates (sampling.py)."""
        return self.hyper.get("sampling", "random") == "clusters"

    def need_non_negative(self, *keys: str) -> None:
        """ValueError unless these hyper-parameters are finite numbers of at least 0."""
        for key in keys:
            value = self.hyper[key]
            if not 0 <= value < float("inf"):
                raise ValueError(f"{key} {value:g} is not a number of at least 0")

    def need_margins(self) -> None:
        """ValueError unless the energy margins are finite and that of ID images,
        m_in, is the lower one.
        """
        m_in, m_out = self.hyper["m_in"], self.hyper["m_out"]
        if not (math.isfinite(m_in) and math.isfinite(m_out)):
            raise ValueError(f"m_in {m_in:g} and m_out {m_out:g} must be finite numbers")
        if m_in > m_out:
            raise ValueError(
                f"m_in {m_in:g} is above m_out {m_out:g}: "
                "the energy of ID images is to be the lower one"
            )


def l1_sparsity(features: Tensor) -> Tensor:
    """mean_i ||h(x_i)||_1 over the batch: (N,D) -> scalar >= 0. Source:
    [SR], equation of L_sparse.
    """
    return features.abs().sum(dim=1).mean()


def uniformity(logits: Tensor) -> Tensor:
    """mean_out [logsumexp f - mean_c f_c]: cross-entropy from the uniform distribution,
    (N,C) -> scalar >= log C.

    Equal to log C exactly where the softmax is uniform. Source: [OE], section 4.
    """
    return (torch.logsumexp(logits, dim=1) - logits.mean(dim=1)).mean()


def energy_hinges(logits_in: Tensor, logits_out: Tensor, m_in: float, m_out: float) -> Tensor:
    """mean_in relu(E - m_in)^2 + mean_out relu(m_out - E)^2 with E = -logsumexp f.
    Source: [Energy], equation 8.
    """
    energy_in = -torch.logsumexp(logits_in, dim=1)
    energy_out = -torch.logsumexp(logits_out, dim=1)
    return F.relu(energy_in - m_in).square().mean() + F.relu(m_out - energy_out).square().mean()
