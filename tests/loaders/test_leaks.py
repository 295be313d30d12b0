"""Images that two sets share: equal ones, near ones, and what is never near."""

import numpy as np
import pytest
import torch
from conftest import jpeg, photographs
from PIL import Image

from utils import loaders
from utils.loaders import leaks


def as_set(pixels, name="set"):
    return loaders.make_set(pixels, None, name)


def compare(first, second):
    first, second = as_set(first), as_set(second)
    return loaders.compare(first, second, (loaders.encode(first), loaders.encode(second)))


@pytest.mark.parametrize("side", [32, 5])  # 75 bytes are no whole number of words
def test_equal_images_are_found_where_they_are(side, monkeypatch):
    monkeypatch.setattr(leaks, "CHUNK", 7)
    first, second = photographs(40, 0, side), photographs(30, 1, side)
    second[[3, 17, 29]] = first[[5, 0, 39]]
    changed = second.copy()
    changed[17, -1, -1, 2] ^= 1  # one bit of one pixel
    pair = as_set(first), as_set(changed)
    found = loaders.find_exact(*pair, tuple(map(loaders.pixel_numbers, pair)))
    assert {int(j): int(found[j]) for j in np.flatnonzero(found >= 0)} == {3: 5, 29: 39}


def test_equal_numbers_of_other_bytes_are_no_equal_images():
    pair = as_set(photographs(4, 0)), as_set(photographs(3, 1))
    same = np.zeros(4, np.uint64), np.zeros(3, np.uint64)
    assert (loaders.find_exact(*pair, same) == -1).all()


def test_images_of_another_size_are_never_equal():
    pair = as_set(np.zeros((2, 4, 4, 3), np.uint8)), as_set(np.zeros((2, 2, 8, 3), np.uint8))
    assert (loaders.find_exact(*pair, tuple(map(loaders.pixel_numbers, pair))) == -1).all()


def test_near_images_are_those_that_were_made_from_one(monkeypatch):
    monkeypatch.setattr(leaks, "TILE", (16, 8))
    first, second = photographs(60, 0), photographs(50, 1)
    second[4] = jpeg(first[9])
    second[11] = jpeg(first[20])[:, ::-1]
    small = Image.fromarray(first[33]).resize((24, 24), Image.BICUBIC)
    second[25] = np.asarray(small.resize((32, 32), Image.BICUBIC))
    second[30] = (0.8 * first[41].astype(float) + 20).astype(np.uint8)
    second[49] = first[0]  # equal, and so not near
    shared = compare(first, second)
    near = {int(j): int(shared.near[j]) for j in np.flatnonzero(shared.near >= 0)}
    assert near == {4: 9, 11: 20, 25: 33, 30: 41}
    assert np.flatnonzero(shared.exact >= 0).tolist() == [49]
    assert np.flatnonzero(shared.mirrored).tolist() == [11]


def test_the_nearest_of_several_is_named():
    first = np.repeat(photographs(1, 3), 3, axis=0)
    second = jpeg(first[0], 90)[None]
    first[0], first[2] = jpeg(first[0], 60), jpeg(first[2], 50)
    shared = compare(first, second)
    assert shared.near.tolist() == [1]
    a, b = (x.astype(float) for x in (first[1], second[0]))
    oracle = np.abs((a - a.mean()) / a.std() - (b - b.mean()) / b.std()).mean()
    assert shared.difference[0] == pytest.approx(oracle, abs=1e-5)


def test_flat_images_are_equal_but_never_near():
    flat = np.full((6, 32, 32, 3), 128, np.uint8)
    flat += np.random.default_rng(0).integers(0, 4, flat.shape, dtype=np.uint8)
    other = np.full((5, 32, 32, 3), 90, np.uint8)
    other[2] = flat[1]
    shared = compare(flat, other)
    assert (shared.near == -1).all() and shared.exact.tolist() == [-1, -1, 1, -1, -1]
    assert loaders.encode(as_set(flat)).flat.all()
    assert not loaders.encode(as_set(photographs(6, 0))).flat.any()


def test_images_alike_in_the_hash_alone_are_not_near():
    """Alike in their lowest frequencies, unlike in their pixels: strokes of one thickness."""
    rng = np.random.default_rng(0)
    base = photographs(1, 0)[0].astype(float)
    fine = rng.normal(0, 25, (2, 32, 32, 3))
    for image in fine:  # without any of the lowest frequencies
        low = leaks.frequencies(32)
        low /= np.linalg.norm(low, axis=1, keepdims=True)
        image -= np.einsum("ua,vb,uvc->abc", low, low, np.einsum("ua,vb,abc->uvc", low, low, image))
    pixels = (0.5 * base + 64 + fine).clip(0, 255).astype(np.uint8)
    signs = loaders.encode(as_set(pixels)).signs
    assert (signs[0] != signs[1]).sum() <= leaks.BITS
    assert (compare(pixels[:1], pixels[1:]).near == -1).all()


def test_pairs_of_near_signs_are_all_that_a_loop_finds(monkeypatch):
    monkeypatch.setattr(leaks, "TILE", (5, 7))
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(0, 2, (4, leaks.SIGNS), generator=generator) * 2.0 - 1
    first, second = base[torch.arange(23) % 4].clone(), base[torch.arange(18) % 4].clone()
    for signs in (first, second):
        signs *= 1 - 2.0 * (torch.rand(signs.shape, generator=generator) < 0.1)
    found = {}
    for i, j, bits in leaks.near_signs(first, second):
        found |= {(int(a), int(b)): int(c) for a, b, c in zip(i, j, bits)}
    loop = {(a, b): int((first[a] != second[b]).sum()) for a in range(23) for b in range(18)}
    assert found == {pair: bits for pair, bits in loop.items() if bits <= leaks.BITS}
    assert 0 < len(found) < len(loop)


def test_of_very_many_near_signs_the_nearest_are_kept(monkeypatch):
    monkeypatch.setattr(leaks, "KEPT", 2)
    first = torch.ones(5, leaks.SIGNS)
    for row, count in enumerate((3, 1, 0, 2, 4)):
        first[row, :count] = -1
    ((i, j, bits),) = leaks.near_signs(first, torch.ones(2, leaks.SIGNS))
    assert sorted(zip(j.tolist(), i.tolist(), bits.tolist())) == [
        *((0, 1, 1), (0, 2, 0)),
        *((1, 1, 1), (1, 2, 0)),
    ]


def test_the_mirror_image_s_signs():
    pixels = photographs(20, 5)
    own, turned = (loaders.encode(as_set(x)).signs for x in (pixels, pixels[:, :, ::-1]))
    assert ((own * leaks.mirror()) == turned).float().mean() > 0.999


def test_images_that_stay_on_disk_have_the_same_codes(tmp_path):
    pixels = photographs(9, 0)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    before = loaders.use_streaming("on", 1)
    try:
        images = loaders.load("pics", path=tmp_path)
        assert images.streamed
        found, other = loaders.encode(images), as_set(pixels)
        shared = loaders.compare(images, other, (found, loaders.encode(other)))
    finally:
        loaders.use_streaming(**before)
    assert shared.exact.tolist() == list(range(9))
    assert (found.signs == loaders.encode(other).signs).all()
