"""How the project's figures look and are written; what they have in common.

No pyplot: a Figure of its own needs no display and leaves the caller's matplotlib settings alone.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.runtime import write_bytes

# Okabe & Ito: told apart with every common colour blindness;
# without yellow, too pale on white, and grey for black.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#666666")
DASHES = ("-", "--", "-.", ":")
DASHED = {"color": "black", "linestyle": "--", "linewidth": 1.1}  # a threshold, a choice
WIDTH = 9.0  # inches; 900 px on a README page, where 9 pt then is 12.5 px
BINS = 70  # of a density
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "savefig.dpi": 200,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "ood",
}
styled = matplotlib.rc_context(STYLE)  # as a decorator: the settings hold during the call only


def new_figure(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


@styled
def save_figure(
    fig: Figure, path_stem: str | Path, suffixes: Sequence[str] = (".png", ".svg")
) -> tuple[Path, ...]:
    """Write ``path_stem``.png (200 dpi) and ``path_stem``.svg,
    each under a temporary name that is then renamed.

    Neither holds a date or a version, and SVG ids come from a fixed salt:
    the same figure gives the same bytes.
    """
    paths = []
    unwanted = {".png": ("Software",), ".svg": ("Date", "Creator")}
    for suffix in suffixes:
        buffer = io.BytesIO()
        fig.savefig(buffer, format=suffix[1:], metadata=dict.fromkeys(unwanted[suffix]))
        paths.append(Path(f"{path_stem}{suffix}"))
        write_bytes(paths[-1], buffer.getvalue())
    return tuple(paths)


def as_numbers(values: Iterable) -> np.ndarray:
    """Numbers or strings of a CSV file as float64; an empty cell or None
    becomes NaN, which leaves a gap.
    """
    return np.array([float(v) if v not in (None, "") else np.nan for v in values])


def score_window(scores_of_sets: Iterable[np.ndarray]) -> tuple[float, float]:
    """(low, high) with all finite scores but 0.1 % at either end,
    so that one outlier does not set the scale.
    """
    finite = np.concatenate([s[np.isfinite(s)] for s in scores_of_sets])
    if not len(finite):
        return 0.0, 1.0
    low, high = np.quantile(finite, (0.001, 0.999))
    # Constant scores: a window around the value. The relative term keeps bins
    # apart where float64 is coarse.
    room = 0.03 * (high - low) or 0.5 + 1e-6 * abs(low)
    return low - room, high + room


def draw_stairs(
    ax: Axes, heights: np.ndarray, edges: np.ndarray, colour: str, label: str, dash: str = "-"
) -> None:
    """A histogram's outline on its pale area."""
    ax.stairs(heights, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
    ax.stairs(heights, edges, color=colour, linestyle=dash, linewidth=1.4, label=label)


def draw_scores(ax: Axes, scores: np.ndarray, edges: np.ndarray, colour: str, label: str) -> None:
    """The density of scores (N,); those that are not finite lower it."""
    counts = np.histogram(scores[np.isfinite(scores)], edges)[0]
    draw_stairs(ax, counts / (max(len(scores), 1) * (edges[1] - edges[0])), edges, colour, label)
