"""The part "peers": fit and score of this project's scores against those of pytorch-ood and
scikit-learn, where they are installed, on the same synthetic features and in one thread.

A score has the parts "peers, fit on IMAGES x WIDTH, SCORE", where it learns from training images,
and "peers, score QUERIES of IMAGES x WIDTH, SCORE".
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from utils.scores import Outputs, Score, choose

from .measure import compare
from .scores import make_outputs, parse_size

SIZES = [(50_000, 128, 10_000), (200_000, 512, 5_000)]  # training images, width, images to score
AGREE = 0.999  # rank correlation of two scores that are the same formula


def parse_peers(text: str) -> tuple[int, ...]:
    """One of --peers: training images x feature width x images to score."""
    return parse_size(text, "IMAGESxWIDTHxQUERIES")


class Peer(NamedTuple):
    """What another library does for a score: ``fit()`` (None where it has none), ``score()``."""

    fit: Callable | None
    score: Callable


def pytorch_ood_peers(train: Outputs, images: Outputs) -> dict[str, Peer]:
    """{specification: Peer} of pytorch-ood's detectors that take features or logits."""
    from pytorch_ood import detector as D

    classes, width = train.weight.shape
    linear = torch.nn.Linear(width, classes).requires_grad_(False)
    linear.weight.copy_(torch.from_numpy(train.weight))
    linear.bias.copy_(torch.from_numpy(train.bias))
    maps = {"backbone": None, "head": lambda h: linear(h.flatten(1))}
    head = {"w": linear.weight, "b": linear.bias}
    detectors = {
        "msp": D.MaxSoftmax(None),
        "maxlogit": D.MaxLogit(None),
        "energy": D.EnergyBased(None),
        "gen": D.GEN(None, gamma=0.1, M=100),
        "klmatching": D.KLMatching(None),
        "react": D.ReAct(**maps, percentile=0.9),
        "ash-p:p=90": D.ASH(**maps, variant="ash-p", percentile=0.9),
        "ash-b:p=90": D.ASH(**maps, variant="ash-b", percentile=0.9),
        "ash-s:p=90": D.ASH(**maps, variant="ash-s", percentile=0.9),
        "scale": D.SCALE(**maps, percentile=0.85),
        "lts:p=95": D.LTS(None, linear, p=0.05),
        "dice": D.DICE(None, **head, p=0.9),
        "fdbd": D.fDBD(None, linear),
        "nci": D.NCI(None, linear, alpha=0.0001),
        "she": D.SHE(None, linear),
        "vim": D.ViM(None, width // 2, **head),
        "pnml": D.PNML(None, linear),
        "mahalanobis": D.Mahalanobis(None),
        "rmds": D.RMD(None),
        "knn": D.KNN(None, k=50),
        "nnguide": D.NNGuide(None, linear, k=10),
    }
    y = torch.from_numpy(train.labels)
    return {name: detector_peer(made, train, images, y) for name, made in detectors.items()}


def detector_peer(detector: object, train: Outputs, images: Outputs, labels: torch.Tensor) -> Peer:
    """The Peer of a detector, whose methods say whether it takes logits, features or maps."""
    kind = next(
        k for k in ("logits", "features", "feature_maps") if hasattr(detector, "predict_" + k)
    )
    given = []
    for outputs in (train, images):
        array = torch.from_numpy(outputs.logits if kind == "logits" else outputs.features)
        given.append(array[:, :, None, None] if kind == "feature_maps" else array)
    fit, predict = getattr(detector, f"fit_{kind}", None), getattr(detector, f"predict_{kind}")
    return Peer(fit and (lambda: fit(given[0], labels)), lambda: predict(given[1]).numpy())


def sklearn_peers(train: Outputs, images: Outputs) -> dict[str, Peer]:
    """{specification: Peer} of what scikit-learn has."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    nearest = NearestNeighbors(n_neighbors=50, algorithm="brute")
    return {
        "knn": Peer(
            lambda: nearest.fit(normalize(train.features)),
            lambda: nearest.kneighbors(normalize(images.features))[0][:, -1],
        )
    }


LIBRARIES = {"pytorch-ood": pytorch_ood_peers, "scikit-learn": sklearn_peers}


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch, BLAS and OpenMP in one thread."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def installed(train: Outputs, images: Outputs) -> dict[str, dict[str, Peer]]:
    """{specification: {library: Peer}}; a library that is not installed is left out with a note."""
    found = {}
    for library, make in LIBRARIES.items():
        try:
            peers = make(train, images)
        except ImportError as error:
            print(f"{library} is left out: {error}")
            continue
        for name, peer in peers.items():
            found.setdefault(name, {})[library] = peer
    return found


def part_peers(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of fit and of score of every score that a peer has, at every size of ``args.peers``."""
    rows, cpu = [], torch.device("cpu")
    wanted = {score.name for score in choose(args.evaluation_scores)}
    for count, width, queries in args.peers:
        train = make_outputs(count, width, 1, np.float32)
        images = make_outputs(queries, width, 2, np.float32)
        found = installed(train, images)
        with one_thread() if found else nullcontext():  # what limits threads comes with them
            for name, peers in found.items():
                (score,) = choose(name)
                if score.name in wanted:
                    rows += measure_peers(score, peers, train, images, args.rounds, cpu)
    return rows


def measure_peers(
    score: Score,
    peers: dict[str, Peer],
    train: Outputs,
    images: Outputs,
    rounds: int,
    device: torch.device,
) -> list[dict]:
    """Rows of one score at one size; a peer whose ranking is another says so."""
    size = f"{len(train):,} x {train.features.shape[1]}"
    fits = {library: peer.fit for library, peer in peers.items()}
    rows = []
    if "train" in score.needs:
        fits["this project"] = lambda: score.fit(train)
        rows += compare(f"peers, fit on {size}, {score.label}", fits, len(train), rounds, device)
    scores = {library: peer.score for library, peer in peers.items()}
    scores["this project"] = lambda: score.score(images)
    ours = score.score(images)
    rows += compare(
        f"peers, score {len(images):,} of {size}, {score.label}",
        scores,
        len(images),
        rounds,
        device,
    )
    for row in rows[-len(scores) : -1]:
        agreement = spearmanr(ours, scores[row["what"]]()).statistic
        if not agreement > AGREE:
            row["what"] += f" (ranks differ: {agreement:.3f})"
    return rows
