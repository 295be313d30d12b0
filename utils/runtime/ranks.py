"""Several processes that train or score one network together, started by torchrun.

Outside the network every rank has the whole batch and computes the same loss of it; inside it each
rank has every ``size``-th image. Two operations lead from one to the other, ``Scatter`` and
``Gather``, and each is the other's derivative, so that gradients of any order are those of one
process. What sums over a batch inside the network, BatchNorm, sums over the ranks (``AllReduce``).
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


def size() -> int:
    """Processes of this run; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, 0 of the one that writes and prints."""
    return dist.get_rank() if size() > 1 else 0


class NotJoined(Exception):
    """Why a process cannot take part in the run that it was started for."""


def join() -> None:
    """Take part in the run that torchrun has started this process for; nothing without torchrun.

    Ranks but the first print nothing, errors apart. NotJoined where the others are not found.
    """
    if os.environ.get("WORLD_SIZE", "1") in ("", "0", "1") or "RANK" not in os.environ:
        return
    cuda = torch.cuda.is_available()
    try:
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    except (RuntimeError, ValueError, OSError) as error:
        raise NotJoined(str(error).partition("\n")[0][:300]) from None
    if rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def leave() -> None:
    """End what ``join`` began."""
    if size() > 1:
        dist.destroy_process_group()


def end_at_once(status: int) -> None:
    """End this process, of whose run a rank has gone: with older releases of torch (seen with 2.6)
    ``leave``, and so Python's own end, would wait for that rank.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def meet() -> None:
    """Wait for the other ranks."""
    if size() > 1:
        dist.all_reduce(torch.zeros(1))


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The first rank does what is inside, then the others do."""
    if rank():
        meet()
    yield
    if not rank():
        meet()


def everyone(flag: bool) -> bool:
    """Whether it is so on every rank; all of them ask together."""
    if size() == 1:
        return flag
    total = torch.tensor(float(flag))
    dist.all_reduce(total)
    return int(total) == size()


def any_of(flag: bool) -> bool:
    """Whether it is so on one rank at least; all of them ask together."""
    return not everyone(not flag)


def lowest(own: int) -> int:
    """The smallest of every rank's numbers."""
    if size() == 1:
        return own
    found = torch.tensor(own)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)


def in_turn(own: tuple[np.ndarray, np.ndarray] | None) -> list[tuple | None]:
    """What every rank has, in their order: float32 arrays (n,C) and (n,D), or None.

    They are sent as numbers: an object that comes from elsewhere would be unpickled.
    """
    head = torch.tensor([-1, 0, 0] if own is None else [len(own[0]), *(a.shape[1] for a in own)])
    heads = [torch.empty_like(head) for _ in range(size())]
    dist.all_gather(heads, head)
    sizes = [[max(int(count), 0) * int(width) for width in widths] for count, *widths in heads]
    sent = torch.zeros(max(1, *map(sum, sizes)))
    if own is not None:
        flat = torch.cat([torch.from_numpy(array).flatten() for array in own])
        sent[: len(flat)] = flat
    every = [torch.empty_like(sent) for _ in range(size())]
    dist.all_gather(every, sent)
    found = []
    for (count, *widths), lengths, values in zip(heads, sizes, every):
        parts = values[: sum(lengths)].split(lengths)
        arrays = tuple(p.view(max(int(count), 0), int(w)).numpy() for p, w in zip(parts, widths))
        found.append(None if count < 0 else arrays)
    return found


def interleaved(own: Iterator, rounds: int) -> Iterator:
    """Every rank's items, as of ``in_turn``, in turn: the first of each, then the second of each.
    In the last of the rounds some have none.
    """
    if size() == 1:
        yield from own
        return
    for _ in range(rounds):
        yield from (item for item in in_turn(next(own, None)) if item is not None)


def lost(error: BaseException) -> bool:
    """Whether an error says that another rank has ended, and nothing else."""
    words = ("closed by peer", "reset by peer", "gloo", "NCCL", "TCPStore")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def own_rows(tensor: Tensor) -> Tensor:
    """Every ``size``-th row (n,...) from this rank's number on: as many ID images and outliers on
    each rank, which follow one another in a batch.
    """
    return tensor[rank() :: size()].contiguous(memory_format=layout(tensor))


def all_rows(part: Tensor, count: int) -> Tensor:
    """The ``count`` rows (N,...) of which every rank has its ``own_rows``."""
    most = -(-count // size())
    padded = part.new_zeros(most, *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded)
    rows = torch.stack(parts, dim=1).flatten(0, 1)[:count]
    return rows.contiguous(memory_format=layout(part))


def layout(tensor: Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.ndim == 4 else torch.contiguous_format


class Scatter(torch.autograd.Function):
    """(N,...) the same on every rank -> this rank's rows; gradients come back as all rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.count = len(tensor)
        return own_rows(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return Gather.apply(gradient, ctx.count)


class Gather(torch.autograd.Function):
    """This rank's rows -> (N,...) the same on every rank; of a gradient each rank takes its rows,
    since every rank has the whole of it.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor, count: int) -> Tensor:
        return all_rows(part, count)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        return Scatter.apply(gradient), None


class AllReduce(torch.autograd.Function):
    """Sum over the ranks; so is its gradient, and that one's."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return AllReduce.apply(gradient)


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm with the mean and variance of all ranks' images in training, in float32 at least.

    torch's own takes no CPU tensors and has no second derivative. Two sums over the ranks: of the
    values, then of the squares around their mean.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or size() == 1:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.ndim)]
        count = torch.tensor(float(x.numel() // x.shape[1]), dtype=torch.float64)
        dist.all_reduce(count)
        count = float(count)
        if count < 2:
            raise ValueError("Expected more than 1 value per channel when training")
        mean = AllReduce.apply(values.sum(dims)) / count
        centred = values - mean.view(shape)
        variance = AllReduce.apply(centred.square().sum(dims)) / count
        if self.track_running_stats:
            self.track(mean.detach(), variance.detach() * count / (count - 1))
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics."""
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of dimensions is right."""


def share(model: nn.Module) -> nn.Module:
    """Have the ranks work on a network together: it takes and returns whole batches as before.

    The names of its parameters stay. Nothing changes with one process.
    """
    if size() == 1:
        return model
    counts = []
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = SyncBatchNorm

    def before(module, inputs):
        counts.append(len(inputs[0]))
        return (Scatter.apply(inputs[0]), *inputs[1:])

    def after(module, inputs, outputs):
        count = counts.pop()
        return tuple(Gather.apply(part, count) for part in outputs)

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after)
    return model


def outside(parameter: Tensor | None) -> Tensor | None:
    """A parameter of the network for use outside it, where every rank computes the same from all
    images: its gradient, which ``share_gradients`` sums over the ranks, counts once.
    """
    if parameter is None or size() == 1:
        return parameter
    return parameter.detach() + (parameter - parameter.detach()) / size()


def share_gradients(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Before each step of the optimiser sum the gradients of the network's parameters, to which
    every rank's images have their part, over the ranks in one message.
    """
    if size() == 1:
        return
    parameters = list(model.parameters())

    def total(*_):
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))

    optimizer.register_step_pre_hook(total)
