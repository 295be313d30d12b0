"""Figures from plain arrays and dicts, each written as PNG and SVG;
the same input gives the same bytes.

Every function takes ``path_stem``, the path without a suffix, and returns the two paths it wrote.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from .drawing import (
    BINS,
    BLUE,
    COLOURS,
    DASHED,
    DASHES,
    GREEN,
    ORANGE,
    as_numbers,
    draw_scores,
    draw_stairs,
    new_figure,
    save_figure,
    score_window,
    styled,
)

NEAR_ZERO = 0.01  # features below it count as zero
SHOWN = {"ce": "cross-entropy", "l1": "L1 norm"}  # terms of a loss, as a legend has them
Values = Sequence | np.ndarray  # numbers, or their text in a CSV file


def draw_density(
    ax: Axes, id_scores: np.ndarray, ood_scores: np.ndarray, window: tuple[float, float]
) -> None:
    """Normalised histograms of ID (N,) and OOD (M,); scores that are not finite are
    counted in a note, not drawn.
    """
    edges = np.linspace(*window, BINS + 1)
    draw_scores(ax, id_scores, edges, BLUE, "ID")
    draw_scores(ax, ood_scores, edges, ORANGE, "OOD")
    lost = np.sum(~np.isfinite(id_scores)) + np.sum(~np.isfinite(ood_scores))
    if lost:
        at = {"transform": ax.transAxes, "ha": "right", "va": "top"}
        ax.text(0.99, 0.93, f"{lost} not finite", **at, fontsize=9)
    # An observed score (the 9,500th of 10,000), not one between two: infinite scores stay legal.
    threshold = np.quantile(id_scores, 0.95, method="inverted_cdf") if len(id_scores) else np.nan
    if np.isfinite(threshold):
        ax.axvline(threshold, **DASHED, label="95 % of ID lie to the left")
    ax.set(xlim=window, ylim=(0, None))
    ax.locator_params(axis="y", nbins=3)
    ax.locator_params(axis="x", nbins=6)


@styled
def plot_densities(
    groups: list[tuple[str, Mapping[str, Values]]], path_stem: str | Path, score_name: str
) -> tuple[Path, ...]:
    """Density of the ID scores against each OOD set: a row a set,
    a column a method, one x axis a method.

    groups: list of (title, {"ID": scores (N,), ood name: scores (M,), ...}), larger = more OOD;
    score_name: the x label. Scores that are infinite, NaN, constant or tied draw too. Source: the
    density figures of "Improving Energy-based OOD Detection by Sparsity Regularization" (PAKDD
    2022), here with a histogram in place of a kernel estimate, which would smear the spikes of
    softmax scores.
    """
    groups = [
        (title, {k: np.asarray(v, dtype=np.float64).ravel() for k, v in sets.items()})
        for title, sets in groups
    ]
    names = list(dict.fromkeys(k for _, sets in groups for k in sets if k != "ID"))
    fig = new_figure(1.15 * len(names) + 1.1)
    axes, labelled = fig.subplots(len(names), len(groups), squeeze=False), set()
    for column, (title, sets) in zip(axes.T, groups):
        window, last = score_window(sets.values()), None
        column[0].set_title(title, fontweight="bold")
        for ax, name in zip(column, names):
            ax.set_axis_off()
            if name in sets:
                last = ax
                ax.set_axis_on()
                draw_density(ax, sets.get("ID", np.empty(0)), sets[name], window)
                ax.tick_params(labelbottom=False)
                ax.set_ylabel("" if name in labelled else name)
        if last is not None:
            last.tick_params(labelbottom=True)
            last.locator_params(axis="x", nbins=4)  # of numbers with a point more would overlap
        labelled |= set(sets)
    fig.supxlabel(score_name, fontsize=10)
    fig.supylabel("Density", fontsize=10)
    entries = {}
    for ax in fig.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    fig.legend(entries.values(), entries, loc="outside upper center", ncols=3)
    return save_figure(fig, path_stem)


@styled
def plot_roc(
    curves: Mapping[str, tuple[Values, Values]], path_stem: str | Path, title: str | None = None
) -> tuple[Path, ...]:
    """ROC curves with the 95 % line. curves: {label: (OOD accepted (K,),
    ID accepted (K,))}, shares in [0, 1].
    """
    fig = new_figure(5.0, 6.4)
    ax = fig.subplots()
    for k, (label, shares) in enumerate(curves.items()):
        fpr, tpr = (100 * np.asarray(share, dtype=float) for share in shares)
        dash = DASHES[k // len(COLOURS) % len(DASHES)]
        style = {"color": COLOURS[k % len(COLOURS)], "linestyle": dash, "clip_on": False}
        ax.plot(fpr, tpr, label=label, **style)
    ax.plot([0, 100], [0, 100], color="#888888", linewidth=1, linestyle=":", label="Chance")
    ax.axhline(95, **{**DASHED, "linewidth": 1}, zorder=1, label="95 % of ID accepted")
    ax.set(xlim=(0, 100), ylim=(0, 100), title=title)
    ax.set(xlabel="OOD images accepted (%)", ylabel="ID images accepted (%)")
    ax.grid(True)
    frame = {"frameon": True, "framealpha": 0.9, "edgecolor": "none"}
    ax.legend(loc="lower right", ncols=1 + len(curves) // 10, **frame)
    return save_figure(fig, path_stem)


def draw_bar_panel(ax: Axes, cells: list[np.ndarray]) -> None:
    """One horizontal bar a cell (mean, sd); NaN or a missing cell is written as n/a."""
    for y, (mean, sd) in enumerate(cells):
        if not np.isfinite(mean):
            ax.text(2, y, "n/a", va="center", fontsize=9, color="#555555")
            continue
        sd = sd if np.isfinite(sd) else 0.0
        ax.barh(y, mean, height=0.72, color=COLOURS[y % len(COLOURS)], alpha=0.85)
        if sd:
            ax.errorbar(mean, y, xerr=sd, color="black", linewidth=1, capsize=2)
        ax.text(mean + sd + 6, y, f"{mean:.1f}", va="center", fontsize=9)


@styled
def plot_bars(table: Mapping[str, Mapping[str, tuple]], path_stem: str | Path) -> tuple[Path, ...]:
    """FPR95: one panel a set, one bar a method, so that any number of methods stays readable.

    table: {method: {set: (mean, sd)}} in percent; sd may be None or NaN (no error bar),
    a set may be missing.
    """
    methods = list(table)
    names = list(dict.fromkeys(k for cells in table.values() for k in cells))
    columns = min(len(names), 8)
    rows = -(-len(names) // columns)
    fig = new_figure(rows * (0.62 + 0.25 * len(methods)) + 0.25)
    axes = fig.subplots(rows, columns, squeeze=False, sharey=True)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):  # the last row may have empty places
        cells = [table[m].get(name) or (None, None) for m in methods]
        draw_bar_panel(ax, [as_numbers(cell) for cell in cells])
        ax.set_title(name, loc="left", fontweight="bold" if name == "Average" else "normal")
        ax.set(xlim=(0, 155), xticks=(0, 50, 100), yticks=range(len(methods)))
        ax.set_yticklabels(methods)
        ax.set_ylim(len(methods) - 0.4, -0.6)
        ax.spines["bottom"].set_bounds(0, 100)
        ax.tick_params(axis="y", length=0)
        ax.grid(True, axis="x")
    fig.supxlabel("FPR95 (%)", fontsize=10)
    return save_figure(fig, path_stem)


@styled
def plot_sparsity(before: Values, after: Values, path_stem: str | Path) -> tuple[Path, ...]:
    """How sparse the features are before and after SR: per-image share of near-zero features,
    and mean activation of the sorted units.

    before, after: features (N,D) and (M,D), the head's input; near-zero is |h| < NEAR_ZERO; units
    are sorted by their own mean in each array, so that rank k need not be the same unit in both.
    """
    fig = new_figure(3.4)
    left, right = fig.subplots(1, 2)
    arrays = (("Pretrained", before, BLUE, "-"), ("SR", after, ORANGE, "--"))
    for label, features, colour, dash in arrays:
        features = np.atleast_2d(np.asarray(features, dtype=np.float64))
        share = 100 * (np.abs(features) < NEAR_ZERO).mean(axis=1)
        heights, edges = np.histogram(share, np.linspace(0, 100, 51))
        told = f"{label}: {share.mean():.1f} % on average"
        draw_stairs(left, 100 * heights / len(share), edges, colour, told, dash)
        mean = np.sort(features.mean(axis=0))[::-1]
        told = f"{label}: mean $\\|h\\|_1$ = {np.abs(features).sum(axis=1).mean():.3g}"
        right.plot(np.arange(1, len(mean) + 1), mean, color=colour, linestyle=dash, label=told)
    left.set(xlabel=f"Features with |h| < {NEAR_ZERO:g} (% of an image's)", xlim=(0, 100))
    left.set_ylabel("Images (%)")
    right.set(xlabel="Unit, sorted by its mean activation", xlim=(0, None))
    right.set_ylabel("Mean activation")
    for ax in (left, right):
        ax.grid(True)
        ax.set_ylim(top=1.28 * ax.get_ylim()[1])  # room for the legend above the curves
        ax.legend(loc="upper right")
    return save_figure(fig, path_stem)


@styled
def plot_training_curves(
    rows: list[Mapping],
    path_stem: str | Path,
    title: str | None = None,
    suffixes: Sequence[str] = (".png", ".svg"),
) -> tuple[Path, ...]:
    """Losses and ID test error over epochs. rows: dicts of the training CSV, with the columns
    epoch,time(s),train_loss,test_loss,test_error(%) as numbers or strings; an empty cell leaves a
    gap. Every further column is a term of the training loss, and a line; of them cross-entropy
    alone is what the test loss is.
    """
    columns = ("epoch", "time(s)", "train_loss", "test_loss", "test_error(%)")
    epoch, seconds, train, test, error = (
        as_numbers([row.get(column) for row in rows]) for column in columns
    )
    terms = [name for name in rows[0] if name and name not in columns]
    style = {"marker": "o" if len(rows) <= 20 else None, "markersize": 4}
    fig = new_figure(3.4)
    left, right = fig.subplots(1, 2)
    curves = [(train, BLUE, "-", "Train, all terms" if terms else "Train")]
    for k, name in enumerate(terms):
        colour, dash = COLOURS[2 + k % (len(COLOURS) - 2)], DASHES[2 + k % 2]
        values = as_numbers([row.get(name) for row in rows])
        curves.append((values, colour, dash, f"Train, {SHOWN.get(name, name)}"))
    curves.append((test, ORANGE, "--", "Test, cross-entropy" if terms else "Test"))
    for values, colour, dash, label in curves:
        left.plot(epoch, values, color=colour, linestyle=dash, label=label, **style)
    left.set(xlabel="Epoch", ylabel="Loss")
    left.legend(fontsize=8 if len(curves) > 4 else None)
    last = np.flatnonzero(np.isfinite(error))[-1:]
    label = f"last: {error[last[0]]:.2f} %" if len(last) else None
    right.plot(epoch, error, color=GREEN, label=label, **style)
    right.set(xlabel="Epoch", ylabel="ID test error (%)")
    if label:
        right.legend()
    for ax in (left, right):
        ax.grid(True)
        ax.margins(y=0.1)
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        ax.xaxis.get_major_locator().set_params(integer=True)
    spent = f"{np.nanmean(seconds):.0f} s an epoch" if np.isfinite(seconds).any() else None
    fig.suptitle(", ".join(filter(None, (title, spent))), fontsize=10)
    return save_figure(fig, path_stem, suffixes)


@styled
def plot_sweep(
    alphas: Values, curves: Mapping[str, Values], path_stem: str | Path, chosen: float | None = None
) -> tuple[Path, ...]:
    """One panel a quantity over SR's alpha, at equal distances so that 0 has a place too.

    alphas (A,); curves: {name with unit: (A,)}, for instance ID accuracy (%), mean L1, validation
    FPR95 (%); a NaN leaves a gap; chosen: the value to mark. No axis is shorter than 1.
    """
    values = np.asarray(alphas, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    values = values[order]
    turned = 45 if len(values) * len(curves) > 16 else 0
    fig = new_figure(3.0)
    panels = fig.subplots(1, len(curves), squeeze=False)[0]
    for k, (ax, (name, curve)) in enumerate(zip(panels, curves.items(), strict=True)):
        if len(curve) != len(values):
            raise ValueError(f"curve '{name}' has {len(curve)} values for {len(values)} alphas")
        style = {"marker": "o", "markersize": 5, "color": COLOURS[k % len(COLOURS)]}
        ax.plot(range(len(values)), as_numbers(curve)[order], **style)
        ax.set_xticks(range(len(values)), [f"{a:g}" for a in values], rotation=turned)
        ax.set(xlim=(-0.4, len(values) - 0.6), title=name)
        ax.margins(y=0.15)
        low, high = ax.get_ylim()
        if high - low < 1:  # less than a point: drawn as the small thing it is
            ax.set_ylim((low + high - 1) / 2, (low + high + 1) / 2)
        ax.grid(True)
        if chosen in values:
            ax.axvline(list(values).index(chosen), **DASHED, zorder=1)
    told = f" (dashed: {chosen:g}, chosen)" if chosen in values else ""
    fig.supxlabel(f"alpha, weight of the L1 norm{told}", fontsize=10)
    return save_figure(fig, path_stem)


@styled
def plot_heat(
    values: Values, columns: list[str], rows: list[str], path_stem: str | Path
) -> tuple[Path, ...]:
    """Mean FPR95: a cell for each value, dark = high, its number in it.

    values (R,C) in percent; a NaN is an empty cell. columns, rows: the labels.
    """
    values = np.asarray(values, dtype=np.float64)
    fig = new_figure(0.9 + 0.26 * len(rows))
    ax = fig.subplots()
    ax.imshow(values, cmap="viridis_r", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value > 50 else "black"
            ax.text(j, i, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=9)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    fig.supxlabel("Mean FPR95 over the OOD sets (%)", fontsize=10)
    return save_figure(fig, path_stem)
