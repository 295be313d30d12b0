"""How fitting and scoring grow with training images, feature width and classes, score by score.

    python -m utils.benchmark.growth      # some minutes of a quiet machine -> CIFAR/results, figures

On synthetic features; one of the three numbers changes, the others stay those of ``BASE``.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from utils.paper.drawing import COLOURS, DASHED, new_figure, save_figure, styled
from utils.runtime import CIFAR, describe_machine, print_note, run, write_json
from utils.scores import SCORES, Score
from utils.training.options import Parser, positive_int

from .measure import peak_memory
from .scores import make_outputs

BASE = {"images": 20_000, "width": 256, "classes": 100}
AXES = {"images": (5_000, 20_000, 80_000), "width": (64, 256, 1024), "classes": (10, 100, 300)}
MEASURED = {
    "fit_s": "fit, seconds",
    "score_ms": "score, ms an image",
    "peak_mib": "peak memory of both, MiB",
}
LONG = 5  # seconds after which a first call is not repeated
NAMED = 6  # scores of a row that have a colour: those that reach highest in it
CPU = torch.device("cpu")


def sizes() -> list[dict]:
    """Each size once: BASE, and what differs from it in one number."""
    found = [{**BASE, axis: value} for axis, values in AXES.items() for value in values]
    return [size for i, size in enumerate(found) if size not in found[:i]]


def fitted() -> list[Score]:
    """The scores that learn from training images, at their defaults."""
    return [make() for make in SCORES.values() if "train" in make.needs]


def measure(size: dict, queries: int) -> list[dict]:
    """A record of each score at a size: the memory that fitting and scoring add at their peak to the
    training features, and the seconds they take, the second time where the first was short.
    """
    train = make_outputs(size["images"], size["width"], 1, np.float32, size["classes"])
    images = make_outputs(queries, size["width"], 2, np.float32, size["classes"])
    records = []
    for score in fitted():
        times = []

        def both(score: Score = score, times: list = times) -> None:
            start = time.perf_counter()
            score.fit(train)
            fit = time.perf_counter()
            score.score(images)
            times.append((fit - start, time.perf_counter() - fit))

        try:
            peak = peak_memory(both, CPU)
            if sum(times[0]) < LONG:
                both()
        except ValueError as error:  # such as fewer dimensions than the score asks for
            print_note(f"{score.label} is left out at {size}: {error}")
            continue
        fit, scored = times[-1]
        record = {"score": score.name, **size, "fit_s": fit, "score_ms": 1000 * scored / queries}
        records.append({**record, "peak_mib": peak})
    return records


@styled
def draw_growth(records: list[dict], stem: Path) -> tuple[Path, ...]:
    """A row of panels a measure, a column a number that grows; both axes logarithmic, dashed: in
    proportion. The scores that reach highest in a row have a colour, the others are grey.
    """
    fig = new_figure(8.4)
    panels = fig.subplots(len(MEASURED), len(AXES), sharex="col", sharey="row")
    names = list(dict.fromkeys(record["score"] for record in records))
    for row, (key, title) in zip(panels, MEASURED.items()):
        top = {name: max(r[key] for r in records if r["score"] == name) for name in names}
        named = sorted(names, key=top.get)[::-1][:NAMED]
        for ax, (axis, values) in zip(row, AXES.items()):
            others = {other: BASE[other] for other in BASE if other != axis}
            there = [r for r in records if all(r[o] == value for o, value in others.items())]
            for name in sorted(names, key=top.get):
                line = sorted((r[axis], r[key]) for r in there if r["score"] == name)
                look = {"color": "#c4c4c4", "linewidth": 0.9}
                if name in named:
                    look = {"color": COLOURS[named.index(name)], "label": name, "marker": "."}
                ax.plot(*zip(*line), **look)
            middle = np.median([r[key] for r in there if r[axis] == values[0]])
            ax.plot(values, [middle * value / values[0] for value in values], **DASHED)
            ax.set(xscale="log", yscale="log")
            ax.set_xticks(values, [f"{value:,}" for value in values])
            ax.set_xticks([], minor=True)
            ax.grid(True)
        row[0].set_ylabel(title)
        handles, labels = row[0].get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: named.index(labels[i]))
        at = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        row[-1].legend([handles[i] for i in order], [labels[i] for i in order], **at)
    for ax, axis in zip(panels[-1], AXES):
        ax.set_xlabel({"images": "training images", "width": "feature width"}.get(axis, axis))
    return save_figure(fig, stem, (".png",))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m utils.benchmark.growth", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--queries", type=positive_int, default=500, help="images to score (default %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=CIFAR / "results" / "growth.json",
        help="the JSON file to write (default CIFAR/results/growth.json)",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        default=CIFAR / "figures" / "growth.png",
        help="the figure to draw (default CIFAR/figures/growth.png)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    print(
        f"{'score':<16}{'images':>9}{'width':>7}{'classes':>9}"
        + "".join(f"{m:>12}" for m in MEASURED)
    )
    records = []
    for size in sizes():
        for record in measure(size, args.queries):
            records.append(record)
            line = f"{record['score']:<16}{size['images']:>9}{size['width']:>7}{size['classes']:>9}"
            print(line + "".join(f"{record[m]:>12.3f}" for m in MEASURED), flush=True)
    made = {"base": BASE, "queries": args.queries, "records": records}
    write_json(args.out, {**made, "machine": describe_machine(CPU)})
    (figure,) = draw_growth(records, args.figure.with_suffix(""))
    print(f"written: {args.out}, {figure}")


if __name__ == "__main__":
    sys.exit(run(main))
