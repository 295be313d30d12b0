"""What a score is: arrays in, one float64 value an image out, larger = more out-of-distribution."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from .exact.blocks import by_blocks, product, slices
from .exact.logarithms import log_sum_exp


class Paper(NamedTuple):
    """Where a score comes from; ``--list-scores`` and the README table print it."""

    title: str
    authors: str
    venue: str
    link: str


@dataclass
class Outputs:
    """What one forward pass over N images left, and the linear head it went through.

    logits (N,C) float32, features (N,D) float32 (the head's input; None, which becomes D = 0, where
    only scores of logits are asked for), labels (N,) int64 or None, weight (C,D) float32 and bias
    (C,) float32 of the head, so that ``logits = features @ weight.T + bias``. ValueError: features
    or logits that are not finite; some scores would answer them with a finite number.
    """

    logits: np.ndarray
    features: np.ndarray | None = None
    labels: np.ndarray | None = None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.features is None:
            self.features = np.empty((len(self.logits), 0), np.float32)
        check_finite(self.features, "features")
        check_finite(self.logits, "logits")

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, index: slice | np.ndarray) -> "Outputs":
        """The same outputs for the images in ``index`` (a slice or an index array)."""
        labels = None if self.labels is None else self.labels[index]
        return Outputs(self.logits[index], self.features[index], labels, self.weight, self.bias)


class Score:
    """Base of every score: one subclass a file, one line in ``SCORES``.

    A subclass states its record (``name``, ``formula``, ``needs``, ``paper``), its hyper-parameters
    (``defaults`` as the paper gives them for CIFAR, ``per_dataset`` where another data set differs,
    ``grid`` for ``--tune-scores``) and defines ``score``; ``fit`` where it needs the ID training
    outputs. What ``fit`` learns it puts into ``self.stats``, a dict of arrays.
    """

    name = ""
    formula = ""
    needs = ()  # of "logits", "features", "head", "train", "gradient"
    paper = None
    defaults = {}
    # {"imagenet": {"k": 1000}}: what a data set's name begins with -> what differs from defaults
    per_dataset = {}
    yields = {}  # {"c": "p"}: a data set's own c does not count where p is chosen
    rule = ""  # what a default stands for, where it is not the paper's own value
    grid = {}  # {"k": (10, 50, 100)}

    def __init__(self, dataset: str | None = None, **chosen):
        unknown = sorted(set(chosen) - set(self.defaults))
        if unknown:
            there = ", ".join(f"{key}={value}" for key, value in self.defaults.items()) or "none"
            raise ValueError(
                f"score '{self.name}' has no hyper-parameter '{unknown[0]}'. There is: {there}"
            )
        special = next(
            (v for family, v in self.per_dataset.items() if str(dataset).startswith(family)), {}
        )
        self.standard = {**self.defaults, **special}  # the defaults for this data set
        self.hyper = {
            key: self.defaults[key] if self.yields.get(key) in chosen else value
            for key, value in self.standard.items()
        }
        for key, value in chosen.items():
            try:
                self.hyper[key] = type(self.defaults[key])(value)
            except ValueError:
                kind = type(self.defaults[key]).__name__
                raise ValueError(
                    f"score '{self.name}': {key}={value!r} is not of type {kind}"
                ) from None
        vars(self).update(self.hyper)
        self.stats = {}
        self.check()

    def check(self) -> None:
        """Raise ValueError when a hyper-parameter is out of its range."""

    def require(self, key: str, holds: bool, rule: str) -> None:
        """ValueError that names a hyper-parameter and the rule that it breaks, unless that holds."""
        if not holds:
            raise ValueError(f"score '{self.name}': {key}={getattr(self, key)!r} {rule}")

    def fit(self, train: Outputs) -> "Score":
        """Learn ``self.stats`` from the Outputs of the ID training images
        (labels given, no augmentation).

        A subclass that fits calls this first. ValueError: no training image.
        """
        if "train" in self.needs and len(train) == 0:
            raise ValueError(f"score '{self.name}': fit needs training images; there are 0")
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        """(N,) float64, larger = more OOD."""
        raise NotImplementedError

    def objective(self, logits: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Sum over the batch of what the input step descends (torch scalar);
        only with "gradient" in ``needs``.
        """
        raise NotImplementedError

    @property
    def label(self) -> str:
        """The score's specification as one writes it, ``knn`` or ``knn:k=100``:
        what differs from the defaults.
        """
        changed = [f"{k}={written(v)}" for k, v in self.hyper.items() if v != self.standard[k]]
        return self.name + (":" + ",".join(changed) if changed else "")


def described_defaults(cls: type[Score]) -> str:
    """A score's defaults as the tables print them: ``p=85.0, c=0.0``, with their rule."""
    values = ", ".join(f"{key}={value}" for key, value in cls.defaults.items())
    return values + (f" ({cls.rule})" if cls.rule else "")


def labels_of(train: Outputs, name: str) -> np.ndarray:
    """The labels (N,) of training images; ValueError where there are none,
    ``name`` being the score that asks.
    """
    if train.labels is None:
        raise ValueError(
            f"score '{name}': fit needs training images with labels; "
            f"there are {len(train)} images without labels"
        )
    return train.labels


def check_finite(array: np.ndarray, what: str) -> None:
    """ValueError naming the first image with a NaN or an infinity in an array
    (N,...) of any float type.
    """
    for rows in slices(len(array)):
        block = array[rows]
        wrong = ~np.isfinite(block).reshape(len(block), -1).all(axis=1)
        if wrong.any():
            raise ValueError(
                f"{what} of image {rows.start + int(np.argmax(wrong))} are not "
                "finite (NaN or infinity)"
            )


def written(value: object) -> str:
    """A hyper-parameter as text that reads back as the same value: ``10`` for 10.0, ``0.0014``."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(float(value))
    return str(value)


def energy_of(logits: np.ndarray, T: float = 1.0) -> np.ndarray:
    """E = -T logsumexp(f/T): (N,C) logits -> (N,) float64; -E lies in [max f, max f + T log C]."""
    logits = np.asarray(logits, dtype=np.float64)
    return -T * log_sum_exp(logits if T == 1 else logits / T)


def shaped_energy(
    outputs: Outputs, shape: Callable[[np.ndarray], np.ndarray], weight: np.ndarray | None = None
) -> np.ndarray:
    """Energy (N,) float64 of the logits of changed features: ``shape`` makes them of blocks (n,D)
    float64; the head's weight, or another (C,D).
    """
    weight = np.asarray(outputs.weight if weight is None else weight, dtype=np.float64).T
    bias = outputs.bias.astype(np.float64)
    return by_blocks(lambda h: energy_of(product(shape(h), weight) + bias), outputs.features)
