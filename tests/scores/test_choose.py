"""--score: names, hyper-parameters, all, and a function of the user's own."""

import numpy as np
import pytest

from utils.runtime import UserError
from utils.scores import SCORES, Outputs, as_user_error, choose, format_list
from utils.scores.choose import split_specifications


@pytest.mark.parametrize(
    "text, parts",
    [
        ("energy", ["energy"]),
        ("knn:k=100,dice:p=85", ["knn:k=100", "dice:p=85"]),
        ("gen:gamma=0.1,M=50,msp", ["gen:gamma=0.1,M=50", "msp"]),
        ("dice+react:p=85,own:function", ["dice+react:p=85", "own:function"]),
        (" msp , energy ", ["msp", "energy"]),
    ],
)
def test_split(text, parts):
    assert split_specifications(text) == parts


def test_hyper_parameters_reach_the_score():
    knn, gen = choose("knn:k=7,gen:gamma=0.5,M=3", "cifar10")
    assert (knn.k, gen.gamma, gen.M) == (7, 0.5, 3)
    assert knn.label == "knn:k=7"


def test_M_is_the_ancestors_name_of_mahalanobis():
    found = choose("M,M:eps=0.1,zscore(M+energy)")
    assert [score.label for score in found[:2]] == ["mahalanobis", "mahalanobis:eps=0.1"]
    assert "mahalanobis" in [member.name for member in found[2].members]
    with pytest.raises(UserError, match="unknown score 'm'"):
        choose("m")


def test_all_is_every_score_and_mahalanobis_with_its_input_step():
    labels = [score.label for score in choose("all", "cifar10")]
    assert labels == [*SCORES, "mahalanobis:eps=0.0014"]


def test_T_and_noise_go_to_the_scores_that_have_them():
    energy, odin, maha, msp = choose("energy,odin,mahalanobis,msp", "cifar10", T=5.0, noise=0.002)
    assert energy.T == odin.T == 5.0 and odin.eps == maha.eps == 0.002 and not msp.hyper
    assert choose("odin:T=10", "cifar10", T=5.0)[0].T == 10.0


def test_defaults_per_data_set():
    assert choose("knn", "cifar10")[0].k == 50 and choose("knn", "imagenet")[0].k == 1000


@pytest.mark.parametrize(
    "text, words",
    [
        ("nonsense", "nonsense"),
        ("", "no score"),
        ("knn:k=zero", "k"),
        ("knn:q=3", "hyper-parameter"),
        ("knn:k", "knn"),
        ("knn:k=0", "k"),
        ("energy:T=-1", "T"),
        ("no_such_module:f", "no_such_module"),
        ("math:no_such", "no_such"),
        ("math:pi", "pi"),
    ],
)
def test_bad_specifications_say_what_is_wrong(text, words):
    with pytest.raises(UserError, match=words):
        choose(text, "cifar10")


def test_a_function_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "my_scores.py").write_text(
        "from utils.scores import Score\ndef negative_max(outputs):\n"
        "    return -outputs.logits.max(axis=1)\nclass Norm(Score):\n"
        "    name = 'norm'\n    needs = ('features',)\n    def score(self, outputs):\n"
        "        return -(outputs.features ** 2).sum(axis=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rng = np.random.default_rng(0)
    outputs = Outputs(rng.normal(size=(5, 3)), rng.normal(size=(5, 4)))
    own, norm = choose("my_scores:negative_max,my_scores:Norm", "cifar10")
    assert np.array_equal(own.score(outputs), choose("maxlogit")[0].score(outputs))
    assert np.array_equal(norm.score(outputs), -(outputs.features**2).sum(axis=1))
    assert own.label == "my_scores:negative_max"


def test_list_names_every_score_with_formula_needs_and_paper():
    text = format_list()
    for name, cls in SCORES.items():
        assert name in text and cls.formula in text and cls.paper.title in text
        assert (
            set(cls().needs) <= {"logits", "features", "head", "train", "gradient"} and cls().needs
        )


@pytest.mark.parametrize("text", [" all", "ALL", "all,", "msp,all", "all , knn:k=5"])
def test_all_is_understood_however_it_is_written(text):
    labels = [score.label for score in choose(text)]
    assert set(SCORES) <= set(labels) and len(labels) == len(set(labels))


def test_all_with_noise_has_mahalanobis_without_and_with_that_step():
    labels = [score.label for score in choose("all", noise=0.002)]
    assert (
        "mahalanobis" in labels and "mahalanobis:eps=0.002" in labels and "odin:eps=0.002" in labels
    )


def test_white_space_and_case_do_not_count():
    assert [score.label for score in choose(" KNN : k = 5 , Energy ")] == ["knn:k=5", "energy"]


def test_a_class_of_the_users_own_takes_hyper_parameters_and_is_never_cached(tmp_path, monkeypatch):
    (tmp_path / "class_scores.py").write_text(
        "from utils.scores import Score\nclass Power(Score):\n    defaults = {'p': 2.0}\n"
        "    needs = ('features',)\n    def score(self, outputs):\n"
        "        return (outputs.features ** self.p).sum(axis=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plain, cubed = choose("class_scores:Power,class_scores:Power:p=3")
    assert (plain.p, cubed.p) == (2.0, 3.0) and plain.label == "class_scores:Power"
    with pytest.raises(UserError, match="hyper-parameter"):
        choose("class_scores:Power:q=3")


def test_an_exception_in_a_score_of_the_users_own_names_its_line(tmp_path, monkeypatch):
    (tmp_path / "wrong_scores.py").write_text("def f(outputs):\n    return outputs.nope\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = choose("wrong_scores:f")[0]
    with (
        pytest.raises(UserError, match=r"wrong_scores:f.*AttributeError.*wrong_scores.py, line 2"),
        as_user_error(own),
    ):
        own.score(Outputs(np.zeros((2, 3)), np.zeros((2, 4))))
    with pytest.raises(AttributeError), as_user_error(choose("msp")[0]):
        choose("msp")[0].score(None)
