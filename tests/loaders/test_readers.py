"""Images are decoded and fitted as torchvision does, and only once."""

import io
import os
from contextlib import suppress

import numpy as np
import pytest
from conftest import coloured, noise, pack, write_images
from PIL import EpsImagePlugin, Image

from utils import runtime
from utils.loaders import containers, readers
from utils.runtime import UserError


class TestFitImage:
    SIZES = (
        (32, 32),
        (36, 36),
        (33, 47),
        (47, 33),
        (40, 41),
        (41, 40),
        (20, 50),
        (31, 31),
        (5, 9),
        (120, 81),
        (1, 40),
        (65, 32),
        (32, 65),
    )

    @pytest.mark.parametrize("size", SIZES, ids=str)
    @pytest.mark.parametrize("mode", ("RGB", "L"))
    def test_equals_torchvision_pixel_for_pixel(self, size, mode):
        transforms = pytest.importorskip("torchvision.transforms")
        width, height = size
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).convert(mode)
        expected = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32)])(
            image.convert("RGB")
        )
        assert np.array_equal(np.asarray(readers.fit_image(image, 32)), np.asarray(expected))

    def test_crop_only_takes_the_middle_of_36x36(self):
        pixels = noise(1, 36, seed=0)[0]
        assert np.array_equal(
            np.asarray(readers.fit_image(Image.fromarray(pixels), 32, crop_only=True)),
            pixels[2:34, 2:34],
        )

    def test_crop_only_enlarges_what_is_too_small(self):
        small = Image.fromarray(noise(1, 20, seed=0)[0])
        cropped = readers.fit_image(small, 32, crop_only=True)
        assert np.array_equal(np.asarray(cropped), np.asarray(readers.fit_image(small, 32)))
        assert cropped.size == (32, 32)

    def test_arrays_are_fitted_as_images_are(self):
        pixels = noise(3, 40, seed=1)[:, :36]
        expected = np.stack([np.asarray(readers.fit_image(Image.fromarray(p), 32)) for p in pixels])
        assert np.array_equal(readers.fit_pixels(pixels, 32), expected)


def pattern(*shape):
    """uint8 array of a formula, the same on every machine."""
    return (np.arange(np.prod(shape)) * 37 % 251).astype(np.uint8).reshape(shape)


def test_decoded_pixels_are_the_recorded_ones(tmp_path):
    """If this fails and the new pixels are wanted, raise DECODING in
    utils/loaders/readers.py and record them here.
    """
    recorded = {
        "small.png": (32, 124.92, 134),
        "wide.png": (32, 124.99, 136),
        "grey.png": (32, 125.34, 148),
    }
    Image.fromarray(pattern(20, 20, 3)).save(tmp_path / "small.png")
    Image.fromarray(pattern(40, 60, 3)).save(tmp_path / "wide.png")
    Image.fromarray(pattern(64, 64)).save(tmp_path / "grey.png")
    pixels, labels, classes, bad = readers.decode(containers.Folder(tmp_path), 32)
    found = {
        name: (len(image), round(float(image.mean()), 2), int(image[5, 7, 1]))
        for name, image in zip(sorted(recorded), pixels)
    }
    assert (readers.DECODING, found, labels, classes, bad) == (3, recorded, None, None, [])


