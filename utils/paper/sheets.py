"""Contact sheets, of verdicts and of images that sets share; verdicts' scores beside the threshold."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from utils.evaluation.verdicts import Verdicts, shorten, verdict

from .drawing import (
    BINS,
    BLUE,
    DASHED,
    ORANGE,
    draw_scores,
    new_figure,
    save_figure,
    score_window,
    styled,
)

COLUMNS, ROWS = 6, 2  # of either half of a contact sheet
PAIRS = 12  # pairs of sets on a sheet of shared images
FEW = 100  # images that are drawn as one line each in the histogram


@styled
def draw_sheet(found: Verdicts) -> Path:
    """The most in and the most out of the images, as the network gets them, with name, class,
    probability and score; returns the .png.
    """
    order, half = found.order, COLUMNS * ROWS
    blocks = {f"The {half} most in": order[:half], f"The {half} most out": order[-half:]}
    if len(order) <= 2 * half:
        blocks = {"All images, the most in first": order}
    columns = min(COLUMNS, max(map(len, blocks.values())))
    rows = [-(-len(places) // columns) for places in blocks.values()]
    fig = new_figure(0.6 + 1.95 * sum(rows) + 0.35 * len(blocks))
    told = f"in where the score is at most {found.threshold.value:.5g}"
    title = f"{found.label} on {shorten(found.images.name, 40)}: {told}"
    fig.suptitle(title, fontsize=10, parse_math=False)
    parts = np.atleast_1d(fig.subfigures(len(blocks), 1, height_ratios=rows))
    for part, count, (title, places) in zip(parts, rows, blocks.items()):
        part.suptitle(title, fontsize=10, fontweight="bold")
        grid = part.subplots(count, columns, squeeze=False).ravel()
        for ax in grid:
            ax.set_axis_off()
        for ax, i in zip(grid, places):
            ax.imshow(found.images.images[i].permute(1, 2, 0).numpy(), interpolation="nearest")
            lines = [shorten(found.names[i], 20), f"{found.scores[i]:.4g}: {verdict(found, i)}"]
            if found.classes:
                about = f"{shorten(found.classes[i], 14)} {found.probabilities[i]:.2f}"
                lines.insert(1, about)
            colour = BLUE if found.inside[i] else ORANGE
            ax.set_title("\n".join(lines), fontsize=8, color=colour, parse_math=False)
    return save_png(fig, f"{found.path}_sheet")


@styled
def draw_histogram(found: Verdicts) -> Path:
    """Densities of the ID test images' scores and of the images', with the threshold; few images
    are a line each. Returns the .png.
    """
    known, values = found.threshold.id_scores, found.scores
    window = score_window([known, values])
    fig = new_figure(3.2)
    ax, edges = fig.subplots(), np.linspace(*window, BINS + 1)
    draw_scores(ax, known, edges, BLUE, f"{len(known)} ID test images")
    name = f"{len(values)} of {shorten(found.images.name, 40)}"
    if len(values) > FEW:
        draw_scores(ax, values, edges, ORANGE, name)
    else:
        style = {"linewidth": 1.4, "transform": ax.get_xaxis_transform()}
        ax.vlines(np.clip(values, *window), 0, 0.12, ORANGE, label=name, **style)
    told = f"threshold {found.threshold.value:.5g}: {found.threshold.tpr:g} of ID to the left"
    ax.axvline(found.threshold.value, **DASHED, label=told)
    ax.set(xlim=window, ylim=(0, None), ylabel="density")
    ax.set_xlabel(f"{found.label}, larger = more OOD", parse_math=False)
    outside = int(len(values) - found.inside.sum())
    ax.set_title(f"{len(values) - outside} in, {outside} out", fontsize=10)
    for text in ax.legend().get_texts():
        text.set_parse_math(False)
    return save_png(fig, f"{found.path}_histogram")


@styled
def draw_shared(found: list, stem: Path) -> Path:
    """Pairs of images that two sets share, a row of them for each of the (record, sets, Shared) of
    pairs of sets: exact ones, then near ones from the most to the least alike; returns the .png.
    """
    found = sorted(found, key=lambda entry: -entry[0]["percent"])[:PAIRS]
    fig = new_figure(0.2 + 1.7 * len(found))
    parts = np.atleast_1d(fig.subfigures(len(found), 1))
    for part, (pair, sets, shared) in zip(parts, found):
        exact, near = np.flatnonzero(shared.exact >= 0), np.flatnonzero(shared.near >= 0)
        near = near[np.argsort(shared.difference[near], kind="stable")]
        few = exact[: COLUMNS // 2 if len(near) else COLUMNS]
        places = np.linspace(0, len(near) - 1, min(COLUMNS - len(few), len(near))).astype(int)
        sides = f"{shorten(pair['second'], 30)} above, {shorten(pair['first'], 30)} below"
        title = f"{sides}: {pair['exact']} exact, {pair['near']} near"
        part.suptitle(title, fontsize=9, parse_math=False)
        grid = part.subplots(2, COLUMNS, squeeze=False)
        for ax in grid.ravel():
            ax.set_axis_off()
        for (above, below), j in zip(grid.T, [*few, *near[places]]):
            other = shared.exact[j] if shared.exact[j] >= 0 else shared.near[j]
            for ax, images, place in ((above, sets[1], j), (below, sets[0], other)):
                ax.imshow(images.images[place].permute(1, 2, 0).numpy(), interpolation="nearest")
            title = "exact" if shared.exact[j] >= 0 else f"{shared.difference[j]:.2f}"
            above.set_title(title + ", mirrored" * bool(shared.mirrored[j]), fontsize=8)
    return save_png(fig, stem)


def save_png(fig: Figure, stem: str) -> Path:
    """``save_figure`` as PNG alone; a letter that the font lacks is a box, and no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        (path,) = save_figure(fig, stem, (".png",))
    return path
