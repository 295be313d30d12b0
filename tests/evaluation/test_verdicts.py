"""In or out: the threshold, its file, the percentiles, the CSV and the pictures."""

import argparse
import csv
import json
import os

import numpy as np
import pytest
import torch
from conftest import noise, pack, write_images, write_own
from PIL import Image
from torch import nn

from utils import loaders, snapshots
from utils.evaluation import load, network, options, verdicts
from utils.evaluation.record import about_images
from utils.loaders import readers
from utils.paper import sheets
from utils.runtime import UserError, printable


class Tiny(nn.Module):
    """Means of the colour channels through a linear head."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.fc = nn.Linear(3, num_classes)
        self.fc.weight.data = 3 * torch.eye(3)
        self.fc.bias.data.zero_()

    def forward(self, x):
        features = x.mean((2, 3)) + 5
        return self.fc(features), features


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A snapshot of a network of one's own, its ID images, and a folder of images to judge."""
    monkeypatch.setattr(network, "CACHE", tmp_path / "cache")
    (tmp_path / "tinynet.py").write_text("from test_verdicts import Tiny as tiny\n")
    monkeypatch.syspath_prepend(tmp_path)
    about = {"arch": "tinynet:tiny", "num_classes": 3, "dataset": "mine", "data": "mine"}
    about |= {"image_size": 8, "classes": ["red", "green", "blue"]}
    file = tmp_path / "mine_tiny_epoch_0.pt"
    snapshots.save_snapshot(file, Tiny(), about)
    write_own(tmp_path / "own")
    write_images(tmp_path / "pics" / "test", noise(4, 8, 5))
    write_images(tmp_path / "pics", noise(3, 8, 6), ending=".bmp")
    return file


def judge(file, *words, images="pics"):
    folder = file.parent
    args = options.parse(
        [
            "--model",
            str(file),
            "--arch",
            "tinynet:tiny",
            "--id",
            str(folder / "own"),
            "--save",
            str(folder / "results"),
        ]
        + ["--data", str(folder / "data"), "--images", str(folder / images), *words],
        "",
    )
    return list(verdicts.judge(file, args))


def energies(pixels):
    """By hand, from uint8 (N,8,8,3)."""
    x = (pixels / 255 - np.array(loaders.MEAN)) / np.array(loaders.STD)
    return -np.log(np.exp(3 * (x.mean((1, 2)) + 5)).sum(axis=1))