class TestCache:
    @pytest.fixture
    def folder(self, tmp_path):
        images, labels = coloured(6, 3, 32, seed=0)
        return write_images(tmp_path / "images", images, labels)

    @pytest.fixture
    def decoded(self, monkeypatch):
        """List that grows by one with every decoding."""
        calls, decode = [], readers.decode

        def counted(source, *arguments):
            calls.append(source.path)
            return decode(source, *arguments)

        monkeypatch.setattr(readers, "decode", counted)
        return calls

    def read(self, path, data, size=32, crop_only=False, skip_bad=False):
        return readers.read_images(path, data, size, crop_only, skip_bad)

    @pytest.mark.parametrize("kind", ("folder", "a.zip", "a.tar.gz"))
    def test_decoded_once(self, folder, data, decoded, kind):
        path = folder if kind == "folder" else pack(folder, folder.parent / kind)
        first, second = self.read(path, data), self.read(path, data)
        assert len(decoded) == 1
        assert (
            np.array_equal(first[0], second[0])
            and np.array_equal(first[1], second[1])
            and first[2:] == second[2:]
        )
        assert second[1].dtype == np.int64 and second[0].dtype == np.uint8

    def test_labels_are_none_from_the_cache_too(self, tmp_path, data, decoded):
        flat = write_images(tmp_path / "flat", noise(2, 32, seed=0))
        self.read(flat, data)
        assert self.read(flat, data)[1:] == (None, None, []) and len(decoded) == 1

    @pytest.mark.parametrize(
        "change", ("pixels", "time", "new", "removed", "other class", "size", "crop")
    )
    def test_decoded_again_after_a_change(self, folder, data, decoded, change):
        before = self.read(folder, data)[0]
        file, keywords = folder / "class_0" / "000.png", {}
        if change == "pixels":
            write_images(folder / "class_0", noise(1, 32, seed=9))
        elif change == "time":
            os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
        elif change == "new":
            write_images(folder / "class_9", noise(1, 32, seed=9))
        elif change == "removed":
            file.unlink()
        elif change == "other class":
            file.rename(folder / "class_1" / "000.png")
        else:
            keywords = {"size": 16} if change == "size" else {"crop_only": True}
        after, labels = self.read(folder, data, **keywords)[:2]
        assert len(decoded) == 2 and len(after) == len(labels)
        assert (after.shape == before.shape and np.array_equal(after, before)) == (
            change in ("time", "crop")
        )
        self.read(folder, data, **keywords)
        assert len(decoded) == 2

    def test_what_another_decoding_left_is_not_read(self, folder, data, decoded, monkeypatch):
        self.read(folder, data)
        monkeypatch.setattr(readers, "DECODING", readers.DECODING + 1)
        self.read(folder, data)
        assert len(decoded) == 2

    def test_old_pixels_go_when_there_are_too_many(self, folder, data, decoded, monkeypatch):
        monkeypatch.setattr(runtime.cache, "LIMIT", 1)
        self.read(folder, data)
        self.read(folder, data, size=16)
        assert len(list((data / "cache").iterdir())) == 1

    def test_damaged_cache_is_made_again(self, folder, data, decoded):
        expected = self.read(folder, data)
        (cached,) = (data / "cache").iterdir()
        cached.write_bytes(cached.read_bytes()[:500])
        assert np.array_equal(self.read(folder, data)[0], expected[0])
        self.read(folder, data)
        assert len(decoded) == 2

    def test_skipped_images_are_remembered_and_still_refused_without_skip_bad(
        self, folder, data, decoded
    ):
        (folder / "class_2" / "002.png").write_text("x")
        for _ in range(2):
            pixels, _, _, bad = self.read(folder, data, skip_bad=True)
            assert len(pixels) == 5 and bad == ["class_2/002.png"]
        assert len(decoded) == 1
        with pytest.raises(UserError, match="class_2/002.png"):
            self.read(folder, data)

    def test_data_folder_that_cannot_be_written(self, folder, data):
        # root may write everywhere else
        (data / "cache").write_text("a file where the folder should be")
        data.chmod(0o555)
        assert len(self.read(folder, data)[0]) == 6
        assert [p.name for p in data.iterdir()] == ["cache"]
        data.chmod(0o755)


def test_an_image_file_starts_no_other_program(tmp_path, monkeypatch):
    """EPS is a program that Pillow would hand to Ghostscript, whatever the file is called."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: started.append(1))
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a").mkdir()
    for name in ("one.jpg", "two.png"):
        (tmp_path / "a" / name).write_bytes(eps)
    with suppress(Exception), Image.open(io.BytesIO(eps)) as image:
        image.load()
    assert started  # so that the test can fail
    started.clear()
    with pytest.raises(UserError, match="one.jpg"):
        readers.decode(containers.Folder(tmp_path), 8)
    assert not started
