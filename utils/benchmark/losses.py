"""The parts "losses" and "views": what a step of GReg, GReg+ and the losses of two views costs."""

import argparse
import copy
from collections import deque
from collections.abc import Callable

import torch

import models
from utils import loaders, runtime, training
from utils.losses import Batch, Loss, losses_of, sampling

from .measure import compare, random_set

# of a call, of which a loader's start is a part; on a GPU more, for its queue to be full
CPU_STEPS, STEPS = 2, 50


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
        loss = self.loss
        self.network.train()
        for step, batch in enumerate(self.batches.epoch(0)):
            x, y, x_out = self.choose(batch, step) if loss.chooses_outliers else batch
            x.requires_grad_(loss.gradient), x_out.requires_grad_(loss.gradient)
            with runtime.autocast(self.device, self.precision):
                logits, features = self.network(torch.cat([x, x_out]))
            self.optimizer.zero_grad(set_to_none=True)
            sum(loss(Batch(x, x_out, y, logits, features)).values()).backward()
            self.optimizer.step()


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


def steps_of(device: torch.device) -> int:
    return CPU_STEPS if device.type == "cpu" else STEPS
