"""Which precision and batch a device gets, and what is done to a network there."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from utils import loaders, runtime, training
from utils.evaluation.network import Network
from utils.snapshots.schema import check_description
from utils.training import network as training_network

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))
# vendor and flags as Linux gives them, and what "auto" takes there
CPUS = {
    "Zen 4": ("AuthenticAMD", "avx512f avx512_bf16 avx512_vnni", "bf16"),
    "Ice Lake": ("GenuineIntel", "avx512f avx512_vnni", "fp32"),
    "Sapphire Rapids": (
        "GenuineIntel",
        "avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile",
        "bf16",
    ),
    "Emerald Rapids without AMX": ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16", "fp32"),
    "Zen 3": ("AuthenticAMD", "avx2", "fp32"),
}


@pytest.mark.parametrize("name", CPUS)
def test_auto_takes_bf16_where_the_cpu_is_faster_at_it(name, monkeypatch):
    vendor, flags, expected = CPUS[name]
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path: f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n",
    )
    assert runtime.pick_precision("auto", CPU) == expected
    assert runtime.pick_precision("fp32", CPU) == "fp32"
    assert runtime.pick_precision("bf16", CPU) == "bf16"


def test_auto_takes_fp32_where_the_cpu_says_nothing_of_itself(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert runtime.pick_precision("auto", CPU) == runtime.pick_precision("auto", MPS) == "fp32"


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_takes_bf16_on_cuda_from_sm_80(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert runtime.pick_precision("auto", CUDA) == expected


def test_a_large_batch_goes_through_a_cpu_in_parts(tmp_path):
    assert [runtime.inference_batch(size, CPU) for size in (1, 200, 1000)] == [1, 100, 100]
    assert runtime.inference_batch(1000, CUDA) == 1000
    network = Network(torch.nn.Linear(1, 1), "a" * 64, CPU, "fp32", batch_size=1000, cache=tmp_path)
    assert network.batch_size == 100


def small_network():
    torch.manual_seed(0)
    return models.build("wrn", 10, layers=10, droprate=0.3).train()


@pytest.mark.parametrize("works", [True, False])
def test_compiling_for_training_leaves_no_trace_and_may_fail(works, monkeypatch):
    net, calls = small_network(), []

    def compiled(*inputs):
        calls.append(inputs)
        if not works:
            raise RuntimeError("no compiler")
        return net._call_impl(*inputs)

    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **k: setattr(self, "_compiled_call_impl", compiled)
    )
    before = {name: value.clone() for name, value in net.state_dict().items()}
    training_network.compile_training(net, torch.randn(4, 3, 8, 8), "fp32")
    assert len(calls) == 1 and list(before) == list(net.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    net(torch.randn(4, 3, 8, 8))[0].sum().backward()
    assert len(calls) == 1 + works and all(p.grad is not None for p in net.parameters())


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-5), ("bf16", 0.05)])
def test_compiling_for_inference_freezes_the_weights(precision, tolerance):
    """Convolutions have their weights within: clearing those of the network that was compiled no
    longer changes what comes out.
    """
    net = runtime.prepare(small_network().eval(), CPU)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    x = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    expected, _ = net(x)
    with torch.inference_mode(), runtime.autocast(CPU, precision):
        compiled = runtime.compile_inference(net, x)
        before = compiled(x)[0].clone()
        for module in compiled._orig_mod.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.zero_()
        after, cleared = compiled(x)[0], compiled._orig_mod(x)[0]
    torch.compiler.reset()
    assert torch.equal(before, after) and not torch.allclose(before, cleared)
    assert (before - expected).abs().max() < tolerance * expected.abs().max()
    torch.testing.assert_close(net(x)[0], expected)  # the network itself is as it was


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_a_compiled_bf16_network_keeps_its_batchnorm_in_float32():
    """Folded into the convolution its bias would be rounded to bf16: 0.1001 to 0.10009765625."""
    net = runtime.prepare(
        torch.nn.Sequential(
            torch.nn.Conv2d(16, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16)
        ).eval(),
        CPU,
    )
    with torch.inference_mode(), runtime.autocast(CPU, "bf16"):
        net[0].weight.zero_()
        net[1].bias.fill_(0.1001)
        x = torch.randn(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
        output = runtime.compile_inference(net, x)(x)
    torch.compiler.reset()
    assert output.dtype == torch.float32 and (output - 0.1001).abs().max() < 1e-7


def test_what_a_compiler_says_of_itself_is_not_printed(monkeypatch, capsys):
    """torch 2.6 prints "No CUDA runtime is found" where it was built for CUDA and there is none."""
    model = torch.nn.Linear(2, 2)

    def compiling(model, **_):
        return lambda example: print("No CUDA runtime is found", file=sys.stderr)

    monkeypatch.setattr(torch, "compile", compiling)
    assert runtime.compile_inference(model, torch.zeros(1, 2)) is not model
    assert capsys.readouterr() == ("", "")


def test_what_training_was_computed_with():
    described = training_network.describe_computing(CUDA, "bf16")
    assert described == {
        "device": "cuda",
        "precision": "bf16",
        "fused": False,
        "threads": torch.get_num_threads(),
        "deterministic": False,
        "torch": torch.__version__,
        "cpu": " ".join(runtime.cpu_features()),
        "ranks": 1,
    }
    assert check_description({"computed": described, "arch": "wrn"}, "x")
    assert training_network.describe_computing(CPU, "fp32", "off")["fused"] is False
    assert training_network.describe_computing(CPU, "fp32")["fused"] is models.has_kernels()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_never_makes_the_host_wait():
    """Copies, synchronisations and reads within the steps would raise."""
    images = loaders.make_set(
        np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8),
        np.arange(300) % 10,
        "x",
    )
    net = training_network.prepare_training(small_network(), CUDA)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True, fused=True)
    batches, log = loaders.Batches(images, 100, CUDA, augment=True), training.StepLog(0)
    for attempt in ("warm", "measured"):
        torch.cuda.set_sync_debug_mode("error" if attempt == "measured" else "default")
        try:
            for x, y in batches.epoch(torch.Generator().manual_seed(0)):
                with runtime.autocast(CUDA, "bf16"):
                    logits, _ = net(x)
                loss = log.add({"ce": torch.nn.functional.cross_entropy(logits, y)})
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_an_operator_without_a_fixed_order_is_one_line(capsys):
    """As torch says it on a GPU."""

    def main():
        raise RuntimeError(
            "adaptive_pool does not have a deterministic implementation, but you set"
        )

    assert runtime.run(main, keep_memory=False) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "adaptive_pool has no algorithm" in line and "--deterministic" in line


def test_deterministic_is_on_and_off(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    try:
        runtime.use_deterministic(True)
        assert training_network.describe_computing(CPU, "fp32")["deterministic"]
        assert not torch.backends.cudnn.benchmark
    finally:
        runtime.use_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
