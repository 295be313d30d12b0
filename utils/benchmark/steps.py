"""The parts of training steps: "training" and "tuning" against PyTorch's own operators, "losses" and
"views" against one another, and "memory" with freed memory kept or not.
"""

import argparse
import copy
from collections import deque
from collections.abc import Callable

import torch

import models
from utils import loaders, runtime, training
from utils.losses import Batch, Loss, losses_of, sampling

from .apart import call_apart
from .measure import compare, folded, passes, random_set, rows_of, timed
from .plain import operators, pil_loader

# of a call, of which a loader's start is a part; on a GPU more, for its queue to be full
CPU_STEPS, STEPS = 2, 50
WORKERS = {"cpu": 0}  # of the plain loader: a CPU that trains has no core to spare; beside a GPU 8
NETWORKS = ("wrn", "resnet18", "densenet", "allconv")  # of the part "memory"
INFERENCE, TRAINING = "inference", "training step"
KINDS = {"malloc as it comes": False, "freed memory kept": True}


def take_step(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    batch: tuple,
    device: torch.device,
    precision: str,
) -> None:
    """One step of training on a batch (x, y, auxiliary outliers)."""
    x, y, x_out = batch
    with runtime.autocast(device, precision):
        logits, features = network(torch.cat([x, x_out]))
    optimizer.zero_grad(set_to_none=True)
    sum(loss(Batch(x, x_out, y, logits, features)).values()).backward()
    optimizer.step()


class Steps:
    """Steps of the training scripts with one loss on random images, from a network of its own."""

    def __init__(self, network, images, loss: Loss, sizes: tuple, device, precision: str):
        self.loss, self.device, self.precision = loss, device, precision
        batch, outliers = sizes
        self.args = argparse.Namespace(
            batch_size=batch,
            oe_batch_size=outliers,
            padding=4,
            outlier_padding=4,
            outlier_norm="id",
            seed=1,
            learning_rate=0.001,
            momentum=0.9,
            decay=1e-4,
        )
        own = copy.deepcopy(network)
        self.network = training.prepare_training(own, device, gradient=loss.gradient)
        loss.attach(self.network.feature_dim, device)
        self.optimizer = training.make_optimizer(self.network, loss, self.args)
        streams = runtime.Streams(1, "tune")
        beside = images if loss.outliers else None
        self.batches = loaders.TrainingBatches(images, beside, self.args, device, streams, loss)

    def draw(self) -> None:
        """The batches of an epoch, and nothing with them."""
        deque(self.batches.epoch(0), maxlen=0)

    def choose(self, batch: tuple, step: int) -> tuple:
        with runtime.autocast(self.device, self.precision):
            return sampling.choose_outliers(self.network, batch, self.args, step)

    def sample(self) -> None:
        """The choice of the outliers of each step alone."""
        for step, batch in enumerate(self.batches.epoch(0)):
            self.choose(batch, step)

    def run(self) -> None:
        """An epoch as baseline.py and tune.py take it."""
        self.network.train()
        for step, batch in enumerate(self.batches.epoch(0)):
            x, y, x_out = self.choose(batch, step) if self.loss.chooses_outliers else batch
            x.requires_grad_(self.loss.gradient), x_out.requires_grad_(self.loss.gradient)
            made = self.network, self.optimizer, self.loss
            take_step(*made, (x, y, x_out), self.device, self.precision)


def plain_steps(
    network: torch.nn.Module,
    loader: torch.utils.data.DataLoader,
    loss: Loss,
    device: torch.device,
    precision: str,
    outliers: int,
    layout: torch.memory_format,
) -> Callable:
    """Function that takes steps with PyTorch's own operators, in float32 or bfloat16 and in a memory
    layout; the last ``outliers`` images of a batch are auxiliary ones.
    """
    network = copy.deepcopy(network).to(device, memory_format=layout)
    optimizer = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, nesterov=True
    )

    def run():
        with operators(stock=True):
            for x, y in loader:
                x, y = x.to(device, memory_format=layout), y.to(device)
                inside = len(x) - outliers
                batch = x[:inside], y[:inside], x[inside:]
                take_step(network, optimizer, loss, batch, device, precision)

    return run


