"""Results that a stranger made: whoever shows, summarises or searches them shows what they are, or
refuses them in one line; what only lies beside them costs nothing.
"""

import json
import os

import pytest
from test_hostile import RECORDED, WRONG, changed, value_or_refused

from utils.evaluation import leaks, report
from utils.paper import results, summary, tables

NAME = "cifar10_wrn_pretrained_epochs15_msp+energy+odin+mahalanobis+dice.json"
KEPT = ("arguments", "protocol", "precision", "snapshot", "id", "ood", "scores")


def small():
    """A recorded result that enters the tables, of one score and one set, without what nobody
    reads.
    """
    found = json.loads((RECORDED / NAME).read_text())
    entry = {**found["scores"][0], "sets": found["scores"][0]["sets"][:1]}
    made = {key: found[key] for key in KEPT} | {"scores": [entry], "ood": found["ood"][:1]}
    unread = ("versions", "computed", "classes", "reference", "part")
    snapshot = {key: value for key, value in found["snapshot"].items() if key not in unread}
    return {**made, "arguments": {}, "snapshot": snapshot}


def without(content):
    """Copies of a record with each value in turn left out, as deep as records go."""
    for key in content:
        yield {k: v for k, v in content.items() if k != key}
        inner = content[key][0] if isinstance(content[key], list) and content[key] else content[key]
        for part in without(inner) if isinstance(inner, dict) else ():
            yield {**content, key: [part] if isinstance(content[key], list) else part}


def show(folder):
    """All that shows the results of a folder: the tables with their notes, then the summary."""
    measured = results.measured_results((folder,))
    tables.describe_notes(measured)
    for name in list(tables.TABLES)[:1]:
        tables.build(name, "cifar10", measured)
    return summary.lines_of(summary.read_results(folder))


def test_a_result_as_it_is_is_shown(tmp_path):
    (tmp_path / NAME).write_text(json.dumps(small()))
    assert len(results.measured_results((tmp_path,))) == 1 and len(show(tmp_path)) == 2


def test_a_result_that_lacks_something(tmp_path):
    for content in without(small()):
        (tmp_path / NAME).write_text(json.dumps(content))
        value_or_refused(show, tmp_path)


@pytest.mark.parametrize("shift", (0, 6, 12))
def test_a_result_of_other_values(tmp_path, shift):
    """Each of its values is another one; of the wrong ones three."""
    of_each = [list(changed(small(), wrong)) for wrong in (*WRONG, None, [{}], {"a": {}}, "a\nb")]
    for i in range(len(of_each[0])):
        content = of_each[(i + shift) % len(of_each)][i]
        (tmp_path / NAME).write_text(json.dumps(content))
        value_or_refused(show, tmp_path)


def test_what_lies_beside_results_is_not_waited_for(tmp_path, monkeypatch):
    """A pipe, an audit and a result of other content: none is one of these."""
    monkeypatch.setattr(leaks, "RESULTS", tmp_path)
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").write_bytes(b'\xff"pixels"')
    entries = [{"title": "a", "fingerprint": "f"}]
    for exact in ("x", float("inf"), [], None):
        pairs = [{"first": "a", "second": "a", "exact": exact}]
        (tmp_path / "audit.json").write_text(json.dumps({"sets": entries, "pairs": pairs}))
        assert leaks.audited() == {} and leaks.find_chosen([], "a", tmp_path) == []


def test_a_result_that_is_none_any_more_is_kept(tmp_path):
    """One that lacks what today's have is of another snapshot all the same."""
    old = {"snapshot": {"sha256": "a" * 64}, "scores": [{"score": "msp"}]}
    (tmp_path / "x.json").write_text(json.dumps(old))
    report.set_aside(tmp_path / "x", "b" * 64)
    assert json.loads((tmp_path / "x_aaaaaaaa.json").read_text()) == old
