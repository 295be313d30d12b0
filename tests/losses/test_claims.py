"""What each loss is for, on real images, digits and CIFAR-10: against the same run without its
term.
"""

import argparse
import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils import loaders
from utils.losses import LOSSES, Batch, sampling
from utils.losses.dal import worst_shift
from utils.runtime import Streams

DEVICE = torch.device("cpu")
STEPS = 60


class Net(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            torch.nn.BatchNorm2d(32),
            torch.nn.ReLU(),
        )
        self.fc = torch.nn.Linear(32, classes)

    def forward(self, x):
        features = self.body(x).mean(dim=(2, 3))
        return self.fc(features), features


@pytest.fixture(scope="module", params=["digits", "cifar10"])
def sets(request):
    """(ID training images, ID test images, outliers) of the digits, and of CIFAR-10 a few where its
    images lie in data/.
    """
    if request.param == "digits":
        train, test = (loaders.load_id("digits", split) for split in ("train", "test"))
        return train, test, loaders.load("digit_outliers", "train")
    parts = ("cifar10", "train"), ("cifar10", "test"), ("tiny_imagenet", "train")
    for name, split in parts:
        if not loaders.is_there(name, split):
            pytest.skip(f"data/ has no images of {name} ({split}); the digits have been tried")
    whole = [loaders.load(*part) for part in parts]
    # files may have their classes one after the other
    return [part.subset(np.linspace(0, len(part) - 1, 1024).astype(int)) for part in whole]


def digits_only(sets):
    """Skip what a network this small does not show on CIFAR-10 in so few steps."""
    if sets[0].name == "cifar10":
        pytest.skip("sixty steps of a small network are too few for this one on CIFAR-10")


