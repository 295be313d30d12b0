"""Runs with other losses from one network, side by side."""

import json

import pytest
from test_rendered import cells, put
from test_tables import change

from utils.paper import beside, results


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RECORDED", tmp_path)
    return tmp_path


def put_run(folder, loss, label, value, parent="p", **changes):
    name = f"cifar10_wrn_s1_tune_{label}_{loss}_energy"
    path = put(folder, loss, value=value, name=name, scores=("energy",))
    recipe = json.loads(path.read_text())["snapshot"]["recipe"]
    change(
        path,
        snapshot__recipe={**recipe, **changes},
        snapshot__name=f"tune_{loss}/{label}",
        snapshot__parent_sha256=parent * 64,
    )
    return path


def test_runs_from_the_network_of_the_first_loss_stand_after_it(recorded):
    put(recorded, value=40.0)
    same = {"batch_size": 64, "oe_batch_size": 64, "m_in": -23.0, "m_out": -5.0}
    put_run(recorded, "greg", "same", 8.0, **same)
    put_run(recorded, "greg", "code", 9.0, **{**same, "m_in": -25.0})
    put_run(recorded, "energy", "same", 13.0, **same)
    put_run(recorded, "energy", "other", 1.0, parent="q", **same)
    put_run(recorded, "sr", "third", 2.0)
    text = beside.render_beside("cifar10", "greg", "energy")
    names = [line.split(" | ")[0].strip("| `") for line in text.splitlines()[2:]]
    assert names == ["pretrained/x", "tune_energy/same", "tune_greg/code", "tune_greg/same"]
    head = cells(text, "run")
    row = dict(zip(head, cells(text, "`tune_greg/code`")))
    assert row["`m_in`"] == "-25" and "`m_out`" not in row and "`batch_size`" not in row
    assert row["ID error"] == "8.00" and row["average"] == "9.00 / 90.00"
    assert row["average, published (greg)"].startswith("7.95")
    assert row["epochs"] == "15 + 15"
    assert dict(zip(head, cells(text, "`pretrained/x`")))["`m_in`"] == "-"
    assert cells(text, "`tune_energy/same`")[-1].startswith("13.11")


def test_without_a_run_of_the_first_loss_there_is_no_table(recorded):
    assert beside.render_beside("cifar10", "greg", "energy") == "Not measured yet."
    put(recorded)
    put_run(recorded, "energy", "a", 13.0)
    assert beside.render_beside("cifar10", "greg", "energy") == "Not measured yet."
