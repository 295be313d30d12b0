"""Official files, folders, archives and arrays give the very pixels and labels in them,
or an error says why not.
"""

import io
import os
import pickle
import random
import struct
import tarfile
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from conftest import coloured, noise, pack, write_images
from PIL import EpsImagePlugin, Image
from scipy.io import savemat

from utils import runtime
from utils.loaders import readers
from utils.runtime import UserError


class Python2Pickler(pickle._Pickler):
    """Pickler that writes text and bytes as Python 2 did, as the official CIFAR files hold them."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        value = value.encode("latin-1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(value)) + value)

    dispatch[bytes] = dispatch[str] = save_string


def write_official(path, content):
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    path.write_bytes(buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core."))


def planes(images):
    """The rows of an official batch: all red values of an image by rows,
    then all green, then all blue.
    """
    return np.stack(
        [
            np.concatenate([image[..., colour].reshape(-1) for colour in range(3)])
            for image in images
        ]
    )


def write_cifar10(folder, write=write_official):
    """Seven images a batch; returns {batch name: (images, labels)}."""
    folder.mkdir(parents=True)
    made = {}
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        images, labels = noise(7, 32, seed=i), [(i + k) % 10 for k in range(7)]
        write(
            folder / name,
            {
                "data": planes(images),
                "labels": labels,
                "batch_label": name,
                "filenames": ["x.png"] * 7,
            },
        )
        made[name] = images, labels
    write(folder / "batches.meta", {"label_names": list("abcdefghij")})
    return made


def write_cifar100(folder, write=write_official):
    folder.mkdir(parents=True)
    made = {}
    for i, name in enumerate(("train", "test")):
        images, labels = noise(9, 32, seed=10 + i), [11 * k for k in range(9)]
        write(
            folder / name,
            {
                "data": planes(images),
                "fine_labels": labels,
                "coarse_labels": [k % 20 for k in labels],
            },
        )
        made[name] = images, labels
    write(folder / "meta", {"fine_label_names": ["x"] * 100})
    return made


def write_pickle(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))


class TestCifar:
    def test_cifar10(self, tmp_path):
        made = write_cifar10(tmp_path / "c")
        pixels, labels, _ = readers.read_cifar(tmp_path / "c", "train")
        assert np.array_equal(
            pixels, np.concatenate([made[f"data_batch_{i}"][0] for i in range(1, 6)])
        )
        assert labels.tolist() == sum((made[f"data_batch_{i}"][1] for i in range(1, 6)), [])
        pixels, labels, _ = readers.read_cifar(tmp_path / "c", "test")
        assert (
            np.array_equal(pixels, made["test_batch"][0])
            and labels.tolist() == made["test_batch"][1]
        )
        assert pixels.dtype == np.uint8 and labels.dtype == np.int64

    @pytest.mark.parametrize("split", ("train", "test"))
    def test_cifar100_has_fine_labels(self, tmp_path, split):
        made = write_cifar100(tmp_path / "c")
        pixels, labels, _ = readers.read_cifar(tmp_path / "c", split)
        assert np.array_equal(pixels, made[split][0]) and labels.tolist() == made[split][1]

    @pytest.mark.parametrize("protocol", range(2, 6))
    def test_batches_written_by_python_3(self, tmp_path, protocol):
        made = write_cifar10(
            tmp_path / "c", lambda path, content: write_pickle(path, content, protocol)
        )
        pixels, labels, _ = readers.read_cifar(tmp_path / "c", "test")
        assert (
            np.array_equal(pixels, made["test_batch"][0])
            and labels.tolist() == made["test_batch"][1]
        )

    @pytest.mark.parametrize(
        "call", ((os.system, "touch {}"), (exec, "open('{}', 'w')"), (os.mkdir, "{}"))
    )
    def test_a_malicious_batch_is_refused_and_not_executed(self, tmp_path, call):
        marker = tmp_path / "executed"

        class Evil:
            def __reduce__(self):
                return call[0], (call[1].format(marker),)

        pickle.loads(pickle.dumps(Evil()))
        assert marker.exists()  # so that the test can fail
        marker.rmdir() if marker.is_dir() else marker.unlink()
        made = write_cifar10(tmp_path / "c")
        write_pickle(
            tmp_path / "c" / "test_batch",
            {b"data": planes(made["test_batch"][0]), b"labels": [0] * 7, b"x": Evil()},
        )
        with pytest.raises(UserError, match="test_batch.*it asks for"):
            readers.read_cifar(tmp_path / "c", "test")
        assert not marker.exists()

    @pytest.mark.parametrize("kind", ("O", "f8", "i8", "V16"))
    def test_no_kind_of_array_but_uint8_is_built(self, tmp_path, kind):
        """A dtype that says u1 and is made another one by its state would read the file's bytes as
        addresses.
        """
        made = write_cifar10(tmp_path / "c")
        state = np.dtype(kind).__reduce__()[2]

        class Disguised:
            def __reduce__(self):
                return np.dtype, ("u1", False, True), state

        class Data:
            def __init__(self, kind):
                self.kind = kind

            def __reduce__(self):
                rebuild, arguments, _ = np.zeros(1, np.uint8).__reduce__()
                return rebuild, arguments, (1, (7, 3072), self.kind, False, bytes(7 * 3072))

        for disguise in (Disguised(), np.dtype(kind)):
            write_pickle(
                tmp_path / "c" / "test_batch",
                {b"data": Data(disguise), b"labels": made["test_batch"][1]},
            )
            try:
                pixels, _, _ = readers.read_cifar(tmp_path / "c", "test")
            except UserError as error:
                assert "test_batch is not an official CIFAR batch" in str(error)
            else:  # the bytes themselves, as the uint8 that they are
                assert isinstance(disguise, Disguised) and pixels.dtype == np.uint8

    @pytest.mark.parametrize(
        "content",
        (
            [1, 2],
            {b"data": np.zeros((2, 3072), object), b"labels": [0, 0]},
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": np.array([0, 1])},
            {b"data": {1, 2}, b"labels": [0, 0]},
            {b"data": np.zeros((2, 3072), np.uint8)},
            {b"labels": [1]},
            {b"data": np.zeros((2, 3000), np.uint8), b"labels": [0, 0]},
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
            {b"data": np.zeros((1, 3072), np.float32), b"labels": [0]},
            {b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]},
            {b"data": np.zeros((0, 3072), np.uint8), b"labels": []},
        ),
    )
    def test_wrong_content_is_named(self, tmp_path, content):
        write_cifar10(tmp_path / "c")
        write_pickle(tmp_path / "c" / "data_batch_3", content)
        with pytest.raises(UserError, match="data_batch_3 is not an official CIFAR batch"):
            readers.read_cifar(tmp_path / "c", "train")

    def test_missing_or_truncated_batch_is_named(self, tmp_path):
        write_cifar10(tmp_path / "c")
        path = tmp_path / "c" / "data_batch_2"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(UserError, match="data_batch_2 is not"):
            readers.read_cifar(tmp_path / "c", "train")
        path.unlink()
        with pytest.raises(UserError, match="data_batch_2 is missing.*data/download.py --check"):
            readers.read_cifar(tmp_path / "c", "train")


class TestSvhn:
    def test_pixels_and_labels(self, tmp_path):
        images, labels = noise(5, 32, seed=0), np.array([10, 1, 9, 10, 5])
        stored = np.empty((32, 32, 3, 5), np.uint8)
        for i in range(5):
            stored[:, :, :, i] = images[i]
        savemat(tmp_path / "s.mat", {"X": stored, "y": labels.reshape(-1, 1).astype(np.uint8)})
        pixels, found, _ = readers.read_svhn(tmp_path / "s.mat", "test")
        assert np.array_equal(pixels, images) and found.tolist() == [0, 1, 9, 0, 5]

    @pytest.mark.parametrize(
        "content",
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8)},
            {"y": np.ones((2, 1))},
            {"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))},
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1))},
        ),
    )
    def test_wrong_content_is_named(self, tmp_path, content):
        savemat(tmp_path / "s.mat", content)
        with pytest.raises(UserError, match="s.mat is not an SVHN .mat file"):
            readers.read_svhn(tmp_path / "s.mat", "test")

    def test_another_kind_of_file(self, tmp_path):
        (tmp_path / "s.mat").write_text("not a mat file " * 100)
        with pytest.raises(UserError, match="s.mat is not an SVHN .mat file"):
            readers.read_svhn(tmp_path / "s.mat", "test")


class TestArrays:
    IMAGES = noise(4, 6, seed=3)

    def read(self, path, **arrays):
        np.savez(path, **arrays) if path.suffix == ".npz" else np.save(path, arrays["images"])
        return readers.read_array(path, "test")

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
                    readers.read_array(tmp_path / name, "test")
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
            file.writestr("images", "no array")
        with pytest.raises(UserError, match="not uint8"):
            readers.read_array(tmp_path / "a.npz", "test")


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


def decode_all(path, **keywords):
    return readers.decode(
        readers.Folder(path) if path.is_dir() else readers.Archive(path), 32, **keywords
    )


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
    pixels, labels, classes, bad = decode_all(tmp_path)
    found = {
        name: (len(image), round(float(image.mean()), 2), int(image[5, 7, 1]))
        for name, image in zip(sorted(recorded), pixels)
    }
    assert (readers.DECODING, found, labels, classes, bad) == (2, recorded, None, None, [])


class TestFoldersAndArchives:
    @pytest.fixture
    def folder(self, tmp_path):
        images, labels = coloured(6, 3, 32, seed=0)
        return write_images(tmp_path / "images", images, labels)

    def test_class_folders(self, folder):
        images, labels = coloured(6, 3, 32, seed=0)
        pixels, found, classes, bad = decode_all(folder)
        order = np.argsort(labels, kind="stable")  # class by class, by name within a class
        assert np.array_equal(pixels, images[order]) and found.tolist() == labels[order].tolist()
        assert classes == ("class_0", "class_1", "class_2") and bad == []

    @pytest.mark.parametrize("ending", (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))
    def test_an_archive_is_as_its_folder_in_whatever_order_it_was_packed(
        self, folder, tmp_path, ending
    ):
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
        random.Random(1).shuffle(names)
        packed = pack(folder, tmp_path / f"a{ending.replace('.tgz', '.tar.gz')}", names)
        archive = packed.rename(tmp_path / f"a{ending}")
        pixels, labels, classes, bad = decode_all(archive)
        expected = decode_all(folder)
        assert np.array_equal(pixels, expected[0]) and np.array_equal(labels, expected[1])
        assert classes == expected[2] and bad == []

    def test_a_compressed_archive_is_read_front_to_back(self, folder, tmp_path):
        names = sorted(
            (p.relative_to(folder).as_posix() for p in folder.rglob("*.png")), reverse=True
        )
        source = readers.Archive(pack(folder, tmp_path / "a.tar.gz", names))
        assert source.names == sorted(names) and [source.names[i] for i in source.order] == names

    def test_flat_folder_has_no_labels(self, tmp_path):
        images = noise(3, 32, seed=1)
        pixels, labels, classes, _ = decode_all(write_images(tmp_path / "flat", images))
        assert np.array_equal(pixels, images) and labels is None and classes is None

    def test_sorted_by_whole_name(self, tmp_path):
        images = noise(4, 32, seed=2)
        for image, name in zip(images, ("b/10.png", "b/9.png", "a/z.PNG", "B/1.png")):
            write_images(tmp_path / "write", [image])
            (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "write" / "000.png").rename(tmp_path / "s" / name)
        pixels, labels, classes, _ = decode_all(tmp_path / "s")
        assert readers.Folder(tmp_path / "s").names == ["B/1.png", "a/z.PNG", "b/10.png", "b/9.png"]
        assert np.array_equal(pixels, images[[3, 2, 0, 1]]) and labels.tolist() == [0, 1, 2, 2]
        assert classes == ("B", "a", "b")

    def test_what_is_no_image_or_hidden_is_passed_over(self, folder):
        expected = decode_all(folder)
        (folder / "notes.txt").write_text("x")
        (folder / "class_0" / "._000.png").write_bytes(b"x")
        write_images(folder / ".thumbnails", noise(1, 32, seed=0))
        write_images(folder / "__MACOSX", noise(1, 32, seed=0))
        pixels, labels, classes, _ = decode_all(folder)
        assert np.array_equal(pixels, expected[0]) and classes == expected[2]
        assert np.array_equal(decode_all(pack(folder, folder.parent / "a.zip"))[0], expected[0])

    def test_linked_class_folders_are_read(self, folder, tmp_path):
        (tmp_path / "links").mkdir()
        for part in folder.iterdir():
            (tmp_path / "links" / part.name).symlink_to(part)
        assert np.array_equal(decode_all(tmp_path / "links")[0], decode_all(folder)[0])

    @pytest.mark.parametrize("mode", ("L", "LA", "RGBA", "P", "CMYK", "1", "I;16"))
    def test_every_kind_of_image_becomes_rgb(self, tmp_path, mode):
        deep = Image.fromarray((np.arange(1600, dtype=np.uint16) * 40).reshape(40, 40))
        image = deep if mode == "I;16" else Image.fromarray(noise(1, 40, seed=4)[0]).convert(mode)
        ending = ".tif" if mode == "CMYK" else ".png"
        (tmp_path / "m").mkdir()
        image.save(tmp_path / "m" / f"a{ending}")
        assert Image.open(tmp_path / "m" / f"a{ending}").mode == mode
        pixels = decode_all(tmp_path / "m")[0]
        if mode == "I;16":  # the high byte, where convert() would clip all above 255 to white
            image = Image.fromarray(np.round(np.asarray(deep) / 257).astype(np.uint8))
        assert np.array_equal(pixels[0], np.asarray(readers.fit_image(image.convert("RGB"), 32)))

    @pytest.mark.parametrize("ending", (".png", ".jpg", ".bmp", ".webp", ".gif", ".ppm", ".tif"))
    def test_a_truncated_image_is_named_or_left_out(self, tmp_path, ending):
        images, labels = noise(4, 32, seed=5), [0, 1, 1, 1]
        folder = write_images(tmp_path / "t", images, labels, ending)
        whole = decode_all(folder)
        bad = folder / "class_1" / f"002{ending}"
        content = bad.read_bytes()
        for part in (content[: len(content) // 2], content[:20], b""):
            bad.write_bytes(part)
            with pytest.raises(
                UserError, match=f"'class_1/002{ending}' cannot be read.*--skip-bad"
            ):
                decode_all(folder)
            pixels, found, classes, left_out = decode_all(folder, skip_bad=True)
            assert np.array_equal(pixels, whole[0][[0, 1, 3]]) and found.tolist() == [0, 1, 1]
            assert left_out == [f"class_1/002{ending}"] and classes == whole[2]

    def test_a_bad_image_makes_no_noise_of_its_own(self, tmp_path, recwarn):
        folder = write_images(tmp_path / "t", noise(2, 32, seed=5), ending=".tif")
        content = (folder / "000.tif").read_bytes()
        (folder / "000.tif").write_bytes(content[: len(content) - 30])
        assert decode_all(folder, skip_bad=True)[3] == ["000.tif"] and len(recwarn) == 0

    def test_bad_image_in_an_archive(self, folder, tmp_path):
        (folder / "class_0" / "000.png").write_text("no image")
        for name in ("a.zip", "a.tar.gz"):
            archive = pack(folder, tmp_path / name)
            with pytest.raises(UserError, match=f"{name}: image 'class_0/000.png' cannot be read"):
                decode_all(archive)
            assert len(decode_all(archive, skip_bad=True)[0]) == 5

    def test_link_to_nothing_is_named(self, folder):
        (folder / "class_0" / "gone.png").symlink_to(folder / "nothing.png")
        with pytest.raises(UserError, match="'class_0/gone.png' cannot be read"):
            decode_all(folder)
        assert decode_all(folder, skip_bad=True)[3] == ["class_0/gone.png"]

    def test_nothing_to_read(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="empty holds no image"):
            decode_all(tmp_path / "empty")
        (tmp_path / "empty" / "a.png").write_text("x")
        with pytest.raises(UserError, match="none of its 1 images can be read"):
            decode_all(tmp_path / "empty", skip_bad=True)
        (tmp_path / "empty" / "a.png").rename(tmp_path / "empty" / "a.txt")
        for name in ("a.zip", "a.tar"):
            with pytest.raises(UserError, match=f"{name} holds no image"):
                decode_all(pack(tmp_path / "empty", tmp_path / name))

    @pytest.mark.parametrize("ending", (".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"))
    def test_damaged_archives(self, folder, tmp_path, ending):
        archive = pack(folder, tmp_path / f"a{ending}")
        content = archive.read_bytes()
        for part in (content[: len(content) // 2], content[:100], b"", b"x" * 2000):
            archive.write_bytes(part)
            with pytest.raises(UserError, match="is not a readable .zip or .tar archive"):
                decode_all(archive)

    def test_a_damaged_header_does_not_hide_the_images_behind_it(self, folder, tmp_path):
        archive = pack(folder, tmp_path / "a.tar")
        with tarfile.open(archive) as file:
            third = file.getmembers()[2].offset
        content = bytearray(archive.read_bytes())
        content[third : third + 200] = b"?" * 200
        archive.write_bytes(content)
        with pytest.raises(UserError, match="is not a readable .zip or .tar archive"):
            decode_all(archive)

    def test_nothing_leaves_the_archive(self, tmp_path):
        png = io.BytesIO()
        Image.fromarray(noise(1, 32, seed=0)[0]).save(png, "PNG")
        (tmp_path / "in").mkdir()
        with tarfile.open(tmp_path / "in" / "a.tar", "w") as file:
            for name in ("../outside.png", "a/inside.png"):
                member = tarfile.TarInfo(name)
                member.size = len(png.getvalue())
                file.addfile(member, io.BytesIO(png.getvalue()))
            link = tarfile.TarInfo("a/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            file.addfile(link)
        pixels, labels, classes, bad = decode_all(tmp_path / "in" / "a.tar")
        assert len(pixels) == 1 and classes == ("a",) and bad == []
        assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "in"]


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
        readers.decode(readers.Folder(tmp_path), 8)
    assert not started
