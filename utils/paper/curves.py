"""The figure of a training run, beside its CSV."""

import csv
from pathlib import Path

from utils.runtime import print_note


def draw_curves(log: Path) -> None:
    """Draw the CSV of a run as a .png of its name beside it: a line for each term of the loss over
    the epochs, and the ID test error. No figure where matplotlib is missing.

    A training does not fail at its figure: what goes wrong is told, and the run ends well.
    """
    try:
        from . import plots
    except ImportError:
        return
    try:
        with log.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        name = log.stem.removesuffix("_training_results")
        plots.plot_training_curves(rows, log.with_suffix(""), name, (".png",))
    except Exception as error:
        print_note(f"the figure of {log.name} has not been drawn: {error}")
