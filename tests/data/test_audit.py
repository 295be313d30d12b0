"""data/download.py --audit: which sets it compares, what it counts, prints, writes and refuses."""

import csv
import json

import numpy as np
import pytest
from conftest import jpeg, photographs

from data import audit, download


@pytest.fixture
def images(tmp_path, monkeypatch):
    """(data folder, folder of results) with five parts of sets, some of which share images."""
    data = tmp_path / "data"
    train, test = photographs(30, 0), photographs(20, 1)
    outliers, svhn = photographs(25, 2), photographs(15, 3)
    test[[2, 5]] = train[[7, 8]]
    svhn[1], svhn[9] = jpeg(outliers[4]), test[0]
    labels = {"train": np.arange(30) % 10, "test": np.arange(20) % 10}
    for place, pixels in {
        "cifar10/train": train,
        "cifar10/test": test,
        "outliers/tiny_imagenet": outliers,
        "ood/svhn": svhn,
        "ood/places": photographs(12, 4),
    }.items():
        file = data / f"{place}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        extra = {"labels": labels[file.stem]} if "cifar10" in place else {}
        np.savez(file, images=pixels, **extra)
    monkeypatch.setattr(audit, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(audit.runtime, "CIFAR", tmp_path)
    return data, tmp_path / "results"


def run(data, *words):
    return download.main(["--audit", *words, "--data", str(data)])


def shared_of(record):
    return {
        (pair["second"], pair["first"]): (pair["exact"], pair["near"])
        for pair in record["pairs"]
        if pair["exact"] + pair["near"]
    }


def test_every_known_set_that_is_there_is_compared(images, capsys):
    data, results = images
    assert run(data) == 0
    record = json.loads((results / "audit.json").read_text())
    assert shared_of(record) == {
        ("cifar10 test", "cifar10 train"): (2, 0),
        ("svhn", "tiny_imagenet"): (0, 1),
        ("svhn", "cifar10 test"): (1, 0),
    }
    assert len(record["pairs"]) == 10 and [entry["role"] for entry in record["sets"]] == [
        "training",
        "outliers",
        *["test"] * 3,
    ]
    pair = next(p for p in record["pairs"] if p["second"] == "cifar10 test" and p["exact"])
    assert pair["percent"] == 10
    assert [(e["second"]["image"], e["first"]["image"]) for e in pair["examples"]] == [
        (2, 7),
        (5, 8),
    ]
    assert min(record["probes"]["found"].values()) >= 0
    assert record["probes"]["found"]["mirrored"] > 95
    rows = list(csv.DictReader((results / "audit.csv").open()))
    assert [(row["first"], row["second"], row["exact"], row["near"]) for row in rows] == [
        (p["first"], p["second"], str(p["exact"]), str(p["near"])) for p in record["pairs"]
    ]
    assert (results.parent / "figures" / "audit.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "7 of 10 pairs of sets share nothing" in out and "2=7, 5=8" in out and "1~4" in out


def test_sets_of_one_s_own_are_compared_with_known_ones(images, tmp_path, capsys):
    data, results = images
    np.savez(tmp_path / "own.npz", images=photographs(30, 0)[3:6])
    assert run(data, f"mine={tmp_path / 'own.npz'}", "cifar10") == 0
    (file,) = results.glob("audit_*.json")  # the whole audit's file is left alone
    found = shared_of(json.loads(file.read_text()))
    assert found[("mine", "cifar10 train")] == (3, 0)
    assert not {"svhn", "tiny_imagenet"} & {name for pair in found for name in pair}


def test_own_sets_in_the_data_folder_have_their_parts(images, capsys):
    data, results = images
    for part, seed in (("train", 5), ("test", 6)):
        (data / "flowers").mkdir(exist_ok=True)
        np.savez(data / "flowers" / f"{part}.npz", images=photographs(4, seed))
    assert run(data, "flowers") == 0
    record = json.loads(next(results.glob("audit_*.json")).read_text())
    assert [entry["title"] for entry in record["sets"]] == ["flowers train", "flowers test"]


def test_where_nothing_is_shared_there_is_no_sheet(images, capsys):
    data, results = images
    assert run(data, "places", "tiny_imagenet") == 0
    assert not (results.parent / "figures").exists()
    assert "1 of 1 pairs of sets share nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        (["nonsense"], "unknown data set 'nonsense'"),
        (["isun", "svhn"], "data set 'isun' (test) not found"),
        (["svhn"], "svhn alone is there"),
        (["mine=/nowhere/x", "svhn"], "/nowhere/x does not exist"),
        (["imagenet4"], "none is in"),
    ],
)
def test_what_is_not_there_is_one_line(images, words, said, capsys):
    assert run(images[0], *words) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1


def test_an_empty_data_folder_is_one_line(tmp_path, capsys):
    assert run(tmp_path) == 2
    err = capsys.readouterr().err
    assert "none is in" in err and "download.py" in err and len(err.splitlines()) == 1


def test_a_set_of_flat_images_has_nothing_to_be_found_again():
    flat = audit.loaders.make_set(np.zeros((3, 32, 32, 3), np.uint8), None, "flat")
    assert audit.found_again(flat) == {}
