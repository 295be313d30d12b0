"""BatchNorm, ReLU and dropout fused: the values and gradients of the three
operators, and a fair mask.
"""

import copy
import os
import pathlib
import platform
import shutil
import subprocess

import pytest
import torch
from torch.nn import functional as F

import models
from models import layers
from models.kernels import fused
from models.kernels.mask import LEVELS
from models.layers import bn_relu

DTYPES = {torch.float32: 2e-6, torch.bfloat16: 4e-3}
needs_compiler = pytest.mark.skipif(fused.kernels() is None, reason="no C++ compiler here")


@pytest.mark.skipif(
    shutil.which("g++") is None or platform.system() != "Linux" or "CXX" in os.environ,
    reason="no g++ on Linux",
)
def test_with_a_compiler_there_are_kernels():
    """Or every test below that needs them would be skipped unseen."""
    assert fused.kernels() is not None


# Gradients of a whole network differ from those in float64 by 3e-6 of their norm where every
# activation has the same sign; one within rounding of 0 may not, and is up to 7e-3 of it.
NORM = 1e-2


def norm_errors(found, exact):
    """{name: error of a gradient over the norm of the exact one}."""
    exact = dict(exact.named_parameters())
    return {
        name: float((p.grad - exact[name].grad).norm() / exact[name].grad.norm())
        for name, p in found.named_parameters()
    }


def small_network():
    """A WRN without dropout in training, the same in float64, and a batch of images."""
    torch.manual_seed(0)
    net = models.build("wrn", 10, layers=10, widen_factor=2, droprate=0.0).train()
    x = torch.randn(8, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    return net.to(memory_format=torch.channels_last), copy.deepcopy(net).double(), x


@needs_compiler
def test_a_gradient_can_be_differentiated_again():
    """A penalty on the input gradient, as GReg's: the parameter gradients of float64."""
    net, exact, images = small_network()
    for network, x in ((net, images), (exact, images.double())):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[0].logsumexp(1).sum(), x, create_graph=True)
        gradient.square().sum().backward()
    errors = norm_errors(net, exact)
    assert max(errors.values()) < NORM, errors


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels, p", [(2, 0.0), (32, 0.3), (342, 0.0)])
def test_second_derivatives_equal_float64_operators(channels, p, dtype):
    """Those of all three gradients, with the kernel's own dropout mask."""
    bn, x, grad = case(channels, dtype)
    exact_bn, exact_x, exact_grad = copy.deepcopy(bn).double(), x.double(), grad.double()
    generator = torch.Generator().manual_seed(1)
    by = [torch.randn(like.shape, generator=generator) for like in (x, bn.weight, bn.bias)]
    torch.manual_seed(0)
    found = []
    for norm, *inputs in ((bn, x, grad), (exact_bn, exact_x, exact_grad)):
        image, dy = (tensor.requires_grad_() for tensor in inputs)
        if norm is bn:
            y = bn_relu(image, norm, p)
            passed = (y.detach() > 0) * (LEVELS / (LEVELS - round(p * LEVELS)))
        else:
            y = norm(image) * passed.double()
        first = torch.autograd.grad(y, (image, norm.weight, norm.bias), dy, create_graph=True)
        total = sum((a.double() * b).sum() for a, b in zip(first, by))
        found.append(torch.autograd.grad(total, (dy, image, norm.weight)))
    for ours, exact in zip(*found):
        assert error(ours, exact) < 5 * DTYPES[dtype]


def case(channels=32, dtype=torch.float32, shape=(7, 9, 5), mean=20.0):
    """A BatchNorm with drawn parameters, an input whose mean is far from 0, and a gradient."""
    generator = torch.Generator().manual_seed(channels)
    bn = torch.nn.BatchNorm2d(channels)
    for parameter in bn.parameters():
        parameter.data = torch.randn(channels, generator=generator)
    x, grad = torch.randn(2, shape[0], channels, *shape[1:], generator=generator)
    return (
        bn,
        (3 * x + mean).to(dtype).contiguous(memory_format=torch.channels_last),
        grad.to(dtype),
    )


