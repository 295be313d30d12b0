"""Growth of the fitted scores: each at every size once, the right sizes in a panel, a figure."""

import json

import numpy as np
import pytest

from utils.benchmark import growth
from utils.scores import SCORES


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(growth, "BASE", {"images": 80, "width": 8, "classes": 4})
    axes = {"images": (60, 80), "width": (8, 16), "classes": (3, 4)}
    monkeypatch.setattr(growth, "AXES", axes)
    few = [SCORES[name]() for name in ("knn", "she", "vim")]
    monkeypatch.setattr(growth, "fitted", lambda: few)


def test_one_number_changes_at_a_time_and_no_size_comes_twice():
    sizes = growth.sizes()
    differing = [sum(size[k] != growth.BASE[k] for k in size) for size in sizes]
    assert sorted(differing)[:2] == [0, 1] and max(differing) == 1
    assert len(sizes) == 1 + sum(len(set(v) - {growth.BASE[k]}) for k, v in growth.AXES.items())


def test_fitted_scores_are_those_that_learn_from_training_images():
    names = [score.name for score in growth.fitted()]
    assert {"knn", "vim", "mahalanobis", "react"} <= set(names)
    assert not {"msp", "energy", "odin"} & set(names)


def test_records_and_figure_of_a_small_run(small, tmp_path, capsys):
    files = {"--out": tmp_path / "growth.json", "--figure": tmp_path / "growth.png"}
    growth.main(["--queries", "5", *(str(word) for pair in files.items() for word in pair)])
    made = json.loads((tmp_path / "growth.json").read_text())
    records = made["records"]
    assert made["queries"] == 5 and made["machine"]["torch"]
    keys = [(r["score"], r["images"], r["width"], r["classes"]) for r in records]
    assert len(keys) == len(set(keys)) == 3 * 4
    assert all(r[key] > 0 for r in records for key in ("fit_s", "score_ms"))
    assert (tmp_path / "growth.png").stat().st_size > 10_000
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(records) + 1


def test_a_score_that_a_size_does_not_suit_is_left_out_with_a_note(small, monkeypatch, capsys):
    class Refuses(SCORES["she"]):
        def fit(self, train):
            raise ValueError("too few of them")

    monkeypatch.setattr(growth, "fitted", lambda: [Refuses(), SCORES["she"]()])
    records = growth.measure(growth.BASE, 5)
    assert [r["score"] for r in records] == ["she"]
    assert "too few of them" in capsys.readouterr().err


def test_lines_of_a_panel_are_of_its_number_alone(small, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(growth, "save_figure", lambda fig, *_: drawn.append(fig))
    records = [
        {"score": "a", **size, "fit_s": 1.0 * size["images"], "score_ms": 2.0, "peak_mib": 3.0}
        for size in growth.sizes()
    ]
    growth.draw_growth(records, tmp_path / "x")
    line = drawn[0].axes[0].lines[0]
    assert np.array_equal(line.get_xydata(), [[60, 60.0], [80, 80.0]])
    assert np.array_equal(drawn[0].axes[1].lines[0].get_xydata(), [[8, 80.0], [16, 80.0]])