def train(net, loss, sets, lr=0.03, steps=STEPS):
    """``steps`` steps of the scripts' loop from the same random numbers; the network, trained."""
    net, count = copy.deepcopy(net), 0
    torch.manual_seed(0)
    loss.attach(32, DEVICE)
    args = argparse.Namespace(
        batch_size=64, padding=2, oe_batch_size=64, outlier_padding=2, outlier_norm="id"
    )
    outliers = sets[2] if loss.outliers else None
    batches = loaders.TrainingBatches(sets[0], outliers, args, DEVICE, Streams(1, "tune"), loss)
    parameters = [*net.parameters(), *loss.projection.parameters()]
    optimizer = torch.optim.SGD(parameters, lr, momentum=0.9, nesterov=True)
    for epoch in range(steps):
        for x, y, x_out in batches.epoch(epoch):
            x.requires_grad_(loss.gradient), x_out.requires_grad_(loss.gradient)
            logits, features = net.train()(torch.cat([x, x_out]))
            total = sum(loss(Batch(x, x_out, y, logits, features, net.fc)).values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            count += 1
            if count == steps:
                return net.eval(), loss
    raise AssertionError("too few batches")


@pytest.fixture(scope="module")
def trained(sets):
    torch.manual_seed(0)
    return train(Net(len(sets[0].classes)), LOSSES["logitnorm"](tau=1.0), sets, lr=0.1)[0]


def images(part):
    return torch.cat([x for x, _ in loaders.Batches(part, 500, DEVICE)])


def pair(trained, sets, name, **without):
    """(the network fine-tuned with the loss, the same without its term)."""
    return [train(trained, LOSSES[name](**chosen), sets)[0] for chosen in ({}, without)]


@torch.no_grad()
def energy(net, part):
    return -torch.logsumexp(net(images(part))[0], dim=1)


def test_sr_lowers_the_l1_norm(trained, sets):
    with_term, without = (
        float(net(images(sets[1]))[1].detach().abs().sum(dim=1).mean())
        for net in pair(trained, sets, "sr", alpha=0.0)
    )
    assert with_term < 0.95 * without


def test_oe_raises_the_outliers_entropy(trained, sets):
    def entropy(net):
        log_p = net(images(sets[2]))[0].detach().log_softmax(dim=1)
        return float(-(log_p.exp() * log_p).sum(dim=1).mean())

    with_term, without = map(entropy, pair(trained, sets, "oe", beta=0.0))
    assert with_term > without + 0.1


def test_dal_raises_the_entropy_of_the_worst_features_near_the_outliers(trained, sets):
    """Against no outlier term, and against OE, which never sees these features."""

    def worst(net):
        with torch.no_grad():
            h = net(images(sets[2]))[1]
        gamma = torch.tensor(0.0)
        log_p = net.fc(h + worst_shift(h, net.fc, gamma, 10, 0.1)[0]).detach().log_softmax(dim=1)
        return float(-(log_p.exp() * log_p).sum(dim=1).mean())

    losses = LOSSES["dal"](), LOSSES["dal"](beta=0.0), LOSSES["oe"]()
    dal, without, oe = (worst(train(trained, loss, sets, steps=30)[0]) for loss in losses)
    assert dal > oe + 0.05 and dal > without + 0.1


def test_energy_moves_both_sides_towards_their_margins(trained, sets):
    digits_only(sets)
    m_in, m_out = (
        float(energy(trained, sets[1]).mean()) - 2,
        float(energy(trained, sets[2]).mean()) + 2,
    )
    nets = [
        train(trained, LOSSES["energy"](beta=beta, m_in=m_in, m_out=m_out), sets)[0]
        for beta in (0.1, 0.0)
    ]
    inside = [float(F.relu(energy(net, sets[1]) - m_in).square().mean()) for net in nets]
    outside = [float(F.relu(m_out - energy(net, sets[2])).square().mean()) for net in nets]
    assert inside[0] < inside[1] and outside[0] < outside[1]


def test_greg_lowers_the_norm_of_the_input_gradient(trained, sets):
    m_in, m_out = float(energy(trained, sets[1]).mean()), float(energy(trained, sets[2]).mean())
    m_in, m_out = min(m_in, m_out), max(m_in, m_out)

    def norm(weight):
        loss = LOSSES["greg"](m_in=m_in, m_out=m_out, grad_weight=weight)
        net, x = train(trained, loss, sets, steps=20)[0], images(sets[1]).requires_grad_()
        (gradient,) = torch.autograd.grad(-torch.logsumexp(net(x)[0], dim=1).sum(), x)
        return float(gradient.flatten(1).norm(dim=1).mean())

    assert norm(3.0) < 0.9 * norm(0.0)


def test_cluster_sampling_spreads_the_chosen_energies(trained, sets):
    """Of several lots of candidates, as one lot of so small a network may be drawn otherwise."""
    chosen, random = [], []
    for lot in range(8):
        order = np.random.default_rng(lot).permutation(len(sets[2]))[:384]
        with torch.no_grad():
            logits, features = trained(images(sets[2])[order])
        values = -torch.logsumexp(logits, dim=1).numpy()
        chosen.append(values[sampling.choose(features.numpy(), values, 64, 128, seed=lot)].std())
        random.append(np.mean([values[k : k + 128].std() for k in (0, 128, 256)]))
    assert np.mean(np.divide(chosen, random)) > 1.05  # by chance 1 to within 0.02


def test_reweightood_raises_cosines_of_a_class_and_lowers_the_others(trained, sets):
    digits_only(sets)

    def cosines(net, loss):
        with torch.no_grad():
            z = F.normalize(loss.projection(net(images(sets[1]))[1]), dim=1)
        same = sets[1].labels[:, None] == sets[1].labels
        return float((z @ z.T)[same].mean()), float((z @ z.T)[~same].mean())

    loss = LOSSES["reweightood"]()
    torch.manual_seed(0)
    loss.attach(32, DEVICE)
    same_before, other_before = cosines(trained, loss)
    same, other = cosines(*train(trained, LOSSES["reweightood"](), sets, lr=0.05, steps=2 * STEPS))
    assert other < other_before - 0.1 and same - other > same_before - other_before + 0.1


def test_logitnorm_bounds_its_loss_from_below(trained, sets):
    """However long the logits grow, the loss stays above that of a simplex of length 1/tau."""
    loss, y = LOSSES["logitnorm"](tau=1.0), sets[1].labels
    with torch.no_grad():
        logits, features = trained(images(sets[1]))
    classes = logits.shape[1]
    length = (classes / (classes - 1)) ** 0.5
    bound = float(np.log1p((classes - 1) * np.exp(-length)))
    for scale in (1.0, 1e3):
        value = float(loss(Batch(None, None, y, scale * logits, features))["ce"])
        assert bound <= value < np.log(classes)
        plain = float(F.cross_entropy(scale * logits, y))
    assert plain > value  # the plain loss of long logits has no such bound, its errors cost more
