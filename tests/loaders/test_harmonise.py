"""--harmonise: all images are made into files in the same way."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils import loaders
from utils.evaluation import options
from utils.evaluation.case import load_sets
from utils.evaluation.protocol import departures


def smooth_images(count=6, side=32):
    """Slow waves of colour: what is left of them after a blur is nearly all."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [
        128 + 100 * np.sin(2 * np.pi * (a * x + b * y))
        for a, b in rng.uniform(0, 1, (3 * count, 2))
    ]
    return np.stack(waves).reshape(count, 3, side, side).transpose(0, 2, 3, 1).astype(np.uint8)


def test_traces_of_a_files_making_go_and_what_it_shows_stays():
    plain = smooth_images()
    fine = plain.astype(np.int16)
    fine[:, ::2, ::2] += 12  # details of one pixel, as another filter leaves them
    fine = fine.clip(0, 255).astype(np.uint8)
    before = np.abs(plain.astype(int) - fine).max(axis=(1, 2, 3))
    sets = [loaders.make_set(p, np.arange(6), "some") for p in (plain, fine)]
    alike = [loaders.harmonise(s, 75).images.numpy().astype(int) for s in sets]
    # the pattern's mean, 3 of 255, is no detail and stays; its contrast of 12 goes
    difference = alike[1] - alike[0]
    assert before.min() == 12 and abs(difference.mean() - 3) < 1
    assert difference.std() < 2 and np.abs(alike[0] - sets[0].images.numpy()).mean() < 3


def test_every_image_goes_through_a_jpeg_of_that_quality():
    images = loaders.make_set(smooth_images(2), np.array([1, 0]), "some", ("a", "b"))
    found = loaders.harmonise(images, 30)
    assert (found.name, found.classes, found.labels.tolist()) == ("some", ("a", "b"), [1, 0])
    assert found.fingerprint != images.fingerprint  # so that no cached output is taken for it
    for image, changed in zip(images.images, found.images, strict=True):
        small = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((24, 24), Image.BICUBIC)
        file = io.BytesIO()
        small.resize((32, 32), Image.BICUBIC).save(file, "JPEG", quality=30)
        np.testing.assert_array_equal(changed.permute(1, 2, 0), np.asarray(Image.open(file)))
    coarse, good = (
        np.abs(loaders.harmonise(images, q).images.numpy().astype(int) - images.images.numpy())
        for q in (5, 95)
    )
    assert coarse.mean() > 2 * good.mean()


def test_a_harmonised_result_is_another_protocol(capsys):
    args = options.parse(["--model", "m", "--harmonise", "75"], "")
    assert departures(vars(args)) == {"harmonise": 75}
    for wrong in ("0", "96", "x"):
        with pytest.raises(SystemExit):
            options.parse(["--model", "m", "--harmonise", wrong], "")
    assert "best JPEG quality" in capsys.readouterr().err


def test_every_set_of_an_evaluation_is_harmonised():
    description = {"dataset": "digits", "data": "digits", "num_classes": 6}
    sets = [
        load_sets(
            description,
            Path("some.pt"),
            options.parse(["--model", "m", "--ood", "digits_6_9", *words], ""),
            True,
        )
        for words in ([], ["--harmonise", "75"])
    ]
    for before, after in zip(sets[0].all(), sets[1].all(), strict=True):
        assert after.fingerprint == loaders.harmonise(before, 75).fingerprint, after.name
    assert len(sets[0].all()) == 3
