"""zscore(A+B): the expression, the sum against plain arithmetic, and what cannot be summed."""

import numpy as np
import pytest
from test_scores_features import PAIRS

from utils.runtime import UserError
from utils.scores import SCORES, choose, zscore


@pytest.mark.parametrize(
    "text,members",
    [
        ("energy+knn", ["energy", "knn"]),
        ("Energy+mahalanobis++", ["energy", "mahalanobis++"]),
        ("mahalanobis+++energy", ["mahalanobis++", "energy"]),
        ("dice+react+msp", ["dice+react", "msp"]),
        ("react+dice", ["react", "dice"]),
        (" knn:k=7 + energy:T=2", ["knn:k=7", "energy:T=2"]),
        ("gen:gamma=0.2,M=3+vim:D=2", ["gen:gamma=0.2,M=3", "vim:D=2"]),
        ("mahalanobis+mahalanobis++", ["mahalanobis", "mahalanobis++"]),
    ],
)
def test_a_sum_reads_as_its_members(text, members):
    first, total, last = choose(f"msp:,zscore({text}),maxlogit", "cifar10")
    assert [member.label for member in total.members] == members
    assert total.label == f"zscore({'+'.join(members)})" == choose(total.label)[0].label
    assert (first.label, last.label) == ("msp", "maxlogit")


def test_it_is_in_all_only_when_named():
    labels = [score.label for score in choose("all")]
    assert not any(label.startswith("zscore") for label in labels)
    assert choose("all,zscore(msp+knn)")[-1].label == "zscore(msp+knn)"


@pytest.mark.parametrize(
    "text,words",
    [
        ("zscore(energy)", "at least two"),
        ("zscore(energy+energy)", "at least two"),
        ("zscore(energy+knn", "of the form"),
        ("zscore()", "unknown score ''"),
        ("zscore(energy+nothing)", "unknown score 'nothing'"),
        ("zscore(energy+knn:k=x)", "not of type int"),
        ("zscore(energy+odin)", ":eps=0"),
        ("zscore(energy+zscore(knn+msp))", "of the form"),
    ],
)
def test_what_is_no_sum_is_one_line(text, words):
    with pytest.raises(UserError) as error:
        choose(text)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_each_member_counts_by_its_deviation_on_training_images(monkeypatch):
    monkeypatch.setattr(zscore, "IMAGES", 50)  # of 120: every third
    train, queries = PAIRS["random"]
    found = choose("zscore(energy+mahalanobis++)")[0].fit(train).score(queries)
    expected = 0
    for name in ("energy", "mahalanobis++"):
        score = SCORES[name]().fit(train)
        own = np.array([score.score(train.take(slice(i, i + 1)))[0] for i in range(0, 120, 3)])
        sd = np.sqrt(((own - own.sum() / 40) ** 2).sum() / 40)
        expected = expected + (score.score(queries) - own.sum() / 40) / sd
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_constant_member_is_divided_by_one():
    train, queries = PAIRS["random"]
    train = train.take(np.zeros(len(train), dtype=int))  # one image many times
    total = choose("zscore(energy+msp)")[0].fit(train)
    np.testing.assert_array_equal(total.stats["sd"], 1.0)
    assert np.isfinite(total.score(queries)).all()
