"""Augmentation and normalisation equal torchvision's image by image;
batches cover, repeat and order what they must.
"""

import numpy as np
import pytest
import torch
from conftest import noise
from scipy.stats import chisquare

from utils import loaders
from utils.loaders import Batches, flip_and_crop, normalise

SHAPES = ((32, 32), (8, 8), (6, 11), (11, 6))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count, height, width, seed=0):
    """uint8 (N,H,W,3) tensor; every pixel of an image is another colour and
    none is black, as padding is.
    """
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.permutation(255 * 255 - 1)[: height * width] + 1 for _ in range(count)])
    codes = codes.reshape(count, height, width)
    return torch.from_numpy(
        np.stack([codes % 255 + 1, codes // 255, codes % 7], axis=3).astype(np.uint8)
    )


def slow_variants(image, padding):
    """{(flipped, top, left): the crop} of one (H,W,3) array, pixel by pixel:
    flip, pad with black, crop.
    """
    height, width, _ = image.shape
    made = {}
    for flipped in (False, True):
        for top in range(2 * padding + 1):
            for left in range(2 * padding + 1):
                out = np.zeros_like(image)
                for r in range(height):
                    for c in range(width):
                        row, column = r + top - padding, c + left - padding
                        if 0 <= row < height and 0 <= column < width:
                            out[r, c] = image[row, width - 1 - column if flipped else column]
                made[flipped, top, left] = out
    return made


def torchvision_variants(image, padding):
    functional = pytest.importorskip("torchvision.transforms.functional")
    from PIL import Image

    height, width, _ = image.shape
    made = {}
    for flipped in (False, True):
        picture = Image.fromarray(image)
        picture = functional.hflip(picture) if flipped else picture
        padded = functional.pad(picture, padding)
        for top in range(2 * padding + 1):
            for left in range(2 * padding + 1):
                made[flipped, top, left] = np.asarray(
                    functional.crop(padded, top, left, height, width)
                )
    return made


def draws_of(images, out, padding, variants):
    """Which (flipped, top, left) made each output image; fails for one that none made."""
    found = []
    for image, made in zip(images.numpy(), out.numpy()):
        match = [
            key for key, value in variants(image, padding).items() if np.array_equal(value, made)
        ]
        assert len(match) == 1, f"{len(match)} flips and crops give the image"
        found.append(match[0])
    return found


class TestFlipAndCrop:
    @pytest.mark.parametrize("variants", (slow_variants, torchvision_variants))
    @pytest.mark.parametrize(
        "shape, padding", (((6, 6), 2), ((5, 8), 1), ((8, 5), 3), ((4, 4), 0), ((5, 5), 4))
    )
    def test_every_image_is_one_flip_and_crop_pixel_for_pixel(self, variants, shape, padding):
        images = pictures(12, *shape)
        before = images.clone()
        draws = draws_of(
            images, flip_and_crop(images, padding, generator(padding)), padding, variants
        )
        assert len(set(draws)) > 1 and torch.equal(images, before)

    def test_32x32_with_padding_4(self):
        images = pictures(6, 32, 32)
        draws_of(images, flip_and_crop(images, 4, generator()), 4, torchvision_variants)

    def test_offsets_are_uniform_and_flips_fair_and_independent(self):
        image, padding = pictures(1, 5, 5), 2
        out = (
            flip_and_crop(image.expand(20000, -1, -1, -1), padding, generator(0))
            .numpy()
            .reshape(20000, -1)
        )
        counts = np.array(
            [
                (out == variant.reshape(-1)).all(axis=1).sum()
                for variant in slow_variants(image[0].numpy(), padding).values()
            ]
        )
        assert counts.sum() == 20000 and len(counts) == 50
        assert chisquare(counts).pvalue > 0.01
        assert chisquare([counts[:25].sum(), counts[25:].sum()]).pvalue > 0.01

    def test_images_of_a_batch_are_drawn_independently(self):
        image = pictures(1, 5, 5)
        out = (
            flip_and_crop(image.expand(4000, -1, -1, -1), 1, generator(1)).numpy().reshape(4000, -1)
        )
        keys = list(slow_variants(image[0].numpy(), 1).values())
        which = np.argmax([(out == key.reshape(-1)).all(axis=1) for key in keys], axis=0)
        pairs = np.bincount(which[::2] * 18 + which[1::2], minlength=18 * 18)
        assert chisquare(pairs).pvalue > 0.01

    def test_padding_0_leaves_the_flip(self):
        images = pictures(200, 4, 6)
        out = flip_and_crop(images, 0, generator())
        flipped = (out == images.flip(2)).flatten(1).all(dim=1)
        assert torch.equal(out[~flipped], images[~flipped]) and 60 < int(flipped.sum()) < 140

    def test_padding_is_black(self):
        out = flip_and_crop(torch.full((300, 4, 4, 3), 255, dtype=torch.uint8), 2, generator())
        assert set(out.unique().tolist()) == {0, 255} and out.dtype == torch.uint8

    def test_a_seed_draws_the_same(self):
        images = pictures(50, 6, 6)
        assert torch.equal(
            flip_and_crop(images, 2, generator(3)), flip_and_crop(images, 2, generator(3))
        )
        assert not torch.equal(
            flip_and_crop(images, 2, generator(3)), flip_and_crop(images, 2, generator(4))
        )

    @pytest.mark.parametrize("padding", (0, 1, 4))
    def test_memory_layout_does_not_matter(self, padding):
        images = pictures(10, 5, 6)
        others = [
            images.permute(order).contiguous().permute(tuple(np.argsort(order)))
            for order in ((0, 3, 1, 2), (0, 2, 1, 3), (3, 2, 1, 0))
        ]
        others += [
            torch.cat([images.flip(0), images])[10:],
            torch.stack([images, images.flip(0)], dim=1)[:, 0],
        ]
        expected = flip_and_crop(images, padding, generator())
        for other in others:
            assert torch.equal(other, images) and torch.equal(
                flip_and_crop(other, padding, generator()), expected
            )
            assert torch.equal(other, images)


class TestNormalise:
    @pytest.mark.parametrize(
        "statistics", ((loaders.MEAN, loaders.STD), (loaders.IMAGENET_MEAN, loaders.IMAGENET_STD))
    )
    @pytest.mark.parametrize("shape", SHAPES)
    def test_equals_totensor_and_normalize(self, shape, statistics):
        transforms = pytest.importorskip("torchvision.transforms")
        images = noise(4, 32, seed=1)[:, : shape[0], : shape[1]]
        expected = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*statistics)])
        out = normalise(torch.from_numpy(images), *statistics)
        assert torch.allclose(
            out,
            torch.stack([expected(np.ascontiguousarray(image)) for image in images]),
            rtol=0,
            atol=2e-6,
        )

    def test_slow_loop_over_all_values(self):
        values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
        out = normalise(values).double()
        for channel in range(3):
            for value in range(256):
                expected = (value / 255 - loaders.MEAN[channel]) / loaders.STD[channel]
                assert abs(out[0, channel, value // 16, value % 16].item() - expected) < 2e-6

    def test_type_and_layout(self):
        out = normalise(pictures(2, 5, 7))
        assert out.shape == (2, 3, 5, 7) and out.dtype == torch.float32
        assert out.is_contiguous(memory_format=torch.channels_last)


def indexed(count, height=4, width=4, labels=True):
    """ImageSet whose image i is a plain colour that says i, with label i."""
    codes = np.arange(count)
    colours = np.stack([codes % 256, codes // 256, np.zeros(count)], axis=1).astype(np.uint8)
    images = np.broadcast_to(colours[:, None, None], (count, height, width, 3))
    return loaders.make_set(images, codes if labels else None, "indexed")


def which(batch):
    """The numbers of the images in a normalised batch of ``indexed``."""
    mean, std = (torch.tensor(s).view(3, 1, 1) for s in (loaders.MEAN, loaders.STD))
    pixels = (255 * (batch * std + mean)).round()
    return (pixels[:, 0, 1, 1] + 256 * pixels[:, 1, 1, 1]).long().tolist()


class TestEvaluation:
    def test_order_is_the_sets_own_and_every_image_comes_once(self):
        images = indexed(23)
        batches = list(Batches(images, 5, "cpu"))
        assert [len(x) for x, _ in batches] == [5, 5, 5, 5, 3] and len(
            Batches(images, 5, "cpu")
        ) == 5
        assert sum((which(x) for x, _ in batches), []) == list(range(23))
        assert torch.cat([y for _, y in batches]).tolist() == list(range(23))

    def test_augment_does_not_touch_evaluation(self):
        plain = Batches(indexed(9), 4, "cpu")
        augmented = Batches(indexed(9), 4, "cpu", augment=True)
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(plain, augmented))

    def test_pixels_are_normalised_with_the_given_statistics(self):
        images = loaders.make_set(noise(3, 6, seed=0), None, "mine")
        mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
        ((x, y),) = Batches(images, 3, "cpu", statistics=(mean, std))
        assert y is None and torch.equal(
            x, normalise(torch.from_numpy(noise(3, 6, seed=0)), mean, std)
        )

    def test_images_that_are_not_square(self):
        ((x, _),) = Batches(indexed(3, 4, 9), 8, "cpu")
        assert x.shape == (3, 3, 4, 9) and which(x) == [0, 1, 2]


class TestEpoch:
    def numbers(self, batches, seed=0):
        return [which(x) for x, _ in batches.epoch(generator(seed))]

    @pytest.mark.parametrize("augment", (False, True))
    def test_every_image_once_in_a_shuffled_order_with_its_label(self, augment):
        batches = Batches(indexed(300), 64, "cpu", augment=augment, padding=1)
        seen = []
        for x, y in batches.epoch(generator()):
            assert which(x) == y.tolist()  # padding 1 leaves the pixel (1,1) of every crop
            seen += y.tolist()
        assert sorted(seen) == list(range(300)) and seen != list(range(300))
        assert [len(part) for part in self.numbers(batches)] == [64] * 4 + [44]

    def test_deterministic_per_seed(self):
        images = loaders.make_set(noise(40, 6, seed=0), np.arange(40), "mine")
        batches = Batches(images, 7, "cpu", augment=True, padding=2)
        first, again, other = (
            torch.cat([x for x, _ in batches.epoch(generator(seed))]) for seed in (1, 1, 2)
        )
        assert torch.equal(first, again) and not torch.equal(first, other)

    def test_two_epochs_of_one_generator_differ(self):
        batches, source = Batches(indexed(50), 50, "cpu"), generator()
        ((first, _),) = batches.epoch(source)
        ((second, _),) = batches.epoch(source)
        assert which(first) != which(second)

    def test_augmentation_is_that_of_flip_and_crop(self):
        images = pictures(20, 6, 9)
        batches = Batches(
            loaders.make_set(images.numpy(), np.arange(20), "mine"),
            20,
            "cpu",
            augment=True,
            padding=2,
            statistics=((0, 0, 0), (1, 1, 1)),
        )
        ((x, y),) = batches.epoch(generator())
        out = (255 * x).round().byte().permute(0, 2, 3, 1)
        draws_of(images[y], out, 2, slow_variants)

    def test_without_augmentation_pixels_are_untouched(self):
        images = loaders.make_set(noise(8, 6, seed=0), np.arange(8), "mine")
        ((x, y),) = Batches(images, 8, "cpu").epoch(generator())
        assert torch.equal(x, normalise(torch.from_numpy(noise(8, 6, seed=0)))[y])


class TestSteps:
    """Outliers: a given number of full batches, whatever the size of the set."""

    @pytest.mark.parametrize(
        "count, batch, steps",
        ((10, 4, 12), (3, 8, 5), (1, 4, 3), (100, 8, 5), (12, 4, 3), (7, 7, 1)),
    )
    def test_full_batches_that_cycle(self, count, batch, steps):
        batches = Batches(indexed(count, labels=False), batch, "cpu", steps=steps)
        epoch = list(batches.epoch(generator()))
        assert len(batches) == len(epoch) == steps and all(
            len(x) == batch and y is None for x, y in epoch
        )
        seen = sum((which(x) for x, _ in epoch), [])
        for start in range(0, len(seen), count):  # no image comes again before all others have come
            part = seen[start : start + count]
            assert len(set(part)) == len(part)

    def test_every_round_is_shuffled_anew(self):
        batches = Batches(indexed(40), 10, "cpu", steps=12)
        seen = sum((which(x) for x, _ in batches.epoch(generator())), [])
        rounds = [seen[:40], seen[40:80], seen[80:]]
        assert all(sorted(part) == list(range(40)) and part != sorted(part) for part in rounds)
        assert rounds[0] != rounds[1] != rounds[2]

    def test_a_set_larger_than_an_epoch_gives_other_images_each_epoch(self):
        batches, source = Batches(indexed(1000), 10, "cpu", steps=5), generator()
        first, second = (sum((which(x) for x, _ in batches.epoch(source)), []) for _ in range(2))
        assert first != second and max(first) > 500

    def test_deterministic_per_seed(self):
        batches = Batches(indexed(10), 4, "cpu", steps=9)
        orders = [
            [index.tolist() for index in batches.order(generator(seed))] for seed in (1, 1, 2)
        ]
        assert orders[0] == orders[1] != orders[2]
