"""Losses of pairs of images: against a loop over pairs; two views against torchvision's."""

import argparse
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import noise
from scipy.stats import ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from utils import loaders, training
from utils.loaders import views
from utils.losses import LOSSES, Batch
from utils.losses.reweightood import pair_loss
from utils.losses.supcon import supervised_contrast
from utils.runtime import Streams, UserError


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


def log_sum(values):
    top = max(values)
    return top + math.log(math.fsum(math.exp(v - top) for v in values))


def cosines(seed, n=14, classes=3):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 5))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    labels = rng.permutation(np.arange(n) // 2 % classes)
    return z @ z.T, labels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_pair_loss_equals_a_loop_over_pairs(seed, tau):
    s, y = cosines(seed)
    pull, push = [], []
    for i in range(len(y)):
        for j in range(i + 1, len(y)):
            if y[i] == y[j]:
                pull.append(-sigmoid(1 - 2 * s[i, j]) * s[i, j] / tau)
            else:
                push.append(sigmoid(5 * s[i, j] - 4) * s[i, j] / tau)
    value = log_sum(pull) + log_sum(push)
    slow = value if value > 0 else math.expm1(value)
    same = torch.tensor(y[:, None] == y)
    for dtype in (torch.float64, torch.float32):
        fast = pair_loss(torch.tensor(s, dtype=dtype), same, tau)
        assert float(fast) == pytest.approx(slow, rel=1e-6)


def test_pair_weights_are_constants_of_the_gradient():
    s, y = cosines(4)
    s, same = torch.tensor(s, requires_grad=True), torch.tensor(y[:, None] == y)
    pair_loss(s, same, 0.1).backward()
    weights = torch.where(same, torch.sigmoid(1 - 2 * s), torch.sigmoid(5 * s - 4)).detach()
    upper = torch.triu(torch.ones_like(same), diagonal=1).bool()
    free = s.detach().clone().requires_grad_()
    terms = torch.where(same, -1.0, 1.0) * weights * free / 0.1
    total = terms[upper & same].logsumexp(0) + terms[upper & ~same].logsumexp(0)
    F.elu(total).backward()
    torch.testing.assert_close(s.grad, free.grad)


@pytest.mark.parametrize("seed", range(3))
def test_supcon_equals_a_loop_over_anchors(seed):
    s, y = cosines(seed)
    total = 0.0
    for i in range(len(y)):
        others = [a for a in range(len(y)) if a != i]
        positive = [p for p in others if y[p] == y[i]]
        bottom = log_sum([s[i, a] / 0.1 for a in others])
        total -= math.fsum(s[i, p] / 0.1 - bottom for p in positive) / len(positive)
    fast = supervised_contrast(torch.tensor(s), torch.tensor(y[:, None] == y), 0.1)
    assert float(fast) == pytest.approx(total / len(y), rel=1e-6)


@pytest.mark.parametrize("name", ["reweightood", "supcon"])
def test_a_loss_of_pairs_sees_both_views_through_its_head(name):
    loss = LOSSES[name]()
    torch.manual_seed(0)
    loss.attach(6, torch.device("cpu"))
    assert [tuple(p.shape) for p in loss.projection.parameters()][::2] == [(6, 6), (128, 6)]
    features, y = torch.randn(8, 6, requires_grad=True), torch.tensor([0, 1, 2, 2] * 2)
    (term,) = loss(Batch(None, None, y, torch.zeros(8, 3), features)).values()
    z = F.normalize(loss.projection(features), dim=1)
    formula = {"reweightood": pair_loss, "supcon": supervised_contrast}[name]
    assert torch.equal(term, formula(z @ z.T, y[:, None] == y, 0.1))
    term.backward()
    assert features.grad.abs().sum() > 0
    assert all(p.grad is not None for p in loss.projection.parameters())
    with pytest.raises(UserError, match=f"--loss {name}.*batch of 4 has one class only"):
        loss(Batch(None, None, torch.zeros(8, dtype=int), torch.zeros(8, 3), features))
    with pytest.raises(ValueError, match="tau"):
        LOSSES[name](tau=0.0)


@pytest.mark.parametrize("name", ["reweightood", "supcon"])
def test_training_draws_same_classes_together(name):
    """Ten steps on fixed images: cosines of a class rise above those of different classes."""
    torch.manual_seed(0)
    x = torch.randn(24, 8)
    y = torch.arange(3).repeat(8)
    x += 2 * F.one_hot(y, 8)
    network, loss = torch.nn.Linear(8, 8), LOSSES[name]()
    loss.attach(8, torch.device("cpu"))
    optimizer = torch.optim.SGD(
        [*network.parameters(), *loss.projection.parameters()], 0.05, momentum=0.9
    )

    @torch.no_grad()
    def gap():
        z = F.normalize(loss.projection(network(x)), dim=1)
        same = y[:, None] == y
        return float((z @ z.T)[same].mean() - (z @ z.T)[~same].mean())

    before = gap()
    for _ in range(20):
        total = sum(loss(Batch(None, None, y, torch.zeros(24, 3), network(x))).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert gap() > before + 0.2


# ---- two views ----


def test_the_crop_is_torchvisions_resized_crop():
    images = torch.from_numpy(noise(12, 32, 0))
    boxes = views.crop_boxes(12, 32, 32, torch.Generator().manual_seed(0))
    flip = torch.arange(12) % 2 == 0
    pixels = images.permute(0, 3, 1, 2).float() / 255
    found = views.resized_crop(pixels, boxes, flip)
    for i, (top, left, height, width) in enumerate(boxes.int().tolist()):
        right = functional.resized_crop(pixels[i], top, left, height, width, [32, 32])
        right = functional.horizontal_flip(right) if flip[i] else right
        torch.testing.assert_close(found[i], right, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (20, 60), (60, 20)])
def test_boxes_are_drawn_as_torchvisions(size):
    count = 3000
    boxes = views.crop_boxes(count, *size, torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    crop = v2.RandomResizedCrop(32, scale=(0.2, 1.0))
    image = torch.zeros(3, *size)
    theirs = [crop.make_params([image]) for _ in range(count)]
    for column, key in enumerate(("top", "left", "height", "width")):
        other = [float(params[key]) for params in theirs]
        assert ks_2samp(boxes[:, column].numpy(), other).pvalue > 1e-4, key
    assert (boxes[:, 0] + boxes[:, 2] <= size[0]).all() and (boxes >= 0).all()
    assert (boxes[:, 1] + boxes[:, 3] <= size[1]).all()


def test_each_change_of_colour_is_torchvisions():
    pixels = torch.from_numpy(noise(8, 8, 3)).permute(0, 3, 1, 2).float() / 255
    pixels[0], pixels[1, :, 0] = 0.5, 0.0  # grey and black have no hue
    factors = 0.6 + 0.8 * torch.rand(3, 8, generator=torch.Generator().manual_seed(0))
    shift = torch.linspace(-0.1, 0.1, 8)
    generator = torch.Generator().manual_seed(1)
    order = torch.stack([torch.randperm(4, generator=generator) for _ in range(8)])
    jittered = torch.arange(8) != 5
    found = views.color_jitter(pixels, factors, shift, order, jittered)
    assert torch.equal(found[5], pixels[5])
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    for i in set(range(8)) - {5}:
        right = pixels[i]
        for kind in order[i].tolist():
            right = changes[kind](right, float([*factors[:, i], shift[i]][kind]))
        torch.testing.assert_close(found[i], right, atol=2e-5, rtol=0)


def test_views_are_distributed_as_torchvisions():
    """Mean, spread and colour of whole views of one photograph-like image, 2,000 draws each."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 16)
    image = np.stack(
        [ramp[:, None] + 0 * ramp, 0 * ramp[:, None] + ramp, 255 - ramp[:, None] + 0 * ramp], 2
    )
    image = torch.from_numpy((image + rng.normal(0, 10, image.shape)).clip(0, 255).astype(np.uint8))
    ours = views.random_view(image.expand(2000, -1, -1, -1), torch.Generator().manual_seed(0))
    assert ours.shape == (2000, 3, 16, 16) and ours.min() >= 0 and ours.max() <= 1
    torch.manual_seed(0)
    pipeline = v2.Compose(
        [
            v2.RandomResizedCrop(16, scale=(0.2, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
        ]
    )
    float_image = image.permute(2, 0, 1).float() / 255
    theirs = torch.stack([pipeline(float_image) for _ in range(2000)])

    def facts(x):
        red, green, blue = x.mean(dim=(2, 3)).T
        return {
            "mean": x.mean(dim=(1, 2, 3)),
            "spread": x.std(dim=(1, 2, 3)),
            "red - green": red - green,
            "blue": blue,
            "left - right": (x[..., :8] - x[..., 8:]).mean(dim=(1, 2, 3)),
        }

    for name, values in facts(ours).items():
        assert ks_2samp(values.numpy(), facts(theirs)[name].numpy()).pvalue > 1e-4, name
    grey = (ours[:, 0] == ours[:, 1]).flatten(1).all(dim=1).float().mean()
    assert abs(float(grey) - 0.2) < 0.04


def test_batches_of_two_views():
    images = loaders.make_set(noise(21, 8, 5), np.arange(21), "some")
    args = argparse.Namespace(batch_size=8, padding=4)
    device, loss = torch.device("cpu"), LOSSES["supcon"]()
    batches = loaders.TrainingBatches(images, None, args, device, Streams(1, "pretrain"), loss)
    epoch = list(batches.epoch(0))
    assert len(batches) == len(epoch) == 2  # the last five are too few
    for x, y, x_out in epoch:
        assert x.shape == (16, 3, 8, 8) and len(x_out) == 0
        assert torch.equal(y[:8], y[8:]) and len(set(y[:8].tolist())) == 8
        assert not torch.equal(x[:8], x[8:])  # each view is drawn anew
    again = list(batches.epoch(0))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(epoch, again, strict=True))
    assert not torch.equal(epoch[0][0], next(iter(batches.epoch(1)))[0])


def test_the_class_means_are_a_classifier():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(3, 4)

        def forward(self, x):
            features = x.mean(dim=(2, 3))
            return self.fc(features), features

    images = loaders.make_set(noise(40, 8, 1), np.arange(40) % 4, "some")
    batches = loaders.Batches(images, 16, torch.device("cpu"))
    net = Net()
    training.take_class_means(net, batches, torch.device("cpu"), "fp32")
    x = torch.cat([x for x, _ in batches])
    with torch.no_grad():
        logits, features = net(x)
    unit = F.normalize(features, dim=1).numpy()
    means = np.stack([unit[np.arange(40) % 4 == c].mean(axis=0) for c in range(4)])
    nearest = (unit @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(axis=1)
    assert logits.argmax(dim=1).tolist() == nearest.tolist()
