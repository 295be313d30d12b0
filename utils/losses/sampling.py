"""Outliers chosen by their energy: the sampling of GReg+, for any loss with outliers."""

import argparse

import numpy as np
import torch
from torch import Tensor, nn

from utils.runtime import derive_seed

CANDIDATES = 3  # for each outlier that is chosen; the paper: 384 for the 128 beside 64 ID images


def choose(
    features: np.ndarray, energy: np.ndarray, clusters: int, count: int, seed: int
) -> np.ndarray:
    """Indices (count,) of the outliers that a step takes from candidates with features
    (N,D) and energies S (N,).

    k-means on the unit features; of each cluster the candidate of lowest and the one of highest S,
    which are one in a cluster of one; filled at random up to ``count``, without repeats.
    ValueError: fewer candidates than clusters or than ``count``. Source:
    [GReg], energy-based sampling.
    """
    if len(energy) < max(clusters, count):
        raise ValueError(
            f"{len(energy)} candidates are fewer than {clusters} clusters or "
            f"{count} outliers a step"
        )
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    from sklearn.cluster import KMeans  # a second of every script's start otherwise

    labels = KMeans(clusters, n_init=3, random_state=seed % 2**32).fit_predict(unit)
    order = np.argsort(energy, kind="stable")
    lowest, highest = {}, {}
    for i in order:
        lowest.setdefault(labels[i], i)
        highest[labels[i]] = i
    chosen = np.array(list(dict.fromkeys([*lowest.values(), *highest.values()])))[:count]
    others = np.setdiff1d(np.arange(len(energy)), chosen)
    rest = np.random.default_rng(seed).permutation(others)[: count - len(chosen)]
    return np.concatenate([chosen, rest])


@torch.no_grad()
def choose_outliers(
    model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], args: argparse.Namespace, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A step's batch (x, y, x_out) with args.oe_batch_size of its candidates x_out (N,3,H,W), by a
    pass in evaluation mode: as many clusters as ID images x. args.seed and the step seed what is
    random.

    The pass leaves no trace in the model: BatchNorm's statistics do not move,
    and the model is in training mode again.
    """
    x, y, candidates = batch
    model.eval()
    logits, features = model(candidates)
    model.train()
    energy = -torch.logsumexp(logits.float(), dim=1)
    seed = derive_seed(args.seed, "sampling", step)
    features, energy = features.float().cpu().numpy(), energy.cpu().numpy()
    index = choose(features, energy, len(x), args.oe_batch_size, seed)
    return x, y, candidates[torch.from_numpy(index).to(candidates.device)]
