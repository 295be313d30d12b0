"""Arrays give the very pixels and labels in them, or an error says why not."""

import os
import pickle
import zipfile

import numpy as np
import pytest
from conftest import noise

from utils.loaders import arrays
from utils.runtime import UserError


class TestArrays:
    IMAGES = noise(4, 6, seed=3)

    def read(self, path, **content):
        np.savez(path, **content) if path.suffix == ".npz" else np.save(path, content["images"])
        return arrays.read_array(path, "test")

    @pytest.mark.parametrize("name", ("a.npz", "a.npy"))
    def test_channels_last_and_channels_first(self, tmp_path, name):
        for images in (self.IMAGES, self.IMAGES.transpose(0, 3, 1, 2)):
            pixels, labels, classes = self.read(tmp_path / name, images=images)
            assert np.array_equal(pixels, self.IMAGES) and labels is None and classes is None

    @pytest.mark.parametrize("shape", ((4, 6, 6), (4, 6, 6, 1)))
    def test_grey_becomes_three_equal_channels(self, tmp_path, shape):
        grey = self.IMAGES[..., 0]
        pixels, _, _ = self.read(tmp_path / "a.npy", images=grey.reshape(shape))
        assert pixels.shape == (4, 6, 6, 3)
        assert all(np.array_equal(pixels[..., colour], grey) for colour in range(3))

    @pytest.mark.parametrize("key", ("images", "data", "x", "arr_0"))
    @pytest.mark.parametrize("labels_key", ("labels", "y"))
    def test_names_of_the_arrays(self, tmp_path, key, labels_key):
        pixels, labels, classes = self.read(
            tmp_path / "a.npz",
            **{key: self.IMAGES, labels_key: np.array([2, 0, 1, 1], np.uint8)},
            classes=np.array(["cat", "dog", "owl"]),
        )
        assert np.array_equal(pixels, self.IMAGES)
        assert (
            labels.tolist() == [2, 0, 1, 1]
            and labels.dtype == np.int64
            and classes == ("cat", "dog", "owl")
        )

    @pytest.mark.parametrize(
        "images, words",
        (
            (np.zeros((4, 6, 6, 3), np.float32), "float32, not uint8"),
            (np.zeros((4, 6, 6, 3), np.int64), "int64, not uint8"),
            (np.zeros((4, 6, 6, 3), bool), "bool, not uint8"),
            (np.array(["a", "b"]), "not uint8"),
            (np.zeros((6, 6), np.uint8), r"shape \(6, 6\)"),
            (np.zeros((4, 6, 6, 4), np.uint8), r"shape \(4, 6, 6, 4\)"),
            (np.zeros((4, 2, 6, 6, 3), np.uint8), "shape"),
            (np.zeros((4, 3072), np.uint8), "shape"),
            (np.uint8(3), "shape"),
            (np.zeros((0, 6, 6, 3), np.uint8), "no image"),
            (np.zeros((4, 0, 6, 3), np.uint8), "no image"),
        ),
    )
    @pytest.mark.parametrize("name", ("a.npz", "a.npy"))
    def test_wrong_shape_or_type(self, tmp_path, name, images, words):
        with pytest.raises(UserError, match=f"{name}.*{words}"):
            self.read(tmp_path / name, images=images)

    @pytest.mark.parametrize("labels", (np.zeros(3, int), np.zeros(4), np.array(list("abcd"))))
    def test_wrong_labels(self, tmp_path, labels):
        with pytest.raises(UserError, match="a.npz.*labels are"):
            self.read(tmp_path / "a.npz", images=self.IMAGES, labels=labels)

    def test_object_arrays_are_refused_and_not_unpickled(self, tmp_path):
        marker = tmp_path / "executed"

        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(marker),)

        for name in ("a.npz", "a.npy"):
            with pytest.raises(UserError, match=f"{name} cannot be read"):
                self.read(tmp_path / name, images=np.array([Evil()], dtype=object))
        with pytest.raises(UserError, match="a.npz cannot be read"):
            self.read(
                tmp_path / "a.npz", images=self.IMAGES, labels=np.array([Evil()] * 4, dtype=object)
            )
        assert not marker.exists()

    def test_other_files_are_refused(self, tmp_path):
        with pytest.raises(UserError, match="pictures, notes; its images must be called 'images'"):
            self.read(tmp_path / "a.npz", pictures=self.IMAGES, notes=np.zeros(2))
        whole = (tmp_path / "a.npz").read_bytes()
        for content in (b"", b"\x93NUMPY", whole[: len(whole) // 2], pickle.dumps([1])):
            for name in ("a.npz", "a.npy"):
                (tmp_path / name).write_bytes(content)
                with pytest.raises(UserError, match=f"{name} cannot be read"):
                    arrays.read_array(tmp_path / name, "test")
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
            file.writestr("images", "no array")
        with pytest.raises(UserError, match="not uint8"):
            arrays.read_array(tmp_path / "a.npz", "test")
