"""--tune-scores sees ID training images and generated noise only,
and takes the best line of its grid.
"""

import dataclasses
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from utils import loaders
from utils.evaluation.case import load_validation
from utils.evaluation.network import Network
from utils.evaluation.validation import Validation, format_grid, noise_sets, tune_scores, varied
from utils.loaders import arrays, forms, readers
from utils.metrics import detection_metrics
from utils.runtime import UserError
from utils.scores import SCORES, choose


class Small(nn.Module):
    """A fixed random network: the mean colour of the four quarters, a hidden layer and a head."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.hidden, self.fc = nn.Linear(12, 20), nn.Linear(20, 6)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x):
        features = torch.relu(self.hidden(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)))
        return self.fc(features), features


@pytest.fixture(scope="module")
def train_set():
    return loaders.load("digits", "train")


@pytest.fixture
def network(tmp_path):
    return Network(Small(), "0" * 64, torch.device("cpu"), "fp32", cache=tmp_path)


def test_held_out_images_are_apart_from_those_fitted_on(network, train_set):
    validation = Validation(network, train_set)
    assert len(validation.id_set) == len(train_set) // 10
    assert len(validation.fit_outputs) + len(validation.id_set) == len(train_set)
    held = network.outputs(validation.id_set).features
    same = np.abs(held[:, None] - validation.fit_outputs.features[None]).max(axis=2).min(axis=1)
    assert (same > 1e-6).mean() > 0.9  # a few digits of the source are alike


def test_noise_is_no_ood_test_set_and_as_many_images(network, train_set):
    validation = Validation(network, train_set)
    fingerprints = {noise.fingerprint for noise in validation.ood}
    assert len(fingerprints) == 3
    for line in loaders.OOD_SETS["digits"]:
        assert loaders.load(line[0]).fingerprint not in fingerprints
    for noise in validation.ood:
        assert len(noise) == len(validation.id_set)
        assert noise.images.shape == validation.id_set.images.shape


def test_shuffled_pixels_keep_the_pixels(train_set):
    images = train_set.subset(np.arange(5))
    shuffled = next(noise for noise in noise_sets(images) if noise.name == "shuffled pixels")
    for before, after in zip(images.images, shuffled.images):
        assert torch.equal(
            before.flatten(1).sort(dim=1).values, after.flatten(1).sort(dim=1).values
        )


def test_no_image_set_is_opened(network, train_set, monkeypatch):
    def opened(*arguments, **keywords):
        pytest.fail("an image set was opened")

    for name, entry in loaders.DATASETS.items():
        monkeypatch.setitem(loaders.DATASETS, name, dataclasses.replace(entry, make=opened))
    for room, reader in ((forms, "form_of"), (arrays, "read_array"), (readers, "read_images")):
        monkeypatch.setattr(room, reader, opened)
    for trap in (
        lambda: loaders.load("gaussian"),
        lambda: loaders.load_id("digits", "test"),
        lambda: loaders.parse_ood("", "digits"),
        lambda: loaders.load("x", path=__file__),
    ):
        with pytest.raises(pytest.fail.Exception):
            trap()
    tuned, grids = tune_scores(choose("knn,msp", "digits"), network, train_set, "digits")
    assert [score.name for score in tuned] == ["knn", "msp"] and grids["knn"] and grids["msp"] == []


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, cls in SCORES.items()
        if cls.grid and name not in ("odin", "mahalanobis", "nci")
    ],
)
def test_best_line_of_the_grid_is_taken(network, train_set, name):
    validation = Validation(network, train_set)
    score, rows = validation.tune(choose(name, "digits")[0], "digits")
    assert rows
    best = min(rows, key=lambda row: (round(row["fpr95"], 6), -row["auroc"]))
    assert {key: score.hyper[key] for key in best["hyper"]} == best["hyper"]
    assert format_grid(score, rows).count("<- chosen") == 1


def test_impossible_lines_are_left_out(network, train_set):
    _, rows = Validation(network, train_set).tune(choose("knn", "digits")[0], "digits")
    assert all(row["hyper"]["k"] <= len(train_set) for row in rows)
    assert len(rows) < len(SCORES["knn"].grid["k"])


def test_what_the_user_has_set_is_not_searched(network, train_set):
    validation = Validation(network, train_set)
    score, rows = validation.tune(choose("knn:k=7", "digits")[0], "digits")
    assert score.k == 7 and rows == []
    score, rows = validation.tune(choose("gen:M=3", "digits")[0], "digits")
    assert score.M == 3 and rows and all(set(row["hyper"]) == {"gamma"} for row in rows)


def test_a_score_of_one_s_own_stays_one(network, train_set, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from utils.scores import SCORES\nclass Own(SCORES['knn']):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (own,) = choose("mine:Own", "digits")
    tuned, rows = Validation(network, train_set).tune(own, "digits")
    assert rows and tuned is not own and (tuned.own, tuned.name) == (True, own.name)


def test_too_few_training_images_are_refused(network, train_set):
    with pytest.raises(UserError, match="--tune-scores needs more"):
        Validation(network, train_set.subset(np.arange(1)))


def test_a_searched_percentile_counts_where_the_data_set_has_a_clip_value():
    (plain,), (typed,) = (choose(text, "imagenet") for text in ("react", "react:c=2"))
    assert varied(plain, "imagenet", {"p": 80.0}).hyper == {"p": 80.0, "c": 0.0}
    assert varied(typed, "imagenet", {"p": 80.0}).hyper == {"p": 80.0, "c": 2.0}


def test_validation_ood_images_take_the_place_of_noise(network, train_set, capsys, monkeypatch):
    monkeypatch.setattr(SCORES["knn"], "grid", {"k": (1, 100)})
    given = [loaders.load("gaussian"), loaders.load("blobs")]
    (tuned,), grids = tune_scores(choose("knn", "digits"), network, train_set, "digits", given)
    assert "against validation OOD images (gaussian, blobs)" in capsys.readouterr().out
    validation, slow = Validation(network, train_set), []
    for row in grids["knn"]:
        score = SCORES["knn"]("digits", **row["hyper"]).fit(validation.fit_outputs)
        inner = network.score(score, validation.id_set)
        found = [detection_metrics(inner, network.score(score, images)) for images in given]
        for key in ("fpr95", "auroc"):
            assert row[key] == pytest.approx(100 * np.mean([one[key] for one in found]))
        slow.append((row["fpr95"], -row["auroc"], row["hyper"]["k"]))
    assert min(slow)[:2] == next(line[:2] for line in slow if line[2] == tuned.k)


def test_validation_ood_images_are_no_test_images():
    file, tests = Path("net.pt"), [loaders.load("gaussian"), loaders.load("blobs")]
    args = Namespace(validation_ood="rademacher", protocol="paper", data="data", skip_bad=False)
    (found,) = load_validation({"dataset": "digits"}, file, args, tests)
    assert found.name == "rademacher" and found.images.shape[1:] == tests[0].images.shape[1:]
    args.validation_ood = "rademacher,blobs"
    with pytest.raises(UserError, match="'blobs' .* in common with the test set 'blobs'"):
        load_validation({"dataset": "digits"}, file, args, tests)
    args.validation_ood = None
    assert load_validation({}, file, args, tests) == []
    trained = {"validation_ood": [tests[1].describe()]}  # by tune.py, which measured margins on it
    told = "of 'blobs' are in the validation OOD set 'blobs' of net.pt"
    with pytest.raises(UserError, match=f"{len(tests[1])} of the {len(tests[1])} images {told}"):
        load_validation(trained, file, args, tests)
    some = tests[1].subset(np.array([3, 8, 9]))
    trained = {"validation_ood": [loaders.describe_used(some)]}
    with pytest.raises(UserError, match=f"3 of the {len(tests[1])} images {told}"):
        load_validation(trained, file, args, tests)
    assert load_validation(trained, file, args, tests[:1]) == []
