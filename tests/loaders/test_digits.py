"""The data set that needs no download: real digits, OOD images that are what they say,
and outliers apart from both.
"""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_image

from utils import loaders
from utils.loaders import digits

OOD = [name for line in loaders.OOD_SETS["digits"] for name in line]
MADE = [name for name, entry in loaders.DATASETS.items() if entry.make]


@pytest.fixture(scope="module")
def sets():
    """{name: (pixels, labels, classes)} of the "test" part,
    and "train" for the ID training images.
    """
    made = {name: loaders.DATASETS[name].make("test") for name in MADE}
    return {**made, "train": digits.digits("train")}


def as_bytes(pixels):
    return {image.tobytes() for image in pixels}


def sorted_values(pixels):
    """The values of each image without their places."""
    return {np.sort(image.reshape(-1)).tobytes() for image in pixels}


class TestDigits:
    def test_all_1083_images_of_0_to_5_in_two_parts(self, sets):
        (train, train_labels, classes), (test, test_labels, _) = sets["train"], sets["digits"]
        content = load_digits()
        known = content.target < 6
        assert len(train) + len(test) == known.sum() == 1083 and classes == tuple("012345")
        assert np.array_equal(
            np.bincount(np.append(train_labels, test_labels)), np.bincount(content.target[known])
        )
        assert len(as_bytes(train) | as_bytes(test)) == len(as_bytes(train)) + len(as_bytes(test))
        assert set(test_labels) == set(range(6)) and 0.6 < len(train) / 1083 < 0.8

    def test_pixels_are_the_source_upsampled(self, sets):
        content = load_digits()
        pixels, labels = digits.upsampled_digits()
        assert (
            pixels.shape == (1797, 32, 32, 3)
            and pixels.dtype == np.uint8
            and np.array_equal(labels, content.target)
        )
        assert (pixels == pixels[..., :1]).all()  # grey
        blocks = pixels[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
        for i in (0, 500, 1796):
            assert np.corrcoef(blocks[i].reshape(-1), content.images[i].reshape(-1))[0, 1] > 0.97
        assert pixels.max() == 255 and pixels.min() == 0
        assert as_bytes(sets["train"][0]) <= as_bytes(pixels[labels < 6])

    def test_held_out_digits_are_all_6_to_9(self, sets):
        pixels, labels = digits.upsampled_digits()
        assert np.array_equal(sets["digits_6_9"][0], pixels[labels >= 6]) and set(
            sets["digits_6_9"][1]
        ) == {6, 7, 8, 9}


class TestOod:
    @pytest.mark.parametrize("name", ("china", "flower"))
    def test_patches_are_crops_of_the_photograph(self, sets, name):
        photo, patches = load_sample_image(f"{name}.jpg"), sets[f"{name}_patches"][0]
        for patch in patches[:5]:
            places = np.argwhere((photo[:-31, :-31] == patch[0, 0]).all(axis=2))
            assert any(np.array_equal(photo[r : r + 32, c : c + 32], patch) for r, c in places)
        assert len(as_bytes(patches)) > 450

    def test_gaussian(self, sets):
        values = sets["gaussian"][0]
        # N(0.5, 1): 30.85 % lie below 0, as many above 1;
        # 1/256 of the range around 0.5 holds 0.16 %.
        assert (
            abs((values == 255).mean() - 0.3085) < 0.005
            and abs((values == 0).mean() - 0.3085) < 0.005
        )
        assert abs(values.mean() / 255 - 0.5) < 0.01

    def test_rademacher(self, sets):
        values = sets["rademacher"][0]
        assert set(np.unique(values)) == {0, 255} and abs((values == 255).mean() - 0.5) < 0.005
        assert abs(np.corrcoef(values[..., 0].reshape(-1), values[..., 1].reshape(-1))[0, 1]) < 0.01

    def test_blobs_are_smooth_inside_and_sharp_at_the_edge(self, sets):
        values = sets["blobs"][0].astype(int)
        assert 0.05 < (values == 0).mean() < 0.95
        assert values[values > 0].min() >= int(0.75 * 255)
        inside = (values[:, 1:] > 0) & (values[:, :-1] > 0)
        assert np.abs(np.diff(values, axis=1))[inside].mean() < 20


class TestOutliers:
    def test_some_are_jigsaws_and_they_are_of_training_images_alone(self, sets):
        made = sets["digit_outliers"][0]
        train = sorted_values(sets["train"][0])
        test = sorted_values(sets["digits"][0])
        jigsaws = sorted_values(made) & (train | test)
        assert len(jigsaws) > 200 and not jigsaws & (test - train)

    def test_no_outlier_is_an_image_of_another_set(self, sets):
        outliers = as_bytes(sets["digit_outliers"][0])
        assert len(outliers) > 0.95 * len(sets["digit_outliers"][0])
        for name in ("train", "digits", *OOD):
            assert not outliers & as_bytes(sets[name][0]), name

    def test_jigsaw(self):
        image = np.arange(16 * 16 * 3).reshape(16, 16, 3)
        made = digits.jigsaw(image, 4, np.random.default_rng(0))

        def tiles(picture):
            return [
                picture[r : r + 4, c : c + 4].tobytes()
                for r in range(0, 16, 4)
                for c in range(0, 16, 4)
            ]

        assert (
            made.shape == image.shape
            and sorted(tiles(made)) == sorted(tiles(image))
            and tiles(made) != tiles(image)
        )
        grey = digits.jigsaw(image[..., 0], 8, np.random.default_rng(0))
        assert grey.shape == (16, 16) and sorted(grey.reshape(-1)) == sorted(
            image[..., 0].reshape(-1)
        )


@pytest.mark.parametrize("name", MADE)
def test_every_set_is_the_same_each_time(name, sets):
    pixels, labels, _ = loaders.DATASETS[name].make("test")
    assert pixels.shape[1:] == (32, 32, 3) and pixels.dtype == np.uint8 and len(pixels) >= 300
    assert np.array_equal(pixels, sets[name][0])
    assert labels is None if sets[name][1] is None else np.array_equal(labels, sets[name][1])


def test_random_state_of_the_caller_is_not_touched():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    digits.gaussian("test")
    digits.digit_outliers("train")
    assert np.array_equal(np.random.get_state()[1], before)


def test_sets_are_distinct(sets):
    assert len(
        {loaders.make_set(pixels, None, name).fingerprint for name, (pixels, _, _) in sets.items()}
    ) == len(sets)


def test_id_test_and_ood_images_share_nothing(sets):
    known = as_bytes(sets["train"][0]) | as_bytes(sets["digits"][0])
    for name in OOD:
        assert not known & as_bytes(sets[name][0]), name