def part_training(
    args: argparse.Namespace, device: torch.device, precision: str, outliers: int = 0
) -> list[dict]:
    """Steps of training, or of fine-tuning with SROE, whose batches are made by
    the alternative's data path.
    """
    batch = args.train_batch + outliers
    network = models.build(args.arch, 10, args.layers, args.widen_factor)
    images = random_set(steps_of(device) * batch)
    loss = losses_of("tune")["sroe"]() if outliers else losses_of("pretrain")["ce"]()
    plain = {
        "eager fp32 NCHW, stock operators, PIL": ("fp32", torch.contiguous_format),
        "  + channels_last": ("fp32", torch.channels_last),
    }
    if precision == "bf16":
        plain["  + channels_last, bf16 autocast"] = (precision, torch.channels_last)
    loader = pil_loader(images, batch, augment=True, workers=WORKERS.get(device.type, 8))
    alternatives = {
        name: plain_steps(network, loader, loss, device, kind, outliers, layout)
        for name, (kind, layout) in plain.items()
    }
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


def part_losses(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of a fine-tuning step of GReg and of GReg+ against Energy's with as many outliers; of
    GReg+ also of the choice of its outliers alone.
    """
    network = models.build(args.arch, 10, args.layers, args.widen_factor)
    batch = max(args.train_batch // 2, 2)
    images, rows = random_set(steps_of(device) * batch), []
    for outliers, name in ((batch, "greg"), (2 * batch, "greg+")):
        steps: dict[str, Callable] = {}
        for one in ("energy", name):
            loss = losses_of("tune")[one]()
            made = Steps(network, images, loss, (batch, outliers), device, precision)
            title = loss.title + ", its sampling in it" * loss.chooses_outliers
            steps[title] = made.run
            if loss.chooses_outliers:
                steps["the sampling alone"] = made.sample
        part = f"step, batch {batch} + {outliers}"
        rows += compare(part, steps, len(images), args.rounds, device)
    return rows


def part_views(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of two views of each image: a pre-training step of SupCon and of ReweightOOD, with the
    peak memory of their large batch, and the making of the views alone.
    """
    network = models.build(args.arch, 10, args.layers, args.widen_factor)
    batch = 4 * args.train_batch
    images = random_set(steps_of(device) * batch)
    made = {
        name: Steps(network, images, losses_of("pretrain")[name](), (batch, 0), device, precision)
        for name in ("supcon", "reweightood")
    }
    alternatives = {steps.loss.title: steps.run for steps in made.values()}
    alternatives["the views alone"] = made["supcon"].draw
    part = f"step of two views, batch {batch}"
    return compare(part, alternatives, len(images), args.rounds, device)


def part_memory(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of every network in inference and in training, with malloc as it comes and with freed
    memory kept (``runtime.keep_freed_memory``), as the scripts have it.

    What malloc does is settled for a whole process, so that each row is a process of its own; the
    peak memory is the whole process's.
    """
    rows, shape = [], (args.layers, args.widen_factor)
    for arch in NETWORKS:
        for work, batch in ((INFERENCE, args.batch[0]), (TRAINING, args.train_batch)):
            given = (work, arch, *shape, batch, args.rounds, device.type, precision)
            seconds, peaks = {}, {}
            for kind, keep in KINDS.items():
                seconds[kind], _, peaks[kind] = call_apart("steps:time_work", *given, keep=keep)
            items = batch * (1 if work == INFERENCE else steps_of(device))
            rows += rows_of(f"memory, {work}, {arch}, batch {batch}", seconds, items, peaks)
    return rows


def time_work(
    work: str,
    arch: str,
    layers: int,
    widen_factor: int,
    batch: int,
    rounds: int,
    device: str,
    precision: str,
) -> list[float]:
    """Seconds of each round of one network and work in this process."""
    device = torch.device(device)
    network = models.build(arch, 10, layers, widen_factor)
    if work == TRAINING:
        images, loss = random_set(steps_of(device) * batch), losses_of("pretrain")["ce"]()
        run = Steps(network, images, loss, (batch, 0), device, precision).run
    else:
        model = runtime.prepare(network.eval().requires_grad_(False), device)
        x = torch.randn(batch, 3, 32, 32, device=device)
        run = passes(folded(model, x.shape[1:], device, precision) or model, x, device, precision)
    timed(run, device)  # warms up
    return [timed(run, device) for _ in range(rounds)]


def steps_of(device: torch.device) -> int:
    return CPU_STEPS if device.type == "cpu" else STEPS
