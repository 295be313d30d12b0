"""Device and precision: every ``if device`` of the project lives here."""

import contextlib
import copy
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .errors import UserError

CPU_BATCH = 100


def pick_device(name: str = "auto", ngpu: int = 1) -> torch.device:
    """torch.device for auto | cpu | cuda | mps; auto takes the first accelerator there is.
    ngpu 0 forces the CPU.
    """
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = next((n for n in ("cuda", "mps") if there[n]), "cpu") if ngpu else "cpu"
    if not there.get(name):
        raise UserError(
            f"device '{name}' is not available here. There is: "
            f"{', '.join(n for n in there if there[n])}"
        )
    if ngpu > 1:
        print(f"note: --ngpu {ngpu}: one device is used", file=sys.stderr)
    return torch.device(name)


def use_deterministic(wanted: bool) -> None:
    """Take of each operator the algorithm that adds up in a fixed order, if wanted, and none that
    is chosen by its time; call it before the device is used.

    An operator without such an algorithm raises a RuntimeError, which ``run`` makes a line.
    """
    torch.use_deterministic_algorithms(wanted)
    # memory that is not set is overwritten before it is read: to fill it would only cost time
    torch.utils.deterministic.fill_uninitialized_memory = False
    if wanted:
        # cuBLAS adds up in a fixed order with work space of a fixed size alone
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 faster than float32:
    with AMX, or with AVX-512 BF16 at full rate.

    Intel's cores carry out an AVX-512 BF16 instruction at half the rate of AMD's: where AMX is
    missing (it is often hidden from a virtual machine), bfloat16 convolutions reach 0.6 times the
    speed of float32 ones. Emulation is slower still.
    """
    with contextlib.suppress(OSError):
        words = set(Path("/proc/cpuinfo").read_text().split())
        return "amx_bf16" in words or ("avx512_bf16" in words and "GenuineIntel" not in words)
    return False


def pick_precision(name: str, device: torch.device) -> str:
    """ "bf16" or "fp32" for auto | fp32 | bf16: auto takes bfloat16 autocast only where the
    hardware is faster at it.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def inference_batch(size: int, device: torch.device) -> int:
    """Images of one forward pass where ``size`` were asked for: on a CPU no more than stay in its
    cache from layer to layer.
    """
    return min(size, CPU_BATCH) if device.type == "cpu" else size


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context in which convolutions run in bfloat16 when precision is "bf16",
    and nothing changes otherwise.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def prepare(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device with channels_last weights,
    the layout convolutions are fastest in on CPU and GPU.

    On CUDA float32 convolutions are float32 ones from here on, not TF32,
    whose 10 bits of mantissa would make ties.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return model.to(device, memory_format=torch.channels_last)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor's copy on the device, which the host does not wait for."""
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else tensor.to(device)
    )


def compile_inference(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """The model compiled for batches of exactly this shape,
    or the model itself where that cannot be had.

    Weights are frozen into the code: in float32 BatchNorm is folded into the convolution before it,
    which does ReLU and residual sum as well. Under bf16 autocast it is one float32 operation with
    the ReLU after it instead: as a convolution's bias it would be rounded to bf16,
    the same error for every image.
    Needs a C++ compiler on a CPU; whatever fails, fails here, on the first batch.
    """
    logging.getLogger("torch").setLevel(logging.ERROR)
    # code with other weights frozen into it, of a network of the same class,
    # is never taken for this one's
    torch.compiler.reset()
    try:
        from torch._inductor import config  # half the compiler: only who compiles imports it

        frozen = copy.deepcopy(model)
        for module in frozen.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(lambda module, inputs: inputs[0].float())
        compiled = torch.compile(frozen, dynamic=False)
        # not as torch.compile(options=...), which is read after tracing has made inputs of the
        # weights: nothing is frozen then
        # before 2.7 torch says on stderr which CUDA it found no device for
        silent = contextlib.redirect_stderr(io.StringIO())
        with silent, config.patch(freezing=True), torch.inference_mode():
            compiled(example)
        return compiled
    except Exception:
        # no compiler, an operator it does not know, a network it cannot trace: eager is as right
        torch.compiler.reset()
        return model


def compile_openvino(model: nn.Module, example: torch.Tensor, precision: str) -> Callable:
    """The model compiled by OpenVINO, with as many threads as PyTorch has: a function of NumPy
    batches (N,3,H,W) float32, whose outputs it gives by number. In bf16 only where the CPU has it.

    ImportError where the package is not installed.
    """
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    with warnings.catch_warnings(), torch.autocast("cpu", enabled=False):
        warnings.simplefilter("ignore")  # of what it uses of PyTorch
        converted = openvino.convert_model(model, example_input=example.contiguous())
    return openvino.compile_model(converted, "CPU", settings)
