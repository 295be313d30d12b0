"""Speed and memory of this project against plain code on the same machine:
``python -m utils.benchmark [--parts ...] [--out FILE]``.

Every alternative of a part is timed in turn, round after round, in one process, so that a machine
whose speed drifts slows all of them alike; each row has the median over the rounds and its ratio to
the part's first row, the plain alternative: eager float32 NCHW convolutions, stock dropout, a PIL
DataLoader, scikit-learn's metrics. ONNX Runtime and OpenVINO are timed where they are installed.
Weights and images are random: speed does not depend on them. The parts "evaluation", "processes" (whole
processes) and "accuracy" (bfloat16 against float32 on real images) are in files of their own.
"""

import argparse
import copy
import sys
from collections import deque
from functools import partial

import numpy as np
import torch

import models
from utils import loaders, runtime
from utils.metrics import detection_metrics
from utils.training import options

from .accuracy import format_accuracy, measure_accuracy
from .evaluation import part_evaluation
from .measure import compare, folded, passes, random_set
from .peers import SIZES, parse_peers, part_peers
from .plain import RUNTIMES, operators, pil_loader, sklearn_metrics, that_work
from .processes import part_processes
from .steps import part_losses, part_memory, part_training, part_tuning, part_views


def part_data(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of the data path: training batches of 128, flipped, cropped and normalised."""
    images = random_set(1280)
    ours = loaders.Batches(images, 128, device, augment=True)
    plain = pil_loader(images, 128, augment=True)
    return compare(
        "data path, batch 128",
        {
            "torchvision PIL DataLoader": lambda: deque(plain, maxlen=0),
            "this project": lambda: deque(ours.epoch(torch.Generator().manual_seed(0)), maxlen=0),
        },
        len(images),
        args.rounds,
        device,
    )


def part_metrics(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of the metrics of as many ID as OOD scores;
    one np.argsort of both is the least that any route can take.
    """
    rng = np.random.default_rng(0)
    inner, outer = rng.normal(size=args.scores), rng.normal(1, 1, size=args.scores)
    joined = np.concatenate([inner, outer])
    sklearn_metrics(inner[:9], outer[:9])  # imports
    return compare(
        f"metrics, {args.scores:,} + {args.scores:,} scores",
        {
            "scikit-learn": lambda: sklearn_metrics(inner, outer),
            "one np.argsort": lambda: np.argsort(joined),
            "this project": lambda: detection_metrics(inner, outer),
        },
        2 * args.scores,
        args.rounds,
        torch.device("cpu"),
    )


def part_inference(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of a forward pass of each batch size, in evaluation mode."""
    rows, network = [], models.build(args.arch, 10, args.layers, args.widen_factor).eval()
    plain = network.requires_grad_(False).to(device)
    for batch in args.batch:
        model = runtime.prepare(copy.deepcopy(plain), device)
        x = torch.randn(batch, 3, 32, 32, device=device)
        compiled = folded(model, x.shape[1:], device, precision)
        if compiled is None:
            part = x[: runtime.inference_batch(batch, device)]
            with torch.inference_mode(), runtime.autocast(device, precision):
                compiled = runtime.compile_inference(
                    model, part.contiguous(memory_format=torch.channels_last)
                )
        ours = {f"this project, {precision}, eager": model}
        if compiled is not model:
            ours[f"this project, {precision}, compiled"] = compiled
        makers = {
            name: lambda plain, x, name=name, network=network: (
                name,
                passes(network, x, device, precision),
            )
            for name, network in ours.items()
        }
        makers |= RUNTIMES if device.type == "cpu" else {}
        alternatives = {"eager fp32 NCHW": partial(plain_pass, plain, x)}
        alternatives |= that_work(makers, plain, x)
        rows += compare(f"inference, batch {batch}", alternatives, batch, args.rounds, device)
    return rows


def plain_pass(model: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits, features) by PyTorch's own operators."""
    with torch.inference_mode(), operators(stock=True):
        return model(x)


PARTS = {
    "data": part_data,
    "metrics": part_metrics,
    "inference": part_inference,
    "training": part_training,
    "tuning": part_tuning,
    "losses": part_losses,
    "views": part_views,
    "memory": part_memory,
    "processes": part_processes,
    "peers": part_peers,
    "evaluation": part_evaluation,
}


HEADER = f"{'':38}{'what':42}{'per second':>12}{'ratio':>8}{'spread':>8}{'peak MiB':>10}"


def format_row(row: dict) -> str:
    """A row as a line of the printed table."""
    spread = "-" if row["spread"] is None else f"{row['spread']:.0%}"
    peak = "-" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}"
    return (
        f"{row['part']:38}{row['what']:42}{row['rate']:12,.0f}{row['ratio']:8.2f}"
        f"{spread:>8}{peak:>10}"
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options.Parser(prog="python -m utils.benchmark", description=__doc__)
    add, some = parser.add_argument, {"type": options.positive_int}
    parts = (*PARTS, "accuracy")
    add("--parts", nargs="+", choices=parts, default=parts)
    add("--rounds", **some, default=7, help="of every part but evaluation and accuracy")
    add("--batch", **some, nargs="+", default=[200, 1000], help="of inference")
    told = "of training; fine-tuning adds 2 outliers an image"
    add("--train-batch", **some, default=128, help=told)
    add("--scores", **some, default=1_000_000, help="scores a side of the metrics")
    told = "ID test images of the evaluation; with 5 N training and 6 sets of 0.3 N OOD images"
    add("--evaluation-images", **some, default=1000, metavar="N", help=told)
    told = "as test.py --score; of the parts evaluation and peers"
    add("--evaluation-scores", default="all", metavar="LIST", help=told)
    told = "training features and images to score of the part peers (default 50000x128x10000 200000x512x5000)"
    form = "IMAGESxWIDTHxQUERIES"
    add("--peers", type=parse_peers, nargs="+", default=SIZES, metavar=form, help=told)
    told = "folder of the real images of the part accuracy"
    add("--data", default=str(runtime.DATA), metavar="DIR", help=told)
    add("--arch", default="wrn")
    add("--layers", type=int, default=40)
    add("--widen-factor", type=int, default=2)
    add("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    add("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    add("--out", default=str(runtime.CIFAR / "results" / "benchmark.json"))
    args = parser.parse_args(argv)
    if args.evaluation_images < 10:
        parser.error(
            f"--evaluation-images {args.evaluation_images} is below 10: "
            "knn needs 50 training images"
        )
    try:
        models.build(args.arch, 10, args.layers, args.widen_factor)
    except ValueError as error:
        parser.error(str(error))
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    device = runtime.pick_device(args.device)
    precision = runtime.pick_precision(args.precision, device)
    record = {
        "rows": [],
        "accuracy": None,
        "arguments": {key: runtime.portable(value) for key, value in vars(args).items()},
        "precision": precision,
        "machine": runtime.describe_machine(device),
    }
    print(HEADER)
    for part in args.parts:
        if part == "accuracy":
            try:
                record["accuracy"] = measure_accuracy(args.data, device)
                print(format_accuracy(record["accuracy"]))
            except runtime.UserError as error:
                print(f"accuracy is left out: {error}")
        else:
            rows = PARTS[part](args, device, precision)
            record["rows"] += rows
            print("\n".join(map(format_row, rows)), flush=True)
        runtime.write_json(args.out, record)  # what has been measured outlives a part that fails


if __name__ == "__main__":
    # a plain user's process has malloc as it comes
    sys.exit(runtime.run(main, keep_memory=False))
