"""Decoding takes the memory of what is decoded, and little beside it."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
import scipy.io
from conftest import write_images

from utils import loaders
from utils.loaders import arrays, readers
from utils.loaders.forms import cifar, matlab
from utils.runtime import Cache, UserError


def peak_of(work):
    tracemalloc.start()
    try:
        result = work()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def save(path, array):
    np.save(path, array)
    return path


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


def test_images_are_brought_into_order_in_their_own_memory():
    rng = np.random.default_rng(1)
    for axes in ((0, 1, 2, 3), (0, 3, 1, 2), (0, 3, 2, 1), (0, 2, 1, 3)):
        stored = rng.integers(0, 256, (5, 4, 6, 7), dtype=np.uint8)
        images = stored.transpose(np.argsort(axes))
        expected, place = images.copy(), stored.ctypes.data
        found = arrays.contiguous(images)
        assert np.array_equal(found, expected) and found.flags.c_contiguous
        assert found.ctypes.data == place
    stored = rng.integers(0, 256, (4, 6, 7, 5), dtype=np.uint8)
    kept = stored.copy()
    for images in (stored.transpose(3, 0, 1, 2), stored[:, ::2], stored[::-1]):
        found = arrays.contiguous(images)
        assert np.array_equal(found, images) and found.flags.c_contiguous
    stored.setflags(write=False)
    assert np.array_equal(
        arrays.contiguous(stored.transpose(0, 3, 1, 2)), kept.transpose(0, 3, 1, 2)
    )
    assert np.array_equal(stored, kept)


def test_svhns_file_is_turned_where_it_is(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (3000, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(3000, dtype=np.uint8) % 10 + 1
    content = {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None]}
    for packed in (False, True):
        scipy.io.savemat(tmp_path / "test_32x32.mat", content, do_compression=packed)
        found, peak = peak_of(partial(matlab.read_svhn, tmp_path / "test_32x32.mat"))
        assert np.array_equal(found[0], images) and found[0].flags.c_contiguous
        assert found[1].tolist() == (labels % 10).tolist() and peak < 1.2 * images.nbytes


@pytest.mark.parametrize("labels", (1, 2))
def test_cifars_binary_file_is_turned_where_it_is(tmp_path, labels):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2000, 3, 32, 32), dtype=np.uint8)
    named = rng.integers(0, 10, (2000, labels), dtype=np.uint8)
    rows = np.concatenate([named, images.reshape(2000, -1)], axis=1)
    (tmp_path / "train.bin").write_bytes(rows.tobytes())
    (pixels, found), peak = peak_of(lambda: cifar.read_binary(tmp_path / "train.bin"))
    assert np.array_equal(pixels, images.transpose(0, 2, 3, 1))
    assert np.array_equal(found, named[:, -1])
    assert peak < 1.2 * images.nbytes + (1 << 20)  # a piece of the file


def test_several_files_become_one_set_as_they_are_read(tmp_path):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (200, 200, 90, 400, 1)]

    def parts():  # each as it is read: of its own memory, channels first
        for number, part in enumerate(images):
            turned = part.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1)
            yield turned, None if number == 3 and not labelled else np.full(len(part), number)

    whole = np.concatenate(images)
    for labelled in (True, False):
        found, labels = arrays.joined(parts(), 5, tmp_path)
        assert np.array_equal(found, whole)
        assert (
            labels is None
            if not labelled
            else labels.tolist() == [number for number, part in enumerate(images) for _ in part]
        )
    equal = [images[0]] * 10
    _, peak = peak_of(lambda: arrays.joined(((part.copy(), None) for part in equal), 10, tmp_path))
    assert peak < 1.2 * 10 * images[0].nbytes
    small = images[0][:, :16]
    with pytest.raises(UserError, match="several sizes"):
        arrays.joined(iter([(images[0], None), (small, None)]), 2, tmp_path)


def test_grey_arrays_are_widened_as_they_are_read(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (100, 200, 180), dtype=np.uint8)
    for shape in ((100, 200, 180), (100, 200, 180, 1)):
        grey, labels = images.reshape(shape), np.arange(100)
        np.savez(tmp_path / "a.npz", images=grey, labels=labels)
        np.savez_compressed(tmp_path / "b.npz", images=grey, labels=labels)
        np.save(tmp_path / "c.npy", grey)
        with open(tmp_path / "d.npy", "wb") as file:
            np.lib.format.write_array(file, grey, version=(2, 0))
        for name in ("a.npz", "b.npz", "c.npy", "d.npy"):
            found, peak = peak_of(partial(arrays.read_array, tmp_path / name, "train"))
            assert np.array_equal(found[0], np.repeat(images[..., None], 3, axis=3))
            assert peak < 1.2 * found[0].nbytes
            assert found[1] is None or found[1].tolist() == list(range(100))
    for other in (np.asfortranarray(images[:9]), images.astype(int), images[:3, :3, :3]):
        np.save(tmp_path / "e.npy", other)
        with open(tmp_path / "e.npy", "rb") as file:
            assert arrays.read_grey(file) is None
    assert np.array_equal(
        arrays.read_array(save(tmp_path / "f.npy", np.asfortranarray(images)), "train")[0][..., 1],
        images,
    )
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
