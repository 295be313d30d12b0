"""BatchNorm, ReLU and dropout as one operation: what eager PyTorch leaves apart costs a CPU a
quarter of a training step.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .mask import LEVELS

SOURCE = Path(__file__).with_name("fused.cpp")
FLAGS = (
    "-O3",
    "-march=native",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-fopenmp",
    "-fPIC",
    "-shared",
    "-std=c++17",
)


def takes(x: torch.Tensor, bn: torch.nn.BatchNorm2d) -> bool:
    """Whether the kernels can take this input: what they cannot take is as right,
    only slower, in PyTorch's operators.
    """
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.dim() == 4
        and x.shape[1] % 2 == 0
        and x.numel() > x.shape[1]
        and x.is_contiguous(memory_format=torch.channels_last)
        and bn.affine
        and bn.weight.dtype == torch.float32
        and bn.momentum is not None
        and kernels() is not None
    )


def bn_relu_dropout(x: torch.Tensor, bn: torch.nn.BatchNorm2d, p: float = 0.0) -> torch.Tensor:
    """dropout(relu(bn(x)), p) of a BatchNorm in training, for an x (N,C,H,W) that ``takes`` takes.

    One kernel each way, with the values of PyTorch's own operators up to rounding and the same
    distribution of the mask, but other random numbers for it.
    """
    if bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    return Fused.apply(x, bn.weight, bn.bias, bn, p)


class Fused(torch.autograd.Function):
    """The kernels of fused.cpp as a differentiable operation."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, bn: torch.nn.BatchNorm2d, p: float
    ) -> Tensor:
        channels, threshold = x.shape[1], round(p * LEVELS)
        y, (mean, invstd) = torch.empty_like(x), weight.new_empty(2, channels)
        # from PyTorch's generator: seeds hold
        key = int(torch.randint(-(2**63), 2**63 - 1, ())) % 2**64 if threshold else 0
        running = (
            (bn.running_mean.data_ptr(), bn.running_var.data_ptr())
            if bn.track_running_stats
            else (None, None)
        )
        kernel("forward", x)(
            x.data_ptr(),
            y.data_ptr(),
            x.numel() // channels,
            channels,
            weight.data_ptr(),
            bias.data_ptr(),
            *running,
            bn.momentum,
            bn.eps,
            mean.data_ptr(),
            invstd.data_ptr(),
            threshold,
            key,
            torch.get_num_threads(),
        )
        ctx.save_for_backward(x, y, weight, mean, invstd)
        ctx.threshold = threshold
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, mean, invstd = ctx.saved_tensors
        grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
        found = Gradients.apply(grad, x, weight, y.detach(), mean, invstd, ctx.threshold)
        return *found, None, None


class Gradients(torch.autograd.Function):
    """What ``Fused`` gives back (dx, dweight, dbias), as an operation that is differentiable in its
    turn, for losses that hold a gradient (GReg's, for one).
    """

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        y: Tensor,
        mean: Tensor,
        invstd: Tensor,
        threshold: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        channels = x.shape[1]
        kernel("backward", x)(
            x.data_ptr(),
            y.data_ptr(),
            grad.data_ptr(),
            dx.data_ptr(),
            x.numel() // channels,
            channels,
            weight.data_ptr(),
            mean.data_ptr(),
            invstd.data_ptr(),
            dweight.data_ptr(),
            dbias.data_ptr(),
            threshold,
            torch.get_num_threads(),
        )
        ctx.save_for_backward(grad, x, weight, y, mean, invstd)
        ctx.threshold = threshold
        return dx, dweight, dbias

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor | None, ...]:
        grad, x, weight, y, mean, invstd = ctx.saved_tensors
        v = v.to(x.dtype).contiguous(memory_format=torch.channels_last)
        p, q = p.contiguous(), q.contiguous()
        by_grad, by_x, by_weight = (torch.empty_like(tensor) for tensor in (x, x, weight))
        channels = x.shape[1]
        kernel("second", x)(
            x.data_ptr(),
            y.data_ptr(),
            grad.data_ptr(),
            v.data_ptr(),
            by_grad.data_ptr(),
            by_x.data_ptr(),
            x.numel() // channels,
            channels,
            weight.data_ptr(),
            mean.data_ptr(),
            invstd.data_ptr(),
            p.data_ptr(),
            q.data_ptr(),
            by_weight.data_ptr(),
            ctx.threshold,
            torch.get_num_threads(),
        )
        return by_grad, by_x, by_weight, None, None, None, None


