"""Training and test parts of one's own images: which are there, which is taken, what is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import coloured, noise, options, pack, write_images
from scipy.io import savemat

from utils import loaders
from utils.loaders.forms import matlab
from utils.runtime import UserError


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def tree(folder, parts, count=6, classes=3):
    """Class folders below each part's name; every image has its part's own colours."""
    made = {}
    for seed, part in enumerate(parts):
        images, labels = coloured(count, classes, 8, 10 + seed)
        write_images(folder / part, images, labels)
        made[part] = images[np.argsort(labels, kind="stable")]
    return made


def pixels(images):
    return images.images.permute(0, 2, 3, 1).numpy()


def pair(data, path, **more):
    return loaders.load_id_pair(options(data, id=str(path), image_size=8, **more))[:2]


@pytest.mark.parametrize(
    "parts, train, test",
    [
        (("train", "test"), "train", "test"),
        (("Train", "TEST"), "Train", "TEST"),
        (("train", "val"), "train", "val"),
        (("Training", "Validation"), "Training", "Validation"),
        (("train", "val", "test"), "train", "test"),
        (("train", "valid", "extra"), "train", "valid"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "zip", "zip with a folder around", "tar.gz"])
def test_each_split_gets_its_own_part(parts, train, test, form, tmp_path, data, capsys):
    home = tmp_path / "around" / "own"
    made = tree(home, parts)
    path = home
    if form != "folder":
        around = "around" in form
        path = tmp_path / f"own.{form.split()[0]}"
        pack(home.parent if around else home, path)
    found = pair(data, path)
    assert np.array_equal(pixels(found[0]), made[train])
    assert np.array_equal(pixels(found[1]), made[test])
    assert found[0].classes == found[1].classes == ("class_0", "class_1", "class_2")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mine (")]
    assert [train in lines[0], test in lines[1], "6 images" in lines[0]] == [True] * 3
    said = "as there is no test part" in lines[1]
    assert said is (test.lower() not in ("test",)) and "3 classes: class_0, class_1" in lines[0]


@pytest.mark.parametrize("there", ["train", "test", "val"])
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_one_part_is_never_taken_for_the_other(there, form, tmp_path, data):
    tree(tmp_path / "own", [there])
    path = tmp_path / "own"
    if form == "zip":
        path = pack(path, tmp_path / "own.zip") or tmp_path / "own.zip"
    missing = "test" if there == "train" else "train"
    with pytest.raises(UserError, match=rf"has no {missing} part; there is: \S*{there}.*--split"):
        pair(data, path)
    # OOD images and outliers have no such danger: what there is
    assert len(loaders.load("own", missing, data, path, 8)) == 6


def test_two_parts_of_one_kind_are_one_too_many(tmp_path, data):
    tree(tmp_path / "own", ["train", "val", "valid"])
    with pytest.raises(UserError, match="2 val parts, val, valid. Keep one"):
        pair(data, tmp_path / "own")


@pytest.mark.parametrize("part", ["", "train"])
def test_images_in_one_part_are_split_by_class(part, tmp_path, data):
    tree(tmp_path / "own", [part], count=30)
    with pytest.raises(UserError, match="--split 0.2"):
        pair(data, tmp_path / "own")
    train, test = pair(data, tmp_path / "own", split=0.2)
    assert (len(train), len(test)) == (24, 6)
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    everything = {
        image.tobytes() for image in pixels(loaders.load("own", "train", data, tmp_path / "own", 8))
    }
    halves = [{image.tobytes() for image in pixels(half)} for half in (train, test)]
    assert not halves[0] & halves[1] and halves[0] | halves[1] == everything
    assert len(test.names) == 6 and not set(test.names) & set(train.names)
    again = pair(data, tmp_path / "own", split=0.2)[1]
    assert again.fingerprint == test.fingerprint
    tree(tmp_path / "both", ["train", "test"])
    with pytest.raises(UserError, match="has a training and a test part"):
        pair(data, tmp_path / "both", split=0.2)


def test_the_class_is_the_first_folder_below_the_split(tmp_path, data):
    for split, seed in (("train", 1), ("test", 2)):
        images, labels = coloured(6, 2, 8, seed)
        for k, name in enumerate(("cat", "dog")):
            place = tmp_path / "own" / split / name / "images" / f"deep{k}"
            write_images(place, images[labels == k])
    train, test = pair(data, tmp_path / "own")
    assert train.classes == test.classes == ("cat", "dog")
    assert np.bincount(train.labels).tolist() == np.bincount(coloured(6, 2, 8, 1)[1]).tolist()


def test_a_test_part_without_labels_names_what_lies_beside(tmp_path, data):
    tree(tmp_path / "own", ["train", "val"])
    write_images(tmp_path / "own" / "test", noise(3, 8, 0))
    with pytest.raises(UserError, match="has no labels.*Beside it lies val"):
        pair(data, tmp_path / "own")


def test_classes_that_are_numbers_are_ordered_as_numbers(tmp_path, data):
    images = noise(24, 8, 0)
    for split in ("train", "test"):
        for k in range(12):
            part = images[12 * (split == "test") + k :][:1]
            write_images(tmp_path / "own" / split / str(k), part)
    train, _ = pair(data, tmp_path / "own")
    assert train.classes == tuple(map(str, range(12)))
    assert np.array_equal(pixels(train), images[:12]) is False  # files are read in their order
    for image, label in zip(pixels(train), train.labels.tolist(), strict=True):
        assert np.array_equal(image, images[label])


def test_one_class_is_nothing_to_train_on(tmp_path, data):
    for split, seed in (("train", 1), ("test", 2)):
        write_images(tmp_path / "own" / split / "only", noise(3, 8, seed))
    with pytest.raises(UserError, match="one class, only.*first folder below train/"):
        pair(data, tmp_path / "own")
    for split in ("train", "test"):  # whatever its label is
        np.savez(tmp_path / f"{split}.npz", images=noise(3, 8, len(split)), labels=[2, 2, 2])
    with pytest.raises(UserError, match="one class, 2: "):
        pair(data, tmp_path)


@pytest.mark.parametrize("labels", [[2.7, 1, 2], [np.nan, 1, 2], [1e300, 1, 2], [-1, 1, 2]])
def test_labels_of_a_mat_file_are_whole_numbers_in_range(labels, tmp_path):
    images = noise(3, 32, 0).transpose(1, 2, 3, 0)
    savemat(tmp_path / "test_32x32.mat", {"X": images, "y": np.array(labels)[:, None]})
    with pytest.raises(UserError, match="is not an SVHN .mat file .*labels are"):
        matlab.read_svhn(tmp_path / "test_32x32.mat")
    savemat(tmp_path / "good.mat", {"X": images, "y": np.array([[1.0], [10.0], [3.0]])})
    assert matlab.read_svhn(tmp_path / "good.mat")[1].tolist() == [1, 0, 3]


def test_a_run_is_tested_on_what_its_training_left(make_project, tmp_path):
    """The share is kept beside the weights: test.py takes the same images without being told."""
    project, own = make_project(), tmp_path / "own"
    tree(own, [""], count=30)
    project.refuse(f"baseline.py own --id {own} --epochs 1", "--split 0.2")
    small = "--layers 10 --widen-factor 1 --batch_size 8 --image-size 8 --device cpu"
    out = project.do(f"baseline.py own --id {own} --epochs 1 --split 0.2 {small}")
    error = float(out.split("ID error ")[1].split(" %")[0])
    scored = project.do(f"test.py -m own_wrn_pretrained --id {own} --ood gaussian --score msp")
    assert "6 for testing, by --split 0.2" in scored and f"ID error {error:.2f} %" in scored
    shutil.rmtree(own)
    assert not Path(own).exists()
