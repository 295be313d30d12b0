"""bf16 inference with BatchNorm, ReLU and sums inside the convolutions gives the network's outputs."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models
from models.kernels import folded, fused
from models.layers import FullPrecisionConv2d, pool_and_classify

BF16 = torch.bfloat16
needs_kernels = pytest.mark.skipif(fused.kernels() is None, reason="no C++ compiler here")


def with_statistics(model):
    """The model in evaluation with BatchNorms that do something."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def images(count, size=32, seed=2):
    x = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


def error(found, right):
    return float((found.float() - right).abs().max() / right.abs().max())


@needs_kernels
@pytest.mark.parametrize(
    "arch, size", [("wrn", 32), ("resnet18", 16), ("densenet", 16), ("allconv", 32)]
)
def test_every_network_folds_and_gives_its_float32_outputs_up_to_bf16(arch, size):
    model = with_statistics(models.build(arch, 10, 16, 2))
    fast = models.fold(model, (3, size, size))
    for count in (5, 1):  # the weights are packed for a shape, and packed again for another
        x = images(count, size)
        before = x.clone()
        with torch.inference_mode(), torch.autocast("cpu", BF16):
            again = [part.clone() for part in fast(x)]
            logits, features = fast(x)
            eager = model(x)
        right = model(x)
        assert logits.dtype == features.dtype == torch.float32 and torch.equal(x, before)
        for one, two, plain, exact in zip((logits, features), again, eager, right):
            assert torch.equal(one, two)
            assert error(one, exact) < max(0.015, 2 * error(plain, exact))
    kinds = {type(module) for module in fast.modules()}
    assert not kinds & {nn.BatchNorm2d, nn.Conv2d, FullPrecisionConv2d}


