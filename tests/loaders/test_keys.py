"""The parts inside one .npz, by Keras's and MedMNIST's keys; labels of shape (N,1)."""

import numpy as np
import pytest
from conftest import noise

from utils import loaders
from utils.loaders import load_id, name_or_path, parse_ood
from utils.runtime import UserError

FORMS = {"keras": ("x_{}", "y_{}"), "medmnist": ("{}_images", "{}_labels")}


def write(path, form, parts):
    """An .npz whose parts have each images of their own seed and labels (N,1), unsigned bytes."""
    arrays = {}
    for seed, part in enumerate(parts):
        images, labels = (key.format(part) for key in FORMS[form])
        arrays[images] = noise(4, 32, seed=seed)
        arrays[labels] = np.array([[0], [1], [1], [0]], np.uint8) ^ seed % 2
    np.savez(path, **arrays)
    return arrays


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parts, tested", [(("train", "val", "test"), 2), (("train", "val"), 1)])
def test_each_split_is_its_own_keys(form, parts, tested, tmp_path, capsys):
    arrays = write(tmp_path / "own.npz", form, parts)
    for split, index in (("train", 0), ("test", tested)):
        found = load_id("own", split, tmp_path, tmp_path / "own.npz")
        images, labels = (arrays[key.format(parts[index])] for key in FORMS[form])
        assert np.array_equal(found.images.permute(0, 2, 3, 1).numpy(), images)
        assert found.labels.tolist() == labels[:, 0].tolist()
    assert ("as there is no test part" in capsys.readouterr().out) == (tested == 1)


def test_a_part_that_is_not_there_is_not_replaced(tmp_path):
    write(tmp_path / "own.npz", "keras", ("train",))
    with pytest.raises(UserError, match="has no test part; there is: x_train"):
        load_id("own", "test", tmp_path, tmp_path / "own.npz")
    with pytest.raises(UserError, match="has a training and a test part"):
        write(tmp_path / "both.npz", "keras", ("train", "test"))
        load_id("both", "test", tmp_path, loaders.Unsplit(tmp_path / "both.npz", 0.5))


def test_ood_sets_called_alike_are_told_apart_by_names(tmp_path):
    for number, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "test.npz", images=noise(2 + number, 32, seed=number))
    paths = [tmp_path / folder / "test.npz" for folder in "ab"]
    with pytest.raises(UserError, match="twice.*NAME=PATH"):
        parse_ood(f"{paths[0]},{paths[1]}", "digits", tmp_path)
    sets = parse_ood(f"first={paths[0]},second=folder:{paths[1]}", "digits", tmp_path)
    assert [(found.name, len(found)) for found in sets] == [("first", 2), ("second", 3)]


def test_a_path_with_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "p=3.npz", images=noise(2, 32, seed=0))
    assert name_or_path("p=3.npz") == ("p=3", "p=3.npz")
    assert loaders.load("p=3", path="p=3.npz", data=tmp_path).name == "p=3"
