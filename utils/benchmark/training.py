"""The parts "training" and "tuning": a step with PyTorch's own operators against the scripts'."""

import argparse
import copy
from collections.abc import Callable

import torch

import models
from utils import runtime
from utils.losses import LOSSES, Batch, losses_of

from .losses import Steps, steps_of
from .measure import compare, random_set
from .plain import operators, pil_loader

SROE = LOSSES["sroe"]()
WORKERS = {"cpu": 0}  # of the plain loader: a CPU that trains has no core to spare; beside a GPU 8


def step(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    y: torch.Tensor,
    device: torch.device,
    precision: str,
    outliers: int,
) -> None:
    """One step of training, or of fine-tuning with SROE where the last ``outliers``
    images are auxiliary ones.
    """
    with runtime.autocast(device, precision):
        logits, features = network(x)
    inside = len(x) - outliers
    batch = Batch(x[:inside], x[inside:], y[:inside], logits, features)
    loss = sum(SROE(batch).values()) if outliers else batch.cross_entropy()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def plain_steps(
    network: torch.nn.Module,
    loader: torch.utils.data.DataLoader,
    device: torch.device,
    precision: str,
    outliers: int,
    layout: torch.memory_format,
) -> Callable:
    """Function that takes steps with PyTorch's own operators,
    in float32 or bfloat16 and in a memory layout.
    """
    network = copy.deepcopy(network).to(device, memory_format=layout)
    optimizer = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, nesterov=True
    )

    def run():
        with operators(stock=True):
            for x, y in loader:
                x, y = x.to(device, memory_format=layout), y.to(device)
                step(network, optimizer, x, y, device, precision, outliers)

    return run


def part_training(
    args: argparse.Namespace, device: torch.device, precision: str, outliers: int = 0
) -> list[dict]:
    """Steps of training, or of fine-tuning, whose batches are made by
    the alternative's data path.
    """
    batch = args.train_batch + outliers
    network = models.build(args.arch, 10, args.layers, args.widen_factor)
    images = random_set(steps_of(device) * batch)
    plain = {
        "eager fp32 NCHW, stock operators, PIL": ("fp32", torch.contiguous_format),
        "  + channels_last": ("fp32", torch.channels_last),
    }
    if precision == "bf16":
        plain["  + channels_last, bf16 autocast"] = (precision, torch.channels_last)
    loader = pil_loader(images, batch, augment=True, workers=WORKERS.get(device.type, 8))
    alternatives = {
        name: plain_steps(network, loader, device, kind, outliers, layout)
        for name, (kind, layout) in plain.items()
    }
    loss = losses_of("tune")["sroe"]() if outliers else losses_of("pretrain")["ce"]()
    inside = random_set(steps_of(device) * args.train_batch)
    ours = Steps(network, inside, loss, (args.train_batch, outliers), device, precision)
    alternatives[f"this project, {precision}"] = ours.run
    name = f"training step, batch {batch}"
    if outliers:
        name = f"fine-tuning step, batch {args.train_batch} + {outliers}"
    return compare(name, alternatives, len(images), args.rounds, device)


def part_tuning(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of the fine-tuning step: ID images and twice as many outliers in one pass."""
    return part_training(args, device, precision, outliers=2 * args.train_batch)