def error(value, exact):
    return float(
        (value.detach().double() - exact.detach()).abs().max() / exact.detach().abs().max()
    )


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [2, 6, 16, 32, 342, 3000])
def test_equals_float64_operators(channels, dtype):
    bn, x, grad = case(channels, dtype)
    exact_bn, exact_x = copy.deepcopy(bn).double(), x.double().requires_grad_()
    exact = F.relu(exact_bn(exact_x))
    exact.backward(grad.double())
    x.requires_grad_()
    y = bn_relu(x, bn)
    assert (
        "Fused" in type(y.grad_fn).__name__
        and y.dtype == dtype
        and y.is_contiguous(memory_format=torch.channels_last)
    )
    y.backward(grad)
    assert error(y, exact) < DTYPES[dtype] and error(x.grad, exact_x.grad) < DTYPES[dtype]
    for (name, value), exact_value in zip(bn.named_parameters(), exact_bn.parameters()):
        assert error(value.grad, exact_value.grad) < 1e-5, name
    for (name, value), exact_value in zip(bn.named_buffers(), exact_bn.buffers()):
        assert error(value, exact_value) < 1e-5, name


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_passes_where_dropout_lets_through(dtype):
    bn, x, grad = case(32, dtype, (16, 8, 8), mean=0.0)
    x.requires_grad_()
    torch.manual_seed(3)
    y = bn_relu(x, bn, 0.3)
    y.backward(grad)
    kept = (y > 0).double() / (1 - round(0.3 * 2**16) / 2**16)
    exact_bn, exact_x = copy.deepcopy(bn).double(), x.detach().double().requires_grad_()
    exact_bn.zero_grad()
    exact = F.relu(exact_bn(exact_x)) * kept
    exact.backward(grad.double())
    assert error(y, exact) < DTYPES[dtype] and error(x.grad, exact_x.grad) < DTYPES[dtype]
    assert (
        error(bn.weight.grad, exact_bn.weight.grad) < 1e-5
        and error(bn.bias.grad, exact_bn.bias.grad) < 1e-5
    )


def mask(p, shape=(64, 32, 16, 16)):
    """What dropout keeps of an input that ReLU lets through everywhere."""
    bn = torch.nn.BatchNorm2d(shape[1])
    torch.nn.init.constant_(bn.bias, 100.0)
    return (
        bn_relu(torch.randn(shape).contiguous(memory_format=torch.channels_last), bn, p)
        .permute(0, 2, 3, 1)
        .flatten()
        > 0
    )


@needs_compiler
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_rate(p):
    torch.manual_seed(0)
    kept = mask(p)
    assert abs(kept.double().mean() - (1 - p)) < 4 * (p * (1 - p) / len(kept)) ** 0.5


@needs_compiler
def test_mask_is_independent_of_neighbours_and_of_the_next_step():
    torch.manual_seed(0)
    first, second = (mask(0.5).double() - 0.5 for _ in range(2))
    bound = 4.5 / len(first) ** 0.5
    for distance in (1, 2, 3, 16, 32, 64, 1024, 1 << 16):
        assert abs((first[:-distance] * first[distance:]).mean() / 0.25) < bound, distance
    assert abs((first * second).mean() / 0.25) < bound
    per_image = first.view(64, -1).mean(1) / 0.5
    assert abs(per_image.std() * (first.numel() / 64) ** 0.5 - 1) < 0.4  # of a binomial's spread


