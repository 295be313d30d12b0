"""A form, or parts as arrays, packed into an archive is read as where it lies unpacked; one folder
around everything is passed through; what is none of these says what it is.
"""

import gzip
import tarfile
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import scipy.io
from conftest import coloured, noise, pack, write_images
from test_forms import expect, idx, pixels_of, write_version
from test_official_files import write_cifar10

from utils import loaders
from utils.loaders import bounds
from utils.runtime import UserError

ARCHIVES = ("a.zip", "a.tar", "a.tar.gz", "a")


def packed(folder, archive):
    """The archive; "a" is a .tar.gz by its content alone."""
    if archive.suffix:
        return pack(folder, archive)
    return pack(folder, archive.with_name("a.tar.xz")).rename(archive)


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("around", ("", "cifar-10-batches"))
@pytest.mark.parametrize("version", ("python", ".bin", ".mat"))
def test_cifar_in_an_archive(version, around, name, tmp_path, data):
    folder = tmp_path / "c" / around
    if version == "python":
        batches = write_cifar10(folder)
        pieces = [batches[f"data_batch_{i}"] for i in range(1, 6)]
        made = {"test": batches["test_batch"]}
        made["train"] = np.concatenate([p[0] for p in pieces]), sum((p[1] for p in pieces), [])
    else:
        made = write_version(folder / "x" if around == "" else folder, version, 10)
    (folder / "readme.html").write_text("<p>")
    archive = packed(tmp_path / "c", tmp_path / name)
    for split in ("train", "test"):
        found = expect(archive, split, *made[split], data)
        assert found.source.startswith(str(archive))
        assert found.classes == (tuple("abcdefghij") if version == "python" else None)
    assert loaders.has_parts(archive)
    with pytest.raises(UserError, match="has a training and a test part"):
        loaders.load_id("own", "test", data, loaders.Unsplit(archive, 0.5))


@pytest.mark.parametrize("name", ("cifar-10-binary.tar.gz", "cifar-100-matlab.tar.gz"))
def test_a_published_archive_by_name(name, tmp_path, data):
    classes = int(name.split("-")[1])
    made = write_version(tmp_path / "c" / "x", ".bin" if "binary" in name else ".mat", classes)
    pack(tmp_path / "c", data / name)
    for split in ("train", "test"):
        found = loaders.load_id(f"cifar{classes}", split, data)
        assert np.array_equal(pixels_of(found), made[split][0])


def test_a_batch_that_is_missing_is_named_in_its_archive(tmp_path, data):
    write_version(tmp_path / "c", ".bin", 10)
    (tmp_path / "c" / "data_batch_2.bin").unlink()
    archive = pack(tmp_path / "c", tmp_path / "a.zip")
    with pytest.raises(UserError, match="a.zip/data_batch_2.bin is missing"):
        loaders.load_id("own", "train", data, archive)


@pytest.mark.parametrize("name", ("a.zip", "a.tar.gz"))
def test_idx_and_arrays_in_an_archive(name, tmp_path, data):
    for seed, part in enumerate(("train", "t10k")):
        for what, array in (("images-idx3", noise(5, 28, seed)[..., 0]),
                            ("labels-idx1", np.arange(5, dtype=np.uint8))):  # fmt: skip
            place = tmp_path / "m" / "raw" / f"{part}-{what}-ubyte.gz"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(gzip.compress(idx(array)))
    archive = pack(tmp_path / "m", tmp_path / name)
    colour = np.stack([noise(5, 28, 1)[..., 0]] * 3, axis=-1)
    expect(archive, "test", colour, range(5), data)
    (tmp_path / "around").mkdir()
    (tmp_path / "m").rename(tmp_path / "around" / "m")
    for path in (archive, tmp_path / "around"):
        judged = loaders.load_pictures(str(path), data, 28)
        assert np.array_equal(pixels_of(judged), colour) and judged.labels is None
    keras = noise(4, 32, 0), noise(3, 32, 1)
    (tmp_path / "k" / "deep").mkdir(parents=True)
    np.savez(tmp_path / "k" / "deep" / "train.npz", images=keras[0], labels=[0, 1, 0, 1])
    np.savez(tmp_path / "k" / "deep" / "val.npz", images=keras[1], labels=[[0], [1], [0]])
    archive = pack(tmp_path / "k", tmp_path / f"k{name}")
    expect(archive, "train", keras[0], [0, 1, 0, 1], data)
    expect(archive, "test", keras[1], [0, 1, 0], data)


