"""Figures: files are written, the same input gives the same bytes, degenerate input still draws."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from utils.paper import drawing, plots

RANDOM = np.random.default_rng(0)
ID, OOD = RANDOM.normal(-8, 2, 300), RANDOM.normal(-4, 2, 100)
FEATURES = np.maximum(RANDOM.normal(size=(40, 16)), 0)
ROWS = [
    {
        "epoch": str(e),
        "time(s)": "3",
        "train_loss": f"{2 - e / 9}",
        "test_loss": f"{2.2 - e / 9}",
        "test_error(%)": f"{50 - 4 * e}",
    }
    for e in range(8)
]

DRAW = {
    "densities of one method": lambda stem: plots.plot_densities(
        [("SR", {"ID": ID, "svhn": OOD, "isun": OOD + 1})], stem, "Energy (larger = more OOD)"
    ),
    "densities of two methods": lambda stem: plots.plot_densities(
        [("Pretrained", {"ID": ID, "svhn": OOD}), ("SR", {"ID": ID, "isun": OOD})], stem, "Energy"
    ),
    "roc": lambda stem: plots.plot_roc({"svhn": ([0, 0.2, 1], [0, 0.9, 1])}, stem),
    "bars": lambda stem: plots.plot_bars(
        {"MSP": {"svhn": (48.5, 1.2)}, "SR": {"svhn": (17.6, None)}}, stem
    ),
    "sparsity": lambda stem: plots.plot_sparsity(FEATURES, FEATURES / 2, stem),
    "training": lambda stem: plots.plot_training_curves(ROWS, stem, "CIFAR-10"),
    "heat": lambda stem: plots.plot_heat([[4, 70], [np.nan, 9]], ["a", "b"], ["msp", "knn"], stem),
    "sweep": lambda stem: plots.plot_sweep(
        [0.02, 0, 0.1], {"ID accuracy (%)": [94, 95, 90]}, stem, chosen=0.02
    ),
}


@pytest.fixture
def figure(monkeypatch):
    """Hand a drawn figure over in place of writing it:
    ``figure(lambda: plot_x(..., "unused"))``.
    """
    monkeypatch.setattr(plots, "save_figure", lambda fig, *where: fig)
    return lambda draw: draw()


def bar_lengths(ax):
    return [patch.get_width() for patch in ax.patches]


@pytest.mark.parametrize("name", DRAW)
def test_png_and_svg_are_written_and_nothing_else(name, tmp_path):
    paths = DRAW[name](tmp_path / "v1.5" / "figure.one")
    assert sorted(p.name for p in paths) == ["figure.one.png", "figure.one.svg"]
    assert sorted(p.name for p in (tmp_path / "v1.5").iterdir()) == [
        "figure.one.png",
        "figure.one.svg",
    ]
    png, svg = paths
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


@pytest.mark.parametrize("name", ["densities of two methods", "bars"])
def test_the_same_input_gives_the_same_bytes(name, tmp_path):
    first, second = DRAW[name](tmp_path / "a"), DRAW[name](tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert b"<dc:date>" not in first[1].read_bytes()


def test_another_process_gives_the_same_bytes_without_a_display(tmp_path):
    code = (
        "import sys; from utils.paper import plots; assert 'matplotlib.pyplot' not in sys.modules; "
        "plots.plot_roc({'svhn': ([0, 0.2, 1], [0, 0.9, 1])}, sys.argv[1])"
    )
    root = Path(plots.__file__).parents[2]
    environment = {"MPLCONFIGDIR": str(tmp_path), "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b")], check=True, cwd=root, env=environment
    )
    here = DRAW["roc"](tmp_path / "a")
    assert [p.read_bytes() for p in here] == [
        (tmp_path / f"b{p.suffix}").read_bytes() for p in here
    ]


def test_the_callers_settings_neither_change_nor_matter(tmp_path):
    plain = DRAW["sweep"](tmp_path / "a")
    with matplotlib.rc_context({"font.size": 22, "svg.hashsalt": None, "axes.spines.top": True}):
        before = dict(matplotlib.rcParams)
        changed = DRAW["sweep"](tmp_path / "b")
        assert dict(matplotlib.rcParams) == before
    assert [p.read_bytes() for p in plain] == [p.read_bytes() for p in changed]


def test_a_failed_write_leaves_the_old_files(tmp_path, monkeypatch):
    png, svg = DRAW["roc"](tmp_path / "a")
    old = png.read_bytes(), svg.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("no")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="no"):
        DRAW["roc"](tmp_path / "a")
    assert (png.read_bytes(), svg.read_bytes()) == old
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "id_scores, ood_scores",
    [
        (np.ones(50), np.ones(20)),
        (np.full(50, -1.0), np.r_[np.full(19, -1.0), -0.3]),
        (np.full(50, 1e16), np.full(20, 1e16)),
        (np.r_[ID, np.inf, -np.inf, np.nan], np.full(20, np.inf)),
        (np.full(5, np.nan), np.full(5, -np.inf)),
        (np.r_[ID, 1e30], OOD),
        (np.array([1.0]), np.array([2.0])),
        (np.empty(0), np.empty(0)),
        ([1, 2, 3], np.float32([2, 2])),
    ],
)
def test_degenerate_scores_still_draw(id_scores, ood_scores, figure):
    fig = figure(
        lambda: plots.plot_densities(
            [("one", {"ID": id_scores, "svhn": ood_scores})], "unused", "score"
        )
    )
    fig.draw_without_rendering()
    assert np.all(np.isfinite([*fig.axes[0].get_xlim(), *fig.axes[0].get_ylim()]))


def test_a_density_has_area_one_and_counts_what_it_leaves_out(figure):
    sets = {"ID": np.r_[ID, np.nan, np.inf], "svhn": np.r_[ID, OOD]}
    ax = figure(lambda: plots.plot_densities([("one", sets)], "unused", "score")).axes[0]
    outlines = [p for p in ax.patches if p.get_label() in ("ID", "OOD")]
    areas = [np.sum(p.get_data().values * np.diff(p.get_data().edges)) for p in outlines]
    assert areas == pytest.approx([300 / 302, 1], abs=0.01)
    assert [t.get_text() for t in ax.texts] == ["2 not finite"]


def test_the_dashed_line_has_95_percent_of_id_to_its_left(figure):
    ax = figure(
        lambda: plots.plot_densities([("a", {"ID": ID, "svhn": OOD})], "unused", "score")
    ).axes[0]
    line = ax.lines[0].get_xdata()[0]
    assert np.mean(line >= ID) == pytest.approx(0.95, abs=1 / len(ID))


def test_the_x_axis_is_one_for_all_sets_of_a_method(figure):
    sets = {"ID": ID, "svhn": OOD, "isun": OOD + 30}
    other = {"ID": ID * 100, "svhn": OOD, "isun": OOD}
    axes = figure(lambda: plots.plot_densities([("a", sets), ("b", other)], "unused", "score")).axes
    assert axes[0].get_xlim() == axes[2].get_xlim() != axes[1].get_xlim() == axes[3].get_xlim()
    assert [axes[k].get_title() for k in (0, 1)] == ["a", "b"]
    assert [axes[k].get_ylabel() for k in (0, 2)] == ["svhn", "isun"]


def test_one_outlier_does_not_set_the_scale():
    low, high = plots.score_window([np.r_[np.linspace(0, 1, 5000), 1e9]])
    assert -0.1 < low < 0 and 1 < high < 1.1


def test_roc_is_drawn_in_percent(figure):
    ax = figure(lambda: plots.plot_roc({"lsun_c": ([0, 0.25, 1], [0, 0.5, 1])}, "unused")).axes[0]
    assert list(ax.lines[0].get_xdata()) == [0, 25, 100] and list(ax.lines[0].get_ydata()) == [
        0,
        50,
        100,
    ]
    assert ax.get_legend().get_texts()[0].get_text() == "lsun_c"


def test_a_bar_is_as_long_as_its_mean_and_a_missing_one_says_so(figure):
    table = {
        "MSP": {"svhn": (48.5, 1.0), "isun": (56.0, None)},
        "SR": {"svhn": (float("nan"), 0.1)},
    }
    svhn, isun = figure(lambda: plots.plot_bars(table, "unused")).axes
    assert bar_lengths(svhn) == [48.5] and bar_lengths(isun) == [56.0]
    assert [t.get_text() for t in svhn.texts] == ["48.5", "n/a"]
    assert [t.get_text() for t in isun.texts] == ["56.0", "n/a"]


def test_many_methods_and_sets_fit_the_page(figure):
    table = {f"score{k}": {f"set{s}": (k, 1) for s in range(11)} for k in range(9)}
    fig = figure(lambda: plots.plot_bars(table, "unused"))
    assert fig.get_figwidth() == drawing.WIDTH
    assert sum(len(ax.patches) == 9 for ax in fig.axes) == 11


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("features", [np.zeros((5, 4)), np.ones((1, 1)), -FEATURES])
def test_degenerate_features_still_draw(features, figure):
    fig = figure(lambda: plots.plot_sparsity(features, features, "unused"))
    fig.draw_without_rendering()
    assert [len(ax.lines) for ax in fig.axes] == [0, 2]


def test_sparsity_counts_features_near_zero(figure):
    before = np.array([[1.0, 0.0, 0.005, -2.0], [0.0, 0.0, 0.0, 3.0]])  # 50 % and 75 %
    fig = figure(lambda: plots.plot_sparsity(before, np.ones((3, 4)), "unused"))
    labels = [t.get_text() for t in fig.axes[0].get_legend().get_texts()]
    assert labels == ["Pretrained: 62.5 % on average", "SR: 0.0 % on average"]
    assert list(fig.axes[1].lines[0].get_ydata()) == sorted(before.mean(axis=0), reverse=True)


def test_training_has_a_line_for_each_term(figure):
    rows = [{**row, "ce": "1.0", "energy": "-2.0", "gradient": ".5"} for row in ROWS]
    left, right = figure(lambda: plots.plot_training_curves(rows, "unused")).axes
    told = {line.get_label(): line.get_ydata().tolist() for line in left.lines}
    assert list(told) == [
        "Train, all terms",
        "Train, cross-entropy",
        "Train, energy",
        "Train, gradient",
        "Test, cross-entropy",
    ]
    assert told["Train, energy"] == [-2.0] * 8 and told["Train, gradient"] == [0.5] * 8
    assert [text.get_text() for text in left.get_legend().get_texts()] == list(told)
    assert right.lines[0].get_ydata().tolist() == [float(row["test_error(%)"]) for row in ROWS]
    for ax in (left, right):
        low, high = ax.get_ylim()
        assert all(low < min(line.get_ydata()) for line in left.lines) or ax is right
        assert all(high > max(line.get_ydata()) for line in ax.lines)


@pytest.mark.filterwarnings("error")
def test_a_csv_of_one_epoch_or_with_empty_cells_draws(figure):
    rows = [{**ROWS[0], "time(s)": "", "test_error(%)": ""}, {**ROWS[1], "test_loss": "nan"}]
    fig = figure(lambda: plots.plot_training_curves(rows, "unused"))
    assert np.isnan(fig.axes[1].lines[0].get_ydata()[0]) and np.isnan(
        fig.axes[0].lines[1].get_ydata()[1]
    )
    assert not figure(lambda: plots.plot_training_curves(rows[:1], "unused")).axes[1].get_legend()


def test_a_sweep_is_sorted_by_its_values(figure):
    fig = figure(
        lambda: plots.plot_sweep(
            [0.1, 0, 0.02], {"L1": [1, 3, 2], "error": [7, 5, None]}, "unused", 0.1
        )
    )
    assert list(fig.axes[0].lines[0].get_ydata()) == [3, 2, 1]
    assert [t.get_text() for t in fig.axes[0].get_xticklabels()] == ["0", "0.02", "0.1"]
    assert fig.axes[0].lines[1].get_xdata()[0] == 2
    with pytest.raises(ValueError, match="3 values for 2 alphas"):
        plots.plot_sweep([0, 1], {"L1": [1, 2, 3]}, "unused")


def visible_texts(fig):
    """Every text of the figure, tick labels and legends included."""
    return [
        t for t in fig.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()
    ]


@pytest.mark.parametrize("name", DRAW)
def test_no_text_is_smaller_than_9_pt_and_no_axis_is_unnamed(name, figure):
    fig = figure(lambda: DRAW[name]("unused"))
    fig.draw_without_rendering()
    assert min(t.get_fontsize() for t in visible_texts(fig)) >= 9
    for ax in fig.axes:
        assert ax.get_xlabel() or fig.get_supxlabel()