@needs_compiler
def test_mask_follows_the_seed_and_not_the_threads():
    torch.manual_seed(1)
    first, other = mask(0.3), mask(0.3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        torch.manual_seed(1)
        assert torch.equal(mask(0.3), first) and not torch.equal(other, first)
    finally:
        torch.set_num_threads(threads)


@needs_compiler
def test_not_a_number_stays_one():
    bn, x, _ = case(16, torch.bfloat16)
    x[0, 3, 0, 0] = float("nan")
    y = bn_relu(x, bn)
    assert y[:, 3].isnan().all() and not y[:, :3].isnan().any()


def test_evaluation_is_the_stock_operators():
    bn, x, _ = case()
    bn.eval()
    assert torch.equal(bn_relu(x, bn), F.relu(bn(x)))


@pytest.mark.parametrize(
    "change",
    [
        "channels not last",
        "odd channels",
        "float64",
        "switched off",
        "no parameters",
        "cumulative average",
    ],
)
def test_what_the_kernels_do_not_take_falls_back(change, monkeypatch):
    bn, x, _ = case(33 if change == "odd channels" else 32)
    if change == "channels not last":
        x = x.contiguous()
    elif change == "float64":
        bn, x = bn.double(), x.double()
    elif change == "switched off":
        monkeypatch.setitem(layers.wanted, "fused", False)
    elif change == "no parameters":
        bn = torch.nn.BatchNorm2d(32, affine=False)
    elif change == "cumulative average":
        bn.momentum = None
    other = copy.deepcopy(bn)
    assert torch.equal(bn_relu(x, bn), F.relu(other(x)))
    assert torch.equal(bn.running_var, other.running_var) and bn.num_batches_tracked == 1


@pytest.mark.parametrize("failure", ["no compiler", "compiler fails", "folder not writable"])
def test_without_kernels_training_goes_on(failure, monkeypatch, tmp_path):
    source = tmp_path / "fused.cpp"
    source.write_bytes(fused.SOURCE.read_bytes() if failure != "compiler fails" else b"not C++")
    monkeypatch.setattr(fused, "SOURCE", source)
    monkeypatch.setattr(fused, "kernels", fused.kernels.__wrapped__)
    if failure == "no compiler":
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    if failure == "folder not writable":
        monkeypatch.setattr(
            fused.Path, "mkdir", lambda *a, **k: (_ for _ in ()).throw(PermissionError("read-only"))
        )
    assert fused.kernels() is None
    net = (
        models.build("wrn", 10, layers=10, droprate=0.3)
        .to(memory_format=torch.channels_last)
        .train()
    )
    net(torch.randn(4, 3, 16, 16))[0].sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@needs_compiler
def test_a_compiler_of_several_words(tmp_path, monkeypatch):
    source = tmp_path / "fused.cpp"
    source.write_bytes(fused.SOURCE.read_bytes())
    monkeypatch.setattr(fused, "SOURCE", source)
    monkeypatch.setenv("CXX", f"env {os.environ.get('CXX') or shutil.which('g++')}")
    assert fused.kernels.__wrapped__() is not None


def test_dropout_stays_where_batchnorm_is_frozen():
    net = models.build("wrn", 10, layers=10, droprate=0.5).train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    x = torch.randn(2, 3, 8, 8)
    assert not torch.equal(net(x)[0], net(x)[0])
    assert torch.equal(net.eval()(x)[0], net(x)[0])


@needs_compiler
def test_compiled_once_and_whole(tmp_path, monkeypatch):
    """Nothing but the finished library is left, and a second use compiles nothing."""
    source = tmp_path / "fused.cpp"
    source.write_bytes(fused.SOURCE.read_bytes())
    monkeypatch.setattr(fused, "SOURCE", source)
    assert fused.kernels.__wrapped__() is not None
    (library,) = (tmp_path / "__pycache__").iterdir()
    assert library.suffix == ".so"
    fused.build_folder(library).mkdir()  # killed before it was removed
    (fused.build_folder(library) / "fused.o").touch()
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("compiled again"))
    assert fused.kernels.__wrapped__() is not None
    assert [*library.parent.iterdir()] == [library]


def test_one_process_at_a_time_compiles(tmp_path, monkeypatch):
    """The compiler has the lock too: it may outlive a process that is killed."""
    fcntl, library = pytest.importorskip("fcntl"), tmp_path / "fused-0.so"

    def compile_or_link(command, pass_fds, **_):
        other = os.open(fused.build_folder(library), os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert os.path.samestat(os.fstat(*pass_fds), os.fstat(other))
        os.close(other)
        pathlib.Path(command[-1]).touch()

    monkeypatch.setattr(subprocess, "run", compile_or_link)
    fused.build(["g++"], library)
    assert [*tmp_path.iterdir()] == [library]


@needs_compiler
def test_a_training_step_of_the_network_is_the_same(monkeypatch):
    """Gradients and statistics of a whole WRN: fused in float32 as stock in float64."""
    net, exact, x = small_network()
    calls = []
    forward = fused.bn_relu_dropout
    monkeypatch.setattr(fused, "bn_relu_dropout", lambda *a: calls.append(1) or forward(*a))
    net(x)[0].logsumexp(1).sum().backward()
    assert len(calls) == 7  # every BatchNorm
    exact(x.double())[0].logsumexp(1).sum().backward()
    assert len(calls) == 7
    errors = norm_errors(net, exact)
    assert max(errors.values()) < NORM, errors
    for (name, a), b in zip(net.named_buffers(), exact.buffers()):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=1e-5, msg=name)
