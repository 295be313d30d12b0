"""Official files of CIFAR and SVHN give the very pixels and labels in them,
or an error says why not.
"""

import io
import os
import pickle
import struct

import numpy as np
import pytest
from conftest import noise
from scipy.io import savemat

from utils.loaders.forms import cifar, matlab
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
        pixels, labels = cifar.read_cifar(tmp_path / "c", "train")
        assert np.array_equal(
            pixels, np.concatenate([made[f"data_batch_{i}"][0] for i in range(1, 6)])
        )
        assert labels.tolist() == sum((made[f"data_batch_{i}"][1] for i in range(1, 6)), [])
        pixels, labels = cifar.read_cifar(tmp_path / "c", "test")
        assert (
            np.array_equal(pixels, made["test_batch"][0])
            and labels.tolist() == made["test_batch"][1]
        )
        assert pixels.dtype == np.uint8 and labels.dtype == np.int64

    @pytest.mark.parametrize("split", ("train", "test"))
    def test_cifar100_has_fine_labels(self, tmp_path, split):
        made = write_cifar100(tmp_path / "c")
        pixels, labels = cifar.read_cifar(tmp_path / "c", split)
        assert np.array_equal(pixels, made[split][0]) and labels.tolist() == made[split][1]

    @pytest.mark.parametrize("protocol", range(2, 6))
    def test_batches_written_by_python_3(self, tmp_path, protocol):
        made = write_cifar10(
            tmp_path / "c", lambda path, content: write_pickle(path, content, protocol)
        )
        pixels, labels = cifar.read_cifar(tmp_path / "c", "test")
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
            cifar.read_cifar(tmp_path / "c", "test")
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
                pixels, _ = cifar.read_cifar(tmp_path / "c", "test")
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
            cifar.read_cifar(tmp_path / "c", "train")

    def test_missing_or_truncated_batch_is_named(self, tmp_path):
        write_cifar10(tmp_path / "c")
        path = tmp_path / "c" / "data_batch_2"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(UserError, match="data_batch_2 is not"):
            cifar.read_cifar(tmp_path / "c", "train")
        path.unlink()
        with pytest.raises(UserError, match="data_batch_2 is missing.*data/download.py --check"):
            cifar.read_cifar(tmp_path / "c", "train")


class TestSvhn:
    def test_pixels_and_labels(self, tmp_path):
        images, labels = noise(5, 32, seed=0), np.array([10, 1, 9, 10, 5])
        stored = np.empty((32, 32, 3, 5), np.uint8)
        for i in range(5):
            stored[:, :, :, i] = images[i]
        savemat(tmp_path / "s.mat", {"X": stored, "y": labels.reshape(-1, 1).astype(np.uint8)})
        pixels, found = matlab.read_svhn(tmp_path / "s.mat")
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
            matlab.read_svhn(tmp_path / "s.mat")

    def test_another_kind_of_file(self, tmp_path):
        (tmp_path / "s.mat").write_text("not a mat file " * 100)
        with pytest.raises(UserError, match="s.mat is not an SVHN .mat file"):
            matlab.read_svhn(tmp_path / "s.mat")
