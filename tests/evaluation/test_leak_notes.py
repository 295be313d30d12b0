"""What test.py says of images that are in two sets, from fingerprints and pixels in memory."""

import json

import numpy as np
import pytest
from conftest import photographs, write_own

from utils import loaders
from utils.evaluation import leaks, options
from utils.evaluation.case import load_sets
from utils.evaluation.record import used


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder of audits, and nothing said yet."""
    (tmp_path / "recorded").mkdir()
    monkeypatch.setattr(leaks, "RESULTS", tmp_path)
    monkeypatch.setattr(leaks, "told", set())
    return tmp_path


def made(name, pixels):
    return loaders.make_set(pixels, None, name)


@pytest.fixture
def sets():
    """{name: ImageSet}: an OOD set with two ID test images and one training image, one without."""
    pixels = photographs(60, 0)
    mixed = pixels[30:40].copy()
    mixed[[0, 4]], mixed[7] = pixels[[3, 8]], pixels[25]
    return {
        "id": made("flowers", pixels[:20]),
        "train": made("flowers", pixels[20:30]),
        "mixed": made("mixed", mixed),
        "other": made("other", pixels[40:60]),
    }


def find(sets, ood, train=None, **description):
    return leaks.find_leaks(sets["id"], [sets[name] for name in ood], train, description)


def test_ood_images_that_are_id_images_are_counted(sets):
    found = find(sets, ["mixed", "other"], sets["train"])
    assert found == [
        {"set": "mixed", "also_in": "the ID test images", "images": 2, "of": 10},
        {"set": "mixed", "also_in": "the ID training images", "images": 1, "of": 10},
    ]


def test_the_test_images_among_those_of_training(sets):
    train = made("flowers", np.concatenate([photographs(60, 0)[18:30]]))
    assert find(sets, [], train) == [
        {"set": "flowers", "also_in": "the ID training images", "images": 2, "of": 20}
    ]


def test_an_ood_set_that_is_the_outliers_is_known_by_its_fingerprint(sets):
    outliers = sets["other"].describe()
    found = find(sets, ["other"], outliers=outliers, data_fingerprint=sets["train"].fingerprint)
    what = "the outliers of its training, other"
    assert found == [{"set": "other", "also_in": what, "images": 20, "of": 20}]
    found = find(sets, ["mixed", "train"], data_fingerprint=sets["train"].fingerprint)
    assert {"set": "flowers", "also_in": "the ID training images", "images": 10, "of": 10} in found


def test_what_an_audit_counted_is_known_without_the_images(sets, place):
    outliers = {"name": "web", "fingerprint": "ab" * 32}
    assert find(sets, ["other"], outliers=outliers) == []
    entries = [{"title": "o", **outliers}, {"title": "x", **sets["other"].describe()}]
    record = {"sets": entries, "pairs": [{"first": "o", "second": "x", "exact": 3, "near": 9}]}
    (place / "recorded" / "audit.json").write_text(json.dumps(record))
    (place / "audit_0.json").write_text("[]")  # none of --audit's
    (place / "audit_1.json").write_text("{")
    assert find(sets, ["other"], outliers=outliers) == [
        {"set": "other", "also_in": "the outliers of its training, web", "images": 3, "of": 20}
    ]


def test_images_that_hyper_parameters_were_chosen_on_are_known_later(sets, tmp_path, capsys):
    pixels = sets["other"].images.permute(0, 2, 3, 1).numpy()
    mine = made("mine", np.concatenate([pixels[:6], photographs(3, 9)]))
    folder = tmp_path / "results"
    folder.mkdir()
    record = {"snapshot": {"sha256": "a"}, "validation_ood": [used(mine)]}
    (folder / "net_knn.json").write_text(json.dumps(record))
    (folder / "other.json").write_text('["pixels"')
    (folder / "former.json").write_text(json.dumps({**record, "validation_ood": [mine.describe()]}))
    ood = [sets["other"], sets["mixed"]]
    found = leaks.find_chosen(ood, "a", folder)
    what = "'mine', on which net_knn has chosen hyper-parameters"
    assert found == [{"set": "other", "also_in": what, "images": 6, "of": 20}]
    leaks.note_leaks(found)
    assert f"6 of 20 images of other are also in {what}" in capsys.readouterr().err
    for sha256, place in (("b", folder), (None, folder), ("a", tmp_path / "none")):
        assert leaks.find_chosen(ood, sha256, place) == []


def test_a_note_is_one_line_and_said_once(sets, capsys):
    for _ in range(2):
        leaks.note_leaks(find(sets, ["mixed"], outliers=sets["mixed"].describe()))
    leaks.note_leaks(find(sets, ["other"]))
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "2 of 10 images of mixed are also in the ID test images" in err
    assert "all 10 images of mixed are also in the outliers of its training, mixed" in err


@pytest.mark.parametrize("words", [(), ("--harmonise", "75")])
def test_an_evaluation_looks_for_them_before_its_images_are_changed(tmp_path, capsys, words):
    own = np.load(write_own(tmp_path / "own") / "test.npz")["images"]
    np.savez(tmp_path / "pics.npz", images=np.concatenate([own[:3], photographs(4, 0, 8)]))
    np.savez(tmp_path / "web.npz", images=photographs(5, 1, 8))
    outliers = loaders.load("web", path=tmp_path / "web.npz")
    places = f"pics={tmp_path / 'pics.npz'},web={tmp_path / 'web.npz'}"
    args = ["--model", "m", "--id", str(tmp_path / "own"), "--ood", places, *words]
    description = {"dataset": "mine", "data": "mine", "num_classes": 3, "image_size": 8}
    description["outliers"] = outliers.describe()
    sets = load_sets(description, tmp_path / "m.pt", options.parse(args, ""), False)
    assert sets.leaks == (
        {"set": "pics", "also_in": "the ID test images", "images": 3, "of": 7},
        {"set": "web", "also_in": "the outliers of its training, web", "images": 5, "of": 5},
    )
    assert "3 of 7 images of pics" in capsys.readouterr().err
