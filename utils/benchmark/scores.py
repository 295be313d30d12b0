"""Seconds and peak memory of the scores that keep the training features, on synthetic ones.

    python -m utils.benchmark.scores                    # both default sizes, five minutes
    python -m utils.benchmark.scores --sizes 1281167x2048 --queries 50000    # ImageNet, two hours

Each score is measured in a process of its own.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from utils.runtime import CIFAR, UserError, describe_machine, peak_memory, run, write_json
from utils.scores import SCORES, Outputs
from utils.scores.exact.blocks import slices
from utils.training.options import Parser, positive_int

from .apart import call_apart

METHODS = {
    "knn fp32": ("knn", {"bank": "fp32"}),
    "knn fp16": ("knn", {"bank": "fp16"}),
    "nnguide": ("nnguide", {}),
    "vim": ("vim", {}),
}
CLASSES = 100
# bytes of float32 features beyond which the features are made and kept in float16
HALF_ABOVE = 2**31
IMAGENET_ABOVE = 10**6  # training images beyond which the scores take their ImageNet defaults


def parse_size(text: str, form: str = "IMAGESxWIDTH") -> tuple[int, ...]:
    """ "50000x128" -> (50000, 128): training images x feature width, or what the form says."""
    try:
        numbers = tuple(int(number) for number in text.lower().split("x"))
    except ValueError:
        numbers = ()
    if len(numbers) != form.count("x") + 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form {form}, such as 50000x128")
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' has a number below 1")
    return numbers


def make_outputs(count: int, width: int, seed: int, dtype: type, classes: int = CLASSES) -> Outputs:
    """Outputs of ``count`` images, made by blocks in ``dtype``:
    noisy class centres after a ReLU, head = centres.
    """
    centres = np.random.default_rng(0).normal(size=(classes, width)).astype(np.float32)
    bias = np.zeros(classes, dtype=np.float32)
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    features = np.empty((count, width), dtype=dtype)
    logits = np.empty((count, classes), dtype=np.float32)
    for rows in slices(count):
        block = centres[labels[rows]] + rng.standard_normal(
            (rows.stop - rows.start, width), dtype=np.float32
        )
        features[rows] = np.maximum(block, 0, out=block)
        logits[rows] = block @ centres.T / width
    return Outputs(logits, features, labels, centres / width, bias)


def measure(method: str, count: int, width: int, queries: int) -> dict:
    """Fit and score one method once: a record of seconds and of this process's peak memory."""
    name, chosen = METHODS[method]
    dtype = np.float16 if 4 * count * width > HALF_ABOVE else np.float32
    train = make_outputs(count, width, 1, dtype)
    images = make_outputs(queries, width, 2, np.float32)
    score = SCORES[name]("imagenet" if count > IMAGENET_ABOVE else None, **chosen)
    start = time.perf_counter()
    score.fit(train)
    fitted = time.perf_counter()
    score.score(images)
    done = time.perf_counter()
    return {
        "method": method,
        "score": type(score)(None, **score.hyper).label,
        "images": count,
        "width": width,
        "queries": queries,
        "features_dtype": np.dtype(dtype).name,
        "features_mib": round(train.features.nbytes / 2**20, 1),
        "fit_s": round(fitted - start, 3),
        "score_s": round(done - fitted, 3),
        "peak_mib": round(peak_memory() / 2**20, 1),
    }


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m utils.benchmark.scores", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes",
        default="50000x128,200000x512",
        type=lambda text: [parse_size(size) for size in text.split(",")],
        help="IMAGESxWIDTH of the training features, comma-separated (default %(default)s)",
    )
    parser.add_argument(
        "--queries", type=positive_int, default=10000, help="images to score (default %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=CIFAR / "results" / "benchmark_scores.json",
        help="the JSON file to write (default CIFAR/results/benchmark_scores.json)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    print(
        f"{'method':<10}{'images':>9}{'width':>7}{'dtype':>9}{'features MiB':>14}{'fit s':>9}"
        f"{'score s':>9}{'peak MiB':>10}"
    )
    records = []
    for count, width in args.sizes:
        for method in METHODS:
            try:
                record, *_ = call_apart("scores:measure", method, count, width, args.queries)
            except UserError as error:
                raise UserError(
                    f"{method} at {count}x{width}: {error}. A negative exit status is a signal: "
                    "memory may be short. Run again with a smaller --sizes"
                ) from None
            records.append(record)
            line = f"{method:<10}{count:>9}{width:>7}{record['features_dtype']:>9}"
            line += f"{record['features_mib']:>14.0f}{record['fit_s']:>9.1f}"
            line += f"{record['score_s']:>9.1f}{record['peak_mib']:>10.0f}"
            print(line, flush=True)
    made = {"classes": CLASSES, "queries": args.queries, "records": records}
    write_json(args.out, {**made, "machine": describe_machine(torch.device("cpu"))})
    print(f"written: {args.out}")


if __name__ == "__main__":
    sys.exit(run(main))
