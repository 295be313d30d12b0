"""The sampling of outliers by energy and cluster, against a slow oracle."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

import models
from utils.losses import sampling


def candidates(n=60, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)).astype(np.float32), rng.normal(size=n).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_each_cluster_gives_its_lowest_and_its_highest(seed):
    features, energy = candidates(seed=seed)
    found = sampling.choose(features, energy, clusters=8, count=20, seed=seed)
    unit = np.stack([row / np.sqrt((row**2).sum()) for row in features])
    labels = KMeans(8, n_init=3, random_state=seed).fit_predict(unit)
    expected = set()
    for cluster in range(8):
        members = [i for i in range(60) if labels[i] == cluster]
        expected |= {min(members, key=lambda i: energy[i]), max(members, key=lambda i: energy[i])}
    assert expected <= set(found.tolist()) and len(found) == len(set(found.tolist())) == 20


def test_the_rest_is_random_and_repeats_with_its_seed():
    features, energy = candidates()
    first, again, other = (
        set(sampling.choose(features, energy, 4, 30, seed).tolist()) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_clusters_of_one_give_one():
    features, energy = candidates(n=12)
    assert sorted(sampling.choose(features, energy, clusters=12, count=12, seed=0)) == list(
        range(12)
    )


def test_no_length_of_the_features_counts():
    features, energy = candidates()
    longer = features * np.linspace(1, 9, 60, dtype=np.float32)[:, None]
    assert set(sampling.choose(features, energy, 8, 16, 0)) == set(
        sampling.choose(longer, energy, 8, 16, 0)
    )


@pytest.mark.parametrize("clusters, count", [(61, 20), (8, 61)])
def test_too_few_candidates(clusters, count):
    with pytest.raises(ValueError, match="60 candidates are fewer"):
        sampling.choose(*candidates(), clusters, count, 0)


def test_the_chosen_spread_their_energies_wider_than_chance():
    features, energy = candidates(n=384, width=16)
    chosen = energy[sampling.choose(features, energy, 64, 128, 0)]
    drawn = [energy[np.random.default_rng(i).permutation(384)[:128]].std() for i in range(50)]
    assert chosen.std() > np.mean(drawn) + 2 * np.std(drawn)


def test_the_pass_leaves_no_trace_in_the_model():
    model = models.build("wrn", 4, 10, 1, 0.3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(18, 3, 16, 16)
    state = torch.get_rng_state()
    args = Namespace(oe_batch_size=6, seed=1)
    *_, chosen = sampling.choose_outliers(model, (x[:3], None, x), args, step=0)
    assert (
        chosen.shape == (6, 3, 16, 16)
        and model.training
        and torch.equal(state, torch.get_rng_state())
    )
    assert all(any(torch.equal(image, other) for other in x) for image in chosen)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