def test_corruptions_in_an_archive(tmp_path, data, capsys):
    made, folder = {}, tmp_path / "c" / "CIFAR-10-C"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("fog", "frost")):
        made[name] = noise(10, 32, seed)
        np.save(folder / f"{name}.npy", made[name])
    np.save(folder / "labels.npy", np.tile([1, 0], 5))
    archive = pack(tmp_path / "c", tmp_path / "CIFAR-10-C.tar")
    flat = pack(folder, tmp_path / "C.zip")  # without the folder around
    items = f"{archive},{archive}@3,{flat}@5,own={flat}@1"
    sets = loaders.parse_ood(items, "own", data)
    names = ["fog", "frost", "fog_3", "frost_3", "fog_5", "frost_5", "own_fog_1", "own_frost_1"]
    assert [found.name for found in sets] == names
    parts = (slice(None), slice(4, 6), slice(8, 10), slice(0, 2))
    wanted = [made[name][part] for part in parts for name in ("fog", "frost")]
    assert all(np.array_equal(pixels_of(f), w) for f, w in zip(sets, wanted, strict=True))
    assert (
        "CIFAR-10-C.tar/CIFAR-10-C/fog.npy@3, the images of severity 3" in capsys.readouterr().out
    )
    with pytest.raises(UserError, match="CIFAR-10-C/fog.npy@3") as told:
        loaders.load("x", path=archive, data=data)
    named = str(told.value).rpartition(" ")[2]  # what the error says to type
    expect(named, "test", made["fog"][4:6], [1, 0], data)
    assert loaders.lies_at(named) and not loaders.lies_at(named.replace("fog", "frog"))
    assert np.array_equal(pixels_of(loaders.load_pictures(named, data)), made["fog"][4:6])
    with pytest.raises(UserError, match="does not exist"):
        loaders.load_pictures(named.replace("fog", "frog"), data)


def test_an_array_inside_that_claims_too_much(tmp_path, data, monkeypatch):
    monkeypatch.setattr(bounds, "FREE_BYTES", 1 << 16)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("test_batch.bin", bytes(100 * 3073))
    with pytest.raises(UserError, match="packed into"):
        loaders.load("x", path=tmp_path / "a.zip", data=data)


@pytest.mark.parametrize("parts", (("train", "test"), ("Train", "val")))
def test_a_folder_around_everything_is_passed_through(parts, tmp_path, data):
    made = {}
    for seed, part in enumerate(parts):
        images, labels = coloured(4, 2, 32, seed)
        write_images(tmp_path / "a" / "b" / part, images, labels)
        made[part] = images[np.argsort(labels, kind="stable")]
    for split, part in zip(("train", "test"), parts):
        expect(tmp_path / "a", split, made[part], [0, 0, 1, 1], data)
    assert np.array_equal(
        pixels_of(loaders.parse_ood(f"{tmp_path}/a", "o", data)[0]), made[parts[1]]
    )
    # a set's name leads to its test part as well
    (data / "ood").mkdir()
    (tmp_path / "a" / "b").rename(data / "ood" / "mine")
    assert np.array_equal(pixels_of(loaders.load("mine", data=data)), made[parts[1]])


def test_keras_by_a_sets_name(data):
    np.savez(data / "mnist.npz", x_train=noise(3, 28, 0), x_test=noise(2, 28, 1)[..., 0])
    assert len(loaders.load("mnist", data=data)) == 2


def test_what_lies_beside_the_parts_is_said(tmp_path, data, capsys):
    for seed, part in enumerate(("train", "test", "val", "extra")):
        write_images(tmp_path / "a" / part, *coloured(4, 2, 32, seed))
    pack(tmp_path / "a", tmp_path / "a.zip")
    for path in (tmp_path / "a", tmp_path / "a.zip"):
        loaders.load_id("own", "train", data, path)
        assert "beside them, not read: val, extra" in capsys.readouterr().out
        loaders.parse_ood(str(path), "own", data)
        assert "beside them, not read: train, val, extra" in capsys.readouterr().out


def test_a_class_that_is_called_train(tmp_path, data, capsys):
    for part in ("train", "car"):
        write_images(tmp_path / "a" / part, noise(3, 32, 0))
    loaders.parse_ood(f"{tmp_path}/a", "own", data)
    assert "the train part, as there is no test part" in (out := capsys.readouterr().out)
    assert "beside them, not read: car" in out


@pytest.mark.parametrize("gap", (" ", "\t"))
def test_lists_as_parts(gap, tmp_path, data):
    images, labels = coloured(6, 2, 32, 0)
    write_images(tmp_path / "l" / "images", images)
    for part, rows in (("train", range(4)), ("test", (4, 5))):
        lines = [f"images/{i:03d}.png{gap}{labels[i]}" for i in rows]
        (tmp_path / "l" / f"{part}.txt").write_text("\n".join(lines))
    expect(tmp_path / "l", "train", images[:4], labels[:4], data)
    expect(tmp_path / "l", "test", images[4:], labels[4:], data)
    (tmp_path / "l" / "mine.lst").write_text(f"images/003.png{gap}1")
    found = loaders.load("x", path=tmp_path / "l" / "mine.lst", data=data)
    assert np.array_equal(pixels_of(found), images[3:4]) and found.names == ("images/003.png",)
    (tmp_path / "l" / "test.txt").write_text("my notes 3")  # no list
    with pytest.raises(UserError, match="has no test part"):
        loaders.load_id("own", "test", data, tmp_path / "l")