def kernel(name: str, x: Tensor) -> Callable:
    """The kernel of fused.cpp for the numbers that x holds."""
    return getattr(kernels(), f"{name}_{str(x.dtype).removeprefix('torch.')}")


@functools.cache
def kernels() -> ctypes.CDLL | None:
    """The compiled fused.cpp, or None where there is no compiler,
    no folder to write to or no OpenMP to share.

    Compiled once (seconds) for this machine into __pycache__. It is not linked to an OpenMP of its
    own but takes that of PyTorch, already loaded: two pools of threads on the same cores
    would wait for each other.
    """
    # CXX may have words: "ccache g++"
    compiler = shlex.split(os.environ.get("CXX") or shutil.which("g++") or "")
    if platform.system() != "Linux" or not compiler:
        return None
    try:
        flags = next(
            (
                line
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith(("flags", "Features"))
            ),
            "",
        )
        code = hashlib.sha256(
            SOURCE.read_bytes() + repr((FLAGS, compiler, flags)).encode()
        ).hexdigest()[:16]
        library = SOURCE.parent / "__pycache__" / f"fused-{code}.so"
        if not library.exists() or build_folder(library).exists():  # of a killed process
            build(compiler, library)
        return signatures(ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_LOCAL))
    except (OSError, subprocess.SubprocessError, AttributeError):
        return None


def build_folder(library: Path) -> Path:
    return library.with_suffix(".build")


def build(compiler: list[str], library: Path) -> None:
    """Compile in a folder of its own, then rename: another process never loads half a file.

    One process at a time compiles, the others wait and find it done. What a killed one leaves is
    taken over by the next: its compiler, which may outlive it, keeps the lock.
    """
    import fcntl  # not on Windows, where nothing is built

    folder = build_folder(library)
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a disk that knows no locks: then all compile
            fcntl.flock(lock, fcntl.LOCK_EX)
        if library.exists():
            return
        folder.mkdir(exist_ok=True)  # another one has failed here
        part = folder / "fused"
        compile_only = [*compiler, *FLAGS, "-c", str(SOURCE), "-o", f"{part}.o"]
        for command in (compile_only, [*compiler, "-shared", f"{part}.o", "-o", f"{part}.so"]):
            subprocess.run(command, check=True, capture_output=True, timeout=120, pass_fds=(lock,))
        os.replace(f"{part}.so", library)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the C types of its functions."""
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    for name in ("float32", "bfloat16"):
        getattr(library, f"forward_{name}").argtypes = (
            [pointer] * 2
            + [size] * 2
            + [pointer] * 4
            + [number] * 2
            + [pointer] * 2
            + [ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int]
        )
        getattr(library, f"backward_{name}").argtypes = (
            [pointer] * 4 + [size] * 2 + [pointer] * 5 + [ctypes.c_uint32, ctypes.c_int]
        )
        getattr(library, f"second_{name}").argtypes = (
            [pointer] * 6 + [size] * 2 + [pointer] * 6 + [ctypes.c_uint32, ctypes.c_int]
        )
        getattr(library, f"affine_{name}").argtypes = (
            [pointer] * 2 + [size] * 2 + [pointer] * 2 + [ctypes.c_int] * 2
        )
        getattr(library, f"step_{name}").argtypes = (
            [pointer] * 4 + [size] * 2 + [pointer] * 2 + [ctypes.c_int] * 2
        )
        getattr(library, f"sum_{name}").argtypes = [pointer] * 2 + [size] + [ctypes.c_int] * 2
    return library
