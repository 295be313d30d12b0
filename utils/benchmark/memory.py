"""The part "memory": every network in inference and in training, with malloc as it comes and with
freed memory kept (``runtime.keep_freed_memory``), as the scripts have it.

What malloc does is settled for a whole process, so that each row is a process of its own:
``python -m utils.benchmark.memory --arch NAME --work WORK [--keep] ...`` is one.
"""

import argparse
import json
import sys

import torch

import models
from utils import runtime
from utils.losses import losses_of

from .losses import Steps, steps_of
from .measure import folded, passes, random_set, rows_of, run_apart, timed

NETWORKS = ("wrn", "resnet18", "densenet", "allconv")
INFERENCE, TRAINING = "inference", "training step"
KINDS = {"malloc as it comes": (), "freed memory kept": ("--keep",)}


def part_memory(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of each network and work; the peak memory is that of the whole process."""
    rows = []
    for arch in NETWORKS:
        for work, batch in ((INFERENCE, args.batch[0]), (TRAINING, args.train_batch)):
            command = ["-m", "utils.benchmark.memory", "--arch", arch, "--work", work]
            command += ["--batch", batch, "--rounds", args.rounds, "--layers", args.layers]
            command += ["--widen-factor", args.widen_factor]
            command += ["--device", device.type, "--precision", precision]
            found = {kind: run_apart([*command, *words]) for kind, words in KINDS.items()}
            seconds = {kind: json.loads(printed) for kind, (printed, _, _) in found.items()}
            peaks = {kind: peak for kind, (_, _, peak) in found.items()}
            items = batch * (1 if work == INFERENCE else steps_of(device))
            rows += rows_of(f"memory, {work}, {arch}, batch {batch}", seconds, items, peaks)
    return rows


def measure(args: argparse.Namespace) -> list[float]:
    """Seconds of each round of one network and work in this process."""
    device = torch.device(args.device)
    network = models.build(args.arch, 10, args.layers, args.widen_factor)
    if args.work == TRAINING:
        images = random_set(steps_of(device) * args.batch)
        loss = losses_of("pretrain")["ce"]()
        work = Steps(network, images, loss, (args.batch, 0), device, args.precision).run
    else:
        model = runtime.prepare(network.eval().requires_grad_(False), device)
        x = torch.randn(args.batch, 3, 32, 32, device=device)
        fast = folded(model, x.shape[1:], device, args.precision) or model
        work = passes(fast, x, device, args.precision)
    timed(work, device)  # warms up
    return [timed(work, device) for _ in range(args.rounds)]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m utils.benchmark.memory", description="One row of the part memory."
    )
    parser.add_argument("--arch", required=True)
    parser.add_argument("--work", required=True, choices=(INFERENCE, TRAINING))
    for number in ("batch", "rounds", "layers", "widen-factor"):
        parser.add_argument(f"--{number}", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--keep", action="store_true", help="keep what is freed")
    print(json.dumps(measure(parser.parse_args(argv))))


if __name__ == "__main__":
    # before the first tensor, and so before the words are parsed
    sys.exit(runtime.run(main, keep_memory="--keep" in sys.argv))