class Odd(nn.Module):
    """A shortcut that is read again after the sum, and what follows no convolution."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8, affine=False)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        a = self.first(x)
        b = F.relu(self.bn(a)) + self.conv(a)
        return pool_and_classify(b * a + self.conv(b), self.fc)


@needs_kernels
def test_nothing_folds_where_pytorch_s_own_operators_are_wanted():
    network = with_statistics(models.build("wrn", 10, 16, 2))
    assert models.fold(network, (3, 32, 32)) is not None
    before = models.use_kernels(fused=False)
    try:
        assert models.fold(network, (3, 32, 32)) is None
    finally:
        models.use_kernels(**before)


@needs_kernels
def test_a_shortcut_that_is_read_later_is_not_overwritten():
    model, x = with_statistics(Odd()), images(3, 8)
    fast = models.fold(model, (3, 8, 8))
    with torch.inference_mode(), torch.autocast("cpu", BF16):
        found = fast(x)
    assert all(error(a, b) < 0.02 for a, b in zip(found, model(x)))


@needs_kernels
@pytest.mark.parametrize("relu, bias", [(True, True), (True, False), (False, True), (False, False)])
def test_a_sum_is_the_shortcut_and_the_convolution(relu, bias):
    conv = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=bias).requires_grad_(False)
    x, shortcut = (
        torch.randn(2, c, s, s).to(BF16).contiguous(memory_format=torch.channels_last)
        for c, s in ((6, 9), (8, 5))
    )
    right = shortcut.float() + F.conv2d(
        x.float(), conv.weight.to(BF16).float(), conv.bias, stride=2, padding=1
    )
    found = folded.Sum(folded.Convolution(conv, None, "none", False), relu)(shortcut, x)
    assert found.data_ptr() == shortcut.data_ptr()
    torch.testing.assert_close(
        found.float(), right.relu() if relu else right, rtol=2**-7, atol=2**-7
    )


@needs_kernels
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("channels, size", [(2, 3), (7, 5), (64, 8), (1500, 2)])
def test_affine_is_batch_norm_rounded_once(relu, channels, size):
    bn = with_statistics(nn.BatchNorm2d(channels))
    x = torch.randn(3, channels, size, size).to(BF16).contiguous(memory_format=torch.channels_last)
    right = bn.double()(x.double())
    found = folded.Affine(bn, relu)(x).double()
    right = right.relu() if relu else right
    assert ((found - right).abs() <= 2**-8 * right.abs() + 1e-5).all()


@needs_kernels
@pytest.mark.parametrize("relu", [True, False])
def test_a_step_keeps_its_sum_in_float32(relu):
    conv = nn.Conv2d(6, 8, 3, padding=1, bias=False).requires_grad_(False)
    bn = with_statistics(nn.BatchNorm2d(8))
    trunk = torch.full((2, 8, 5, 5), 100.0, dtype=BF16).contiguous(
        memory_format=torch.channels_last
    )
    total = folded.Sum(folded.Convolution(conv, None, "none", False), False)
    right = trunk.float()
    for kept in [True] * 7 + [False]:
        x = torch.randn(2, 6, 5, 5).to(BF16).contiguous(memory_format=torch.channels_last)
        step = folded.Step(total, folded.Affine(bn, relu), kept)
        right += step.conv(x).float()
        trunk, y = step(trunk, x)
        assert torch.equal(trunk, right) if kept else trunk is None
        normed = bn(right).relu() if relu else bn(right)
        torch.testing.assert_close(y.float(), normed, rtol=2**-7, atol=2**-7)


@needs_kernels
def test_the_first_sums_of_a_wrn_are_float32():
    """Those of 16 and 32 channels: float32 goes from one to the next of each of these stages."""
    fast = models.fold(with_statistics(models.build("wrn", 10, 40, 1)), (3, 16, 16))
    seen = []
    for module in fast.modules():
        if isinstance(module, folded.Step):
            module.register_forward_hook(lambda _, x, y: seen.append((x[0], y[0])))
    with torch.inference_mode(), torch.autocast("cpu", BF16):
        fast(images(2, 16))
    given, kept = zip(*seen)
    assert [x.dtype for x in given] == 2 * [BF16, *[torch.float32] * 5]
    assert [x is not None and x.dtype for x in kept] == 2 * [*[torch.float32] * 5, False]


def test_nan_stays():
    if fused.kernels() is None:
        pytest.skip("no C++ compiler here")
    bn = with_statistics(nn.BatchNorm2d(4))
    x = torch.full((1, 4, 2, 2), float("nan"), dtype=BF16)
    assert folded.Affine(bn, True)(x).isnan().all()


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv(x)
        if x.max() > 0:
            x = x * 2
        return pool_and_classify(x, self.fc)


class Circular(Branching):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")

    def forward(self, x):
        return pool_and_classify(self.conv(x), self.fc)


class LogitsAlone(Circular):
    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))


@needs_kernels
def test_a_sum_of_other_shapes_is_refused():
    """PyTorch would enlarge the smaller one; a kernel would read beyond its end."""
    conv, bn = nn.Conv2d(6, 8, 3, padding=1).requires_grad_(False), nn.BatchNorm2d(8).eval()
    total = folded.Sum(folded.Convolution(conv, None, "none", False), False)
    x, one = torch.zeros(2, 6, 5, 5, dtype=BF16), torch.zeros(2, 8, 1, 1, dtype=BF16)
    for module in (total, folded.Step(total, folded.Affine(bn, True), kept=True)):
        with torch.inference_mode(), pytest.raises(ValueError, match="other shapes"):
            module(one, x)


@pytest.mark.parametrize("kind", [Branching, Circular, LogitsAlone])
def test_what_cannot_be_folded_is_left_to_others(kind):
    assert models.fold(with_statistics(kind()), (3, 8, 8)) is None


@needs_kernels
def test_outputs_that_are_others_are_not_taken(monkeypatch):
    model = with_statistics(models.build("wrn", 10, 10, 1))
    assert models.fold(copy.deepcopy(model), (3, 16, 16)) is not None
    wrong = folded.affine_of
    monkeypatch.setattr(folded, "affine_of", lambda bn: (wrong(bn)[0] * 1.2, wrong(bn)[1]))
    assert models.fold(model, (3, 16, 16)) is None


def test_without_kernels_nothing_is_folded(monkeypatch):
    monkeypatch.setattr(folded, "kernels", lambda: None)
    assert models.fold(with_statistics(models.build("wrn", 10, 10, 1)), (3, 16, 16)) is None
