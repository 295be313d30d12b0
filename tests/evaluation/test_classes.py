"""Errors and rejections class by class, against loops."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils.evaluation.case import Rows
from utils.evaluation.classes import by_class, format_classes


def case_of(labels, logits, classes=("ant", "bee", "c\x1b[31mat", "dog")):
    images = SimpleNamespace(
        labels=None if labels is None else torch.from_numpy(labels), classes=classes
    )
    outputs = SimpleNamespace(logits=logits)
    return SimpleNamespace(
        sets=SimpleNamespace(id=images),
        network=SimpleNamespace(outputs=lambda asked: outputs),
        description={},
    )


def test_each_class_has_its_error_and_its_rejections():
    rng = np.random.default_rng(3)
    labels = rng.choice([0, 1, 3], 400, p=[0.6, 0.3, 0.1])
    logits = rng.normal(size=(400, 4)) + 2 * np.eye(4)[labels]
    energy, msp = rng.normal(size=400) + (labels == 3), rng.normal(size=400)
    found = Rows([{"score": "energy"}, {"score": "msp"}], {"energy/id": energy, "msp/id": msp}, {})
    rows = by_class(case_of(labels, logits), found)
    assert [row["class"] for row in rows] == ["ant", "bee", "dog"]
    for row, label in zip(rows, (0, 1, 3)):
        own = [i for i in range(400) if labels[i] == label]
        assert row["images"] == len(own)
        wrong = sum(logits[i].argmax() != label for i in own)
        assert row["error"] == pytest.approx(100 * wrong / len(own), abs=1e-4)
        for name, values in (("energy", energy), ("msp", msp)):
            threshold = sorted(values)[379]  # 380 of 400 do not exceed it
            above = sum(values[i] > threshold for i in own)
            assert row["rejected"][name] == pytest.approx(100 * above / len(own), abs=1e-4)
    total = sum(row["rejected"]["energy"] * row["images"] for row in rows) / 400
    assert total == pytest.approx(5, abs=1e-3)
    assert rows[2]["rejected"]["energy"] > rows[0]["rejected"]["energy"]
    text = format_classes(rows).splitlines()
    assert text[1].split()[-2:] == ["energy", "msp"] and len(text) == 5
    assert len({len(line) for line in text[1:]}) == 1  # columns are under one another


def test_without_labels_or_logits_nothing_is_claimed():
    found = Rows([{"score": "knn"}], {"knn/id": np.arange(4.0)}, {})
    assert by_class(case_of(None, np.zeros((4, 2))), found) is None
    rows = by_class(case_of(np.array([0, 0, 2, 2]), np.zeros((4, 0)), classes=None), found)
    assert [(row["class"], row["error"]) for row in rows] == [("0", None), ("2", None)]
    assert "unknown" in format_classes(rows)


def test_names_of_classes_do_not_reach_the_terminal_as_they_are():
    found = Rows([{"score": "knn"}], {"knn/id": np.arange(4.0)}, {})
    rows = by_class(case_of(np.array([2, 2, 2, 2]), np.eye(4)), found)
    assert "\x1b" not in format_classes(rows)