def test_verdicts_by_hand_and_all_images_below_the_folder(world):
    (found,) = judge(world)
    known = np.sort(energies(np.load(world.parent / "own" / "test.npz")["images"]))
    assert found.threshold.value == pytest.approx(known[28], rel=1e-5)  # 29 of 30 are 95 %
    names = [f"00{i}.bmp" for i in range(3)] + [f"test/00{i}.png" for i in range(4)]
    assert found.names == names
    pixels = np.stack([np.asarray(Image.open(world.parent / "pics" / n)) for n in names])
    expected = energies(pixels)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.inside, expected <= known[28])
    below = [100 * sum(k <= e for k in known) / 30 for e in expected]
    np.testing.assert_allclose(found.percentiles, below)
    with open(verdicts.write_csv(found), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == names
    assert {row["class"] for row in rows} <= {"red", "green", "blue"}
    for row, value, inside in zip(rows, found.scores, found.inside):
        assert float(row["score"]) == value and (row["verdict"] == "in") == inside
        assert 1 / 3 <= float(row["probability"]) <= 1
    text = verdicts.format_table(found)
    assert all(name in text for name in names) and "7 images:" in text


def test_verdicts_without_a_head(world):
    """Its head was never trained: no class and no probability, in table, CSV and sheet."""
    description = json.loads(world.with_suffix(".json").read_text())
    description |= {"classifier": False, "loss": "supcon"}
    world.with_suffix(".json").write_text(json.dumps(description))
    (found,) = judge(world, "--score", "knn:k=2")
    text = verdicts.format_table(found)
    assert not any(word in text for word in ("class", "probability", "red", "green", "blue"))
    assert text.count("percentile") == 1 and all(name in text for name in found.names)
    with open(verdicts.write_csv(found), newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "score", "threshold", "percentile", "verdict"]
    assert [float(row["score"]) for row in rows] == found.scores.tolist()
    assert sheets.draw_sheet(found).is_file()
    with pytest.raises(UserError, match="needs a classifier"):
        judge(world, "--score", "msp")


def test_the_threshold_is_kept_and_made_anew_when_what_it_comes_from_changes(world, monkeypatch):
    description = world.with_suffix(".json").read_bytes()
    (first,) = judge(world)
    kept = json.loads(first.threshold.path.read_text())
    assert (kept["tpr"], kept["threshold"]) == (0.95, first.threshold.value)
    kept["id_scores"] = [score + 1 for score in kept["id_scores"]]
    first.threshold.path.write_text(json.dumps(kept))
    (again,) = judge(world)  # the file is what is read
    assert again.threshold.value == pytest.approx(first.threshold.value + 1)
    (other,) = judge(world, "--tpr", "0.5")
    assert json.loads(first.threshold.path.read_text())["tpr"] == 0.5
    assert other.threshold.value < again.threshold.value and other.path != again.path
    own = world.parent / "own" / "test.npz"
    content = dict(np.load(own))
    np.savez(own, images=content["images"][:20], labels=content["labels"][:20])
    (fewer,) = judge(world)
    assert len(fewer.threshold.id_scores) == 20
    assert fewer.path != first.path  # verdicts by another threshold replace none
    (logit,) = judge(world, "--score", "maxlogit")
    assert logit.threshold.path != fewer.threshold.path
    fewer.threshold.path.write_text("{")
    assert judge(world)[0].threshold.value == fewer.threshold.value
    assert world.with_suffix(".json").read_bytes() == description


def test_a_kept_threshold_does_without_the_images_of_a_named_set(world, monkeypatch, capsys):
    (first,) = judge(world)
    monkeypatch.setattr(verdicts, "dataset_of", lambda *_: "cifar10")
    args = options.parse(
        ["--model", str(world), "--images", str(world.parent / "pics"), "--compile", "off"]
        + ["--arch", "tinynet:tiny"]
        + ["--save", str(world.parent / "results"), "--data", str(world.parent / "none")],
        "",
    )
    name = verdicts.base_path(
        verdicts.Case(world, {"dataset": "cifar10"}, None, None, [], args), "energy"
    ).name
    with pytest.raises(UserError, match="ID test images"):
        list(verdicts.judge(world, args))
    kept = first.threshold.path.read_text()
    first.threshold.path.with_name(f"{name}_threshold.json").write_text(kept)
    (found,) = verdicts.judge(world, args)
    assert found.threshold.value == first.threshold.value
    assert "not at hand" in capsys.readouterr().err


@pytest.mark.parametrize("name", ("$a$_^.png", "b\n\udcff.png", "纹.png"))
def test_one_file_of_any_name_and_its_pictures(world, name):
    Image.fromarray(noise(1, 8, 7)[0]).save(world.parent / "one.png")
    try:
        (world.parent / "one.png").rename(world.parent / name)
    except (OSError, UnicodeEncodeError):
        pytest.skip("no such name on this disk")
    (found,) = judge(world, images=name)
    assert len(found.scores) == 1 and found.names[0].isprintable()
    found.names[0].encode()
    verdicts.write_csv(found)
    for path in (sheets.draw_sheet(found), sheets.draw_histogram(found)):
        with Image.open(path) as picture:
            assert picture.format == "PNG" and min(picture.size) > 200


def test_a_folder_of_names_that_are_not_utf_8(world):
    folder = write_images(world.parent / "x", noise(30, 8, 7))
    name = os.fsdecode(b"\xe9t\xe9")
    try:
        for file in sorted(folder.iterdir()):
            os.rename(file, os.fsencode(folder) + b"/\xff " + os.fsencode(file.name))
        folder.rename(world.parent / name)
    except (OSError, UnicodeEncodeError):
        pytest.skip("no such name on this disk")
    (found,) = judge(world, images=name)
    names = [f"\\udcff {i:03d}.png" for i in range(30)]
    text = verdicts.format_table(found)
    assert found.names == names and sum(name in text for name in names) == 20 and text.encode()
    with open(verdicts.write_csv(found), newline="", encoding="utf-8") as file:
        assert [row["file"] for row in csv.DictReader(file)] == names
    for path in (sheets.draw_sheet(found), sheets.draw_histogram(found)):
        assert path.is_file() and str(path).isprintable()


def test_sheet_of_many_images_shows_each_end(world):
    write_images(world.parent / "many", noise(60, 8, 5))
    (found,) = judge(world, images="many")
    text = verdicts.format_table(found)
    shown = [
        line.split()[0] for line in text.splitlines() if line.split()[-1:] in (["in"], ["out"])
    ]
    ends = [*found.order[:10], *found.order[-10:]]
    assert shown == [found.names[i] for i in ends]
    with Image.open(sheets.draw_sheet(found)) as picture:
        assert picture.size[1] > picture.size[0] / 2


def test_what_is_judged_is_said_and_what_is_left_out(world, capsys):
    (world.parent / "pics" / "bad.png").write_bytes(b"none")
    (found,) = judge(world, "--skip-bad")
    told = capsys.readouterr()
    assert "pics (test): " in told.out and "7 images, 1 left out" in told.out
    assert "1 of 8 images could not be read and are left out (bad.png)" in told.err
    assert len(found.names) == 7 and "bad.png" not in found.names
    (world.parent / "pics" / "bad.png").unlink()
    pack(world.parent / "pics", world.parent / "pics.zip")
    (packed,) = judge(world, images="pics.zip")  # all of it too, not its test part alone
    assert packed.names == found.names and np.array_equal(packed.scores, found.scores)
    before = loaders.use_streaming("on", 1)
    try:
        (streamed,) = judge(world)
        assert np.array_equal(streamed.scores, found.scores) and sheets.draw_sheet(streamed)
    finally:
        loaders.use_streaming(**before)


def test_images_are_brought_to_size_as_the_id_images_are(world):
    write_images(world.parent / "large", noise(3, 16, 1))
    (found,) = judge(world, "--protocol", "imagenet4", "--image-size", "14", images="large")
    picture = Image.open(world.parent / "large" / "000.png")
    wanted = np.asarray(readers.fit_image(picture, (16, 14)))
    assert np.array_equal(found.images.images[0].permute(1, 2, 0).numpy(), wanted)


@pytest.mark.parametrize("turned", (0, 1))
def test_an_id_error_near_chance_is_a_warning(world, turned, capsys, monkeypatch):
    monkeypatch.setattr(verdicts, "warned", set())
    own = world.parent / "own" / "test.npz"
    images = np.load(own)["images"]
    labels = channels_of(loaders.make_set(images, None, "x")).argmax(axis=1)
    np.savez(own, images=images, labels=(labels + turned) % 3)
    for words in ((), (), ("--score", "msp")):  # computed, kept, of another score
        (found,) = judge(world, *words)
        kept = json.loads(found.threshold.path.read_text())
        assert ("warning" in kept) == bool(turned)
    assert capsys.readouterr().err.count("is near chance") == turned


@pytest.mark.parametrize("count, tpr, place", ((10000, 0.95, 9500), (100, 0.07, 7), (3, 0.01, 1)))
def test_threshold_is_the_smallest_score_that_keeps_the_share(count, tpr, place):
    values = np.random.default_rng(0).permutation(count).astype(float)
    assert verdicts.find_threshold(values, tpr) == place - 1
    assert (values <= place - 1).mean() >= tpr > (values <= place - 2).mean() - 1e-12


def test_bad_input(world):
    for images, word in (("none", "does not exist"), ("own", "holds no image")):
        with pytest.raises(UserError, match=word):
            judge(world, images=images)
    (world.parent / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be read"):
        judge(world, images="broken.png")
    for text in ("0", "1.5", "-1", "nan", "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            options.share(text)


def test_save_scores_names_every_file(world):
    images = loaders.load("pics", path=world.parent / "pics", data=world.parent / "data", size=8)
    args = options.parse(["--model", str(world), "--arch", "tinynet:tiny", "--compile", "off"], "")
    net, about = load.load_network(world, args)
    own = loaders.load_id("mine", "test", path=world.parent / "own")
    case = verdicts.Case(world, about, net, verdicts.Sets(own, [images], None), [], args)
    case = case._replace(sets=case.sets._replace(shifted=(own.subset(np.arange(5), "late"),)))
    facts = about_images(case)
    assert len(facts["predictions/late"]) == 5 and facts["labels/late"].tolist() == [0, 1, 2, 0, 1]
    # the test part of the folder, as of every OOD set
    assert facts["names/pics"].tolist() == [f"00{i}.png" for i in range(4)]
    assert np.array_equal(facts["labels/id"], own.labels) and "names/id" not in facts
    predicted = channels_of(own).argmax(axis=1)
    assert np.array_equal(facts["predictions/id"], predicted)


def channels_of(images):
    """The class whose colour channel is largest wins: (N,3)."""
    x = images.images.permute(0, 2, 3, 1).numpy() / 255
    return ((x - np.array(loaders.MEAN)) / np.array(loaders.STD)).mean((1, 2))


def test_printable():
    assert printable("a\udcff\n纹") == "a\\udcff\\n纹"


def test_verdicts_of_other_weights_or_images_replace_none(world):
    (first,) = judge(world)
    assert [one.path for one in judge(world)] == [first.path]
    snapshots.save_snapshot(
        world, Tiny().half(), json.loads(world.with_suffix(".json").read_text())
    )
    (second,) = judge(world)
    write_images(world.parent / "pics", noise(1, 8, 9), ending=".bmp")
    (third,) = judge(world)
    assert len({one.path for one in (first, second, third)}) == 3