@pytest.mark.parametrize("name", ("a", "A.NPZ", "b.bin2"))
def test_arrays_by_content(name, tmp_path, data):
    np.savez(tmp_path / "x.npz", X_train=noise(2, 32, 0), y_train=[0, 1], X_Test=noise(1, 32, 1),
             Y_test=[[1]])  # fmt: skip
    (tmp_path / "x.npz").rename(tmp_path / name)
    expect(tmp_path / name, "train", noise(2, 32, 0), [0, 1], data)
    expect(tmp_path / name, "test", noise(1, 32, 1), [1], data)


def test_an_archive_by_content_has_parts(tmp_path, data):
    for seed, part in enumerate(("train", "test")):
        write_images(tmp_path / "a" / part, *coloured(4, 2, 32, seed))
    archive = pack(tmp_path / "a", tmp_path / "x.zip").rename(tmp_path / "flowers")
    assert loaders.has_parts(archive) and len(loaders.load_id("own", "test", data, archive)) == 4


@pytest.mark.parametrize(
    "content, words",
    (
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"7z\xbc\xaf'\x1c", "a 7z archive"),
        (b"\x80\x04}", "a pickle"),
        (b"a,b\n1,2\n", "a text that is no list"),
        (b"\0\1\2", "neither an image nor an archive"),
        (b"", "an empty file"),
    ),
)
def test_what_a_file_is_that_is_not_read(content, words, tmp_path, data):
    (tmp_path / "a.xyz").write_bytes(content)
    with pytest.raises(UserError, match=f"{words}.*, which is not read.*Bring image files"):
        loaders.load("x", path=tmp_path / "a.xyz", data=data)


@pytest.mark.parametrize("head", (b"MATLAB 7.3 MAT-file, Platform", b"\x89HDF\r\n\x1a\n"))
@pytest.mark.parametrize("name", ("test_32x32.mat", "a.mat"))
def test_a_mat_of_version_7_3_says_what_to_do(name, head, tmp_path, data):
    (tmp_path / name).write_bytes(head + bytes(600))
    with pytest.raises(UserError, match="version 7.3, which is HDF5.*-v7.*npz"):
        loaders.load("x", path=tmp_path / name, data=data)


def test_several_idx_sets_in_a_folder_are_not_guessed(tmp_path, data):
    for name in ("balanced", "letters"):
        (tmp_path / f"emnist-{name}-test-images-idx3-ubyte").write_bytes(
            idx(noise(2, 8, 0)[..., 0])
        )
    with pytest.raises(UserError, match="several sets of test images"):
        loaders.load("x", path=tmp_path, data=data)


def test_members_with_a_leading_dot(tmp_path, data):
    write_version(tmp_path / "c", ".bin", 100)
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(tmp_path / "c", ".")
    assert len(loaders.load_id("own", "test", data, tmp_path / "a.tar")) == 4
    for seed, part in enumerate(("train", "test")):
        write_images(tmp_path / "i" / part, *coloured(6, 3, 32, seed))
    with tarfile.open(tmp_path / "i.tar", "w") as file:
        file.add(tmp_path / "i", ".")
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as file:
        for path in (tmp_path / "i").rglob("*.png"):
            file.write(path, str(path.relative_to(tmp_path / "i")).replace("/", "\\"))
    for name in ("i.tar", "i.zip"):
        found = loaders.load_id("own", "test", data, tmp_path / name)
        assert len(found) == 6 and found.classes == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize(
    "arrays, advice",
    (
        ({"images": noise(2, 8, 0) / 255, "labels": [0, 1]}, r"\(255 \* images\)"),
        ({"images": noise(2, 8, 0), "labels": np.eye(2)}, r"labels.argmax\(1\)"),
        ({"images": noise(2, 8, 0), "labels": np.array(["a", "b"])}, "return_inverse=True"),
        ({"images": noise(2, 8, 0), "labels": np.array([0.0, 1.0])}, r"labels.astype\(int\)"),
    ),
)
def test_what_to_write_instead_is_said(arrays, advice, tmp_path, data):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=advice):
        loaders.load("x", path=tmp_path / "a.npz", data=data)


def test_labels_of_another_name_are_named(tmp_path, data):
    np.savez(tmp_path / "a.npz", images=noise(2, 8, 0), target=[0, 1])
    with pytest.raises(UserError, match="'labels'. It holds images, target"):
        loaders.load_id("x", "train", data, tmp_path / "a.npz")


def test_a_mat_of_other_variables_names_them(tmp_path, data):
    scipy.io.savemat(tmp_path / "a.mat", {"imgs": noise(2, 8, 0), "cls": [0, 1]})
    with pytest.raises(UserError, match="holds imgs, cls; of a .mat are read 'X' and 'y'"):
        loaders.load("x", path=tmp_path / "a.mat", data=data)


def test_a_class_that_training_lacks_is_named(tmp_path, data):
    for part, names in (("train", "ab"), ("test", "abf")):
        np.savez(
            tmp_path / f"{part}.npz",
            images=noise(3, 8, len(names)),
            labels=np.arange(3) % len(names),
            classes=list(names),
        )
    args = Namespace(
        dataset="mine", id=tmp_path, data=data, split=None, image_size=None, skip_bad=False
    )
    with pytest.raises(UserError, match="outside 0 to 1. Its classes are a, b, f"):
        loaders.load_id_pair(args)
