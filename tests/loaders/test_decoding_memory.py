"""Decoding takes the memory of what is decoded, and little beside it."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
from conftest import write_images

from utils import loaders
from utils.loaders import arrays, readers
from utils.runtime import Cache, UserError


def peak_of(work):
    tracemalloc.start()
    try:
        result = work()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_folder_is_decoded_and_kept_in_1_2_times_its_memory(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (150, 16, 16, 3), dtype=np.uint8)
    write_images(tmp_path / "folder", images)
    (tmp_path / "folder" / "bad.png").write_bytes(b"not an image")
    size = 150 * 512 * 512 * 3  # 113 MiB; NumPy writes in pieces of 16
    for _ in range(2):  # decoded, then from the cache
        (pixels, _, _, bad), peak = peak_of(
            lambda: readers.read_images(tmp_path / "folder", tmp_path, 512, False, True)
        )
        assert len(pixels) == 150 and bad == ["bad.png"]
        assert size < peak < 1.2 * size
    assert any((tmp_path / "cache").iterdir())


def test_bad_images_are_left_out_of_their_places(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    write_images(tmp_path / "folder", images)
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    for name in (names[0], names[3]):
        (tmp_path / "folder" / name).write_bytes(b"not an image")
    pixels, _, _, bad = readers.read_images(tmp_path / "folder", tmp_path, 8, False, True)
    assert bad == [names[0], names[3]]
    whole, _, _, _ = readers.read_images(tmp_path / "folder", tmp_path, 8, False, True)
    for found in (pixels, whole):
        assert np.array_equal(found, images[[1, 2, 4, 5]])


def test_arrays_are_brought_to_a_size_in_1_2_times_their_memory():
    images = np.random.default_rng(1).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    fitted, peak = peak_of(lambda: readers.fit_pixels(images, 256))
    assert fitted.shape == (40, 256, 256, 3) and peak < 1.2 * fitted.nbytes


def test_arrays_with_channels_first_are_turned_where_they_are(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (250, 3, 128, 100), dtype=np.uint8)
    np.savez(tmp_path / "train.npz", images=images)
    (found, _, _), peak = peak_of(lambda: arrays.read_array(tmp_path / "train.npz", "train"))
    assert found.shape == (250, 128, 100, 3) and found.flags.c_contiguous
    assert np.array_equal(found, images.transpose(0, 2, 3, 1)) and peak < 1.2 * images.nbytes
    for same in (images[:, :, :3, :3], images[:, :1], images.astype(int)):
        assert arrays.channels_last(same) is same


def test_grey_arrays_are_widened_as_they_are_read(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (100, 200, 180), dtype=np.uint8)
    for name, write in (("a", np.savez), ("b", np.savez_compressed)):
        write(tmp_path / f"{name}.npz", images=images, labels=np.arange(100))
        found, peak = peak_of(partial(arrays.read_array, tmp_path / f"{name}.npz", "train"))
        assert np.array_equal(found[0], np.repeat(images[..., None], 3, axis=3))
        assert peak < 1.2 * found[0].nbytes and found[1].tolist() == list(range(100))
    for other in (np.asfortranarray(images[:9]), images.astype(int), images[:3, :3, :3]):
        np.savez(tmp_path / "c.npz", images=other)
        with np.load(tmp_path / "c.npz") as content:
            assert arrays.read_grey(content, "images") is None
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-5000])
    with pytest.raises(UserError, match="cannot be read as an array file"):
        arrays.read_array(tmp_path / "d.npz", "train")


def test_a_training_part_is_split_off_where_it_is(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (500, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(500) % 5)
    for split, count in (("train", 400), ("test", 100)):
        whole = loaders.Unsplit(tmp_path / "mine.npz", 0.2)
        part, peak = peak_of(partial(loaders.load_id, "mine", split, path=whole))
        assert len(part) == count and peak < 1.25 * images.nbytes


def test_the_cache_writes_without_a_second_copy(tmp_path):
    values = np.zeros(10**8, np.uint8)  # NumPy writes in pieces of 16 MiB
    _, peak = peak_of(lambda: Cache(tmp_path).save("x/y", {"values": values}))
    assert peak < 0.2 * values.nbytes
    assert np.array_equal(Cache(tmp_path).load("x/y")["values"], values)
