"""Every form that images come in gives the very pixels and labels that went into it, of each part;
what is not whole, or lies about itself, is one line.
"""

import gzip
import io
import json
import os
import struct
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT, coloured, noise, pack, write_images
from PIL import Image
from scipy.io import savemat
from test_official_files import planes

from utils import loaders
from utils.loaders import decoders, forms, heads, readers
from utils.runtime import UserError


def pixels_of(images):
    return images.images.permute(0, 2, 3, 1).numpy()


def expect(path, split, images, labels, data, **keywords):
    found = loaders.load_id("own", split, data, path, **keywords)
    assert np.array_equal(pixels_of(found), images) and found.labels.tolist() == list(labels)
    return found


def test_every_form_is_in_the_table():
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert [form.title for form in forms.FORMS if f"\n| {form.title} |" not in page] == []


# ---- CIFAR's binary and MATLAB versions

COUNT = 4


def labels_for(number, classes):
    return [(number + 7 * k) % classes for k in range(COUNT)]


def write_bin(path, images, labels, fine):
    """Byte by byte as the page of the data set describes it."""
    with open(path, "wb") as file:
        for image, label in zip(images, labels):
            file.write(bytes([label // 5, label] if fine else [label]))
            for colour in range(3):
                file.write(bytes(int(v) for row in image[:, :, colour] for v in row))


def write_mat(path, images, labels, fine):
    content = {"data": planes(images), "fine_labels" if fine else "labels": np.c_[labels]}
    if fine:
        content["coarse_labels"] = np.c_[[label // 5 for label in labels]]
    savemat(path, {k: np.asarray(v, np.uint8) for k, v in content.items()})


WRITE = {".bin": write_bin, ".mat": write_mat}


def write_version(folder, ending, classes):
    folder.mkdir(parents=True)
    ten = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    made = {"train": [], "test": []}
    for number, name in enumerate(ten if classes == 10 else ("train", "test")):
        images, labels = noise(COUNT, 32, seed=number), labels_for(number, classes)
        WRITE[ending](folder / f"{name}{ending}", images, labels, classes == 100)
        made["test" if "test" in name else "train"].append((images, labels))
    return {
        part: (np.concatenate([i for i, _ in made[part]]), sum((k for _, k in made[part]), []))
        for part in made
    }


@pytest.mark.parametrize("ending", (".bin", ".mat"))
@pytest.mark.parametrize("classes", (10, 100))
def test_versions_of_cifar(ending, classes, tmp_path, data):
    made = write_version(tmp_path / "c", ending, classes)
    for split in ("train", "test"):
        expect(tmp_path / "c", split, *made[split], data)
    file = tmp_path / "c" / f"{'test_batch' if classes == 10 else 'test'}{ending}"
    expect(file, "test", *made["test"], data)
    assert loaders.has_parts(tmp_path / "c") and not loaders.has_parts(file)
    file.unlink()
    with pytest.raises(UserError, match=r"has no test part; there is: .*train|data_batch_1"):
        loaders.load_id("own", "test", data, tmp_path / "c")


@pytest.mark.parametrize("name", ("data_batch_1.bin", "data_batch_3.mat", "data_batch_5.bin"))
def test_a_batch_that_is_missing_is_not_trained_without(name, tmp_path, data):
    write_version(tmp_path / "c", name[-4:], 10)
    (tmp_path / "c" / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        loaders.load_id("own", "train", data, tmp_path / "c")


@pytest.mark.parametrize("content", (b"", bytes(3072), bytes(3073 * 2 - 1), b"\x0b" + bytes(3072)))
def test_other_bytes_are_no_cifar(content, tmp_path, data):
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(UserError, match="not a file of CIFAR's binary version"):
        loaders.load("x", path=tmp_path / "test_batch.bin", data=data)


@pytest.mark.parametrize(
    "change",
    ({"data": np.zeros((2, 300), np.uint8)}, {"labels": [[1], [2.5]]}, {"labels": [[1], [-1]]},
     {"labels": [[1]]}, {"labels": [[1], [100]]}, {"data": np.zeros((2, 3072))}),
)  # fmt: skip
def test_other_variables_are_no_cifar(change, tmp_path, data):
    whole = {"data": np.zeros((2, 3072), np.uint8), "labels": [[1.0], [2.0]]}
    savemat(tmp_path / "a.mat", whole)
    assert loaders.load("x", path=tmp_path / "a.mat", data=data).labels.tolist() == [1, 2]
    savemat(tmp_path / "a.mat", {**whole, **change})
    with pytest.raises(UserError, match="is not a CIFAR .mat file"):
        loaders.load("x", path=tmp_path / "a.mat", data=data)


@pytest.mark.parametrize("name", ("test_32x32.mat", "selected_test_32x32.mat"))
def test_a_folder_with_svhn(name, tmp_path, data):
    parts = {name: noise(3, 32, 1), "train_32x32.mat": noise(3, 32, 2)}
    for file, images in parts.items():
        if file != "train_32x32.mat" or "selected" not in name:
            savemat(tmp_path / file, {"X": images.transpose(1, 2, 3, 0), "y": [[10], [1], [2]]})
    expect(tmp_path, "test", parts[name], [0, 1, 2], data)


# ---- MNIST's idx


def idx(array):
    """The bytes of an idx file, as its page describes them: big-endian sides after four bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", (False, True))
@pytest.mark.parametrize("below", ("", "raw"))
@pytest.mark.parametrize("style", ("-idx{}-ubyte", ".idx{}-ubyte"))
def test_idx(packed, below, style, tmp_path, data):
    folder, made = tmp_path / "m" / below, {}
    folder.mkdir(parents=True)
    for seed, part in enumerate(("train", "t10k")):
        grey, labels = noise(5, 28, seed)[..., 0], np.arange(5, dtype=np.uint8) + seed
        for what, array, sides in (("images", grey, 3), ("labels", labels, 1)):
            name, content = f"{part}-{what}{style.format(sides)}", idx(array)
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)
            made[part, what] = array, path
    for split, part in (("train", "train"), ("test", "t10k")):
        (grey, file), (labels, _) = made[part, "images"], made[part, "labels"]
        colour = np.stack([grey] * 3, axis=-1)
        expect(tmp_path / "m", split, colour, labels, data)
        expect(file, split, colour, labels, data)
    made["t10k", "labels"][1].unlink()
    assert loaders.load("x", "test", data, file).labels is None
    image = Image.fromarray(colour[0]).resize((32, 32), Image.BILINEAR)
    fitted = loaders.parse_ood(str(file), "own", data)[0]
    assert np.array_equal(pixels_of(fitted)[0], np.asarray(image))


@pytest.mark.parametrize("packed", (False, True))
@pytest.mark.parametrize("harm", ("short", "long", "claims", "kind", "labels"))
def test_idx_that_is_not_whole(packed, harm, tmp_path, data):
    content = idx(noise(5, 8, 0)[..., 0])
    changed = {
        "short": content[:-1],
        "long": content + b"x",
        "claims": content[:4] + struct.pack(">III", *[1 << 20] * 3) + content[16:],
        "kind": content[:2] + b"\x0d" + content[3:],
        "labels": content,
    }[harm]
    ending = ".gz" if packed else ""
    path = tmp_path / f"t10k-images-idx3-ubyte{ending}"
    path.write_bytes(gzip.compress(changed) if packed else changed)
    labels = idx(np.zeros(4 if harm == "labels" else 5, np.uint8))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels)
    words = "whole idx|more than|packed into|4,.*not 5 integers"
    with pytest.raises(UserError, match=words):
        loaders.load("x", path=tmp_path, data=data)


# ---- CIFAR-10-C


@pytest.fixture(params=(1, 2), ids=("(N,)", "(N,1)"))
def corrupted(tmp_path, request):
    folder, made = tmp_path / "CIFAR-10-C", {}
    folder.mkdir()
    for seed, name in enumerate(("fog", "frost")):
        made[name] = noise(15, 32, seed)
        np.save(folder / f"{name}.npy", made[name])
    shape = (15, 1)[: request.param]
    np.save(folder / "labels.npy", np.tile([2, 0, 1], 5).astype(np.uint8).reshape(shape))
    np.save(folder / "other.npy", noise(3, 32, 9))  # not of these labels
    return folder, made


def test_each_corruption_is_a_set(corrupted, data, capsys):
    folder, made = corrupted
    sets = loaders.parse_ood(str(folder), "own", data)
    assert [found.name for found in sets] == ["fog", "frost"]
    assert all(np.array_equal(pixels_of(found), made[found.name]) for found in sets)
    assert "images of all five severities" in capsys.readouterr().out
    sets = loaders.parse_ood(f"c={folder}@4,{folder}/fog.npy@1", "own", data)
    assert [found.name for found in sets] == ["c_fog_4", "c_frost_4", "fog_1"]
    wanted = [made["fog"][9:12], made["frost"][9:12], made["fog"][:3]]
    assert all(np.array_equal(pixels_of(f), w) for f, w in zip(sets, wanted, strict=True))
    assert "images of severity 4" in capsys.readouterr().out


def test_one_corruption_is_an_id_set_with_labels(corrupted, data):
    folder, made = corrupted
    expect(f"{folder}/frost.npy@5", "test", made["frost"][12:], [2, 0, 1], data)
    expect(folder / "frost.npy", "test", made["frost"], [2, 0, 1] * 5, data)
    assert loaders.load("x", path=folder / "other.npy", data=data).labels is None
    with pytest.raises(UserError, match="fog.npy, frost.npy.*fog.npy@3"):
        loaders.load("x", path=folder, data=data)
    with pytest.raises(UserError, match="does not exist"):
        loaders.load("x", path=folder / "fog.npy@6", data=data)


# ---- parquet

NAMES = ("cat", "dog", "owl")


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_parquet(path, images, labels, plain=False):
    pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [png(i) if plain else {"bytes": png(i), "path": f"{k}"} for k, i in enumerate(images)]
    table = pyarrow.table({"id": list(range(len(rows))), "image": rows, "label": labels})
    names = {"info": {"features": {"label": {"names": NAMES, "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    parquet.write_table(table, path, row_group_size=4)


@pytest.mark.parametrize("name", ("{}-00000-of-00001.parquet", "{}/0000.parquet"))
@pytest.mark.parametrize("plain", (False, True))
def test_parquet(name, plain, tmp_path, data):
    made = {part: coloured(9, 3, 32, seed) for seed, part in enumerate(("train", "validation"))}
    for part, (images, labels) in made.items():
        write_parquet(tmp_path / "p" / "data" / name.format(part), images, labels, plain)
    for split, part in (("train", "train"), ("test", "validation")):
        assert expect(tmp_path / "p", split, *made[part], data).classes == NAMES
    file = tmp_path / "p" / "data" / name.format("train")
    file = file.rename(tmp_path / "one")  # by its content
    expect(file, "train", *made["train"], data)
    source = readers.open_source(file)
    for row in (7, 2, 4, 3, 8, 0):  # in any order
        found = readers.read_image(source, source.names[row], 32, False)
        assert np.array_equal(found, made["train"][0][row])


def test_parquet_that_is_none(tmp_path, data):
    pytest.importorskip("pyarrow")
    for content in (b"PAR1", b"PAR1" + bytes(100) + b"PAR1"):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as parquet"):
            loaders.load("x", path=tmp_path / "a.parquet", data=data)


@pytest.mark.parametrize("place", ("a.parquet", ""))
def test_parquet_without_its_package_names_it(place, tmp_path, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(8))
    with pytest.raises(UserError, match="pip install pyarrow"):
        loaders.load("x", path=tmp_path / place, data=data)


# ---- images by content


@pytest.mark.parametrize("form", ("folder", "a.zip", "a.tar", "a.tar.gz"))
def test_images_are_known_by_content(form, tmp_path, data, capsys):
    folder, images = tmp_path / "f", noise(10, 32, 0)
    folder.mkdir()
    kinds = ("PNG", "BMP", "GIF", "TIFF", "PPM", "WEBP", "JPEG", "JPEG", "PNG", "AVIF")
    names = [*"abcdef", "g.jfif", "h", "i.0123"] + ["j.avif"] * ("AVIF" in decoders.FORMATS)
    for name, kind, image in zip(names, kinds, images):
        Image.fromarray(image).save(
            folder / name, kind, **{"quality": 90} if kind == "WEBP" else {}
        )
    wanted = [np.asarray(Image.open(folder / name).convert("RGB")) for name in names]
    for name, text in (("notes", "Read me"), ("x.html", "<p>"), ("P", "P1"), (".hidden", "x")):
        (folder / name).write_text(text)
    found = loaders.load(
        "x", path=folder if form == "folder" else pack(folder, tmp_path / form), data=data
    )
    assert found.names == tuple(names) and np.array_equal(pixels_of(found), wanted)
    assert "no images, not read: 2 without an ending, 1 .html" in capsys.readouterr().out
    single = loaders.load("x", path=folder / "a", data=data)
    assert np.array_equal(pixels_of(single), wanted[:1])


def test_what_a_folder_holds_is_said(tmp_path, data):
    for i in range(3):
        (tmp_path / f"{i}.tfrecord").write_bytes(b"x")
    (tmp_path / "README").write_text("x")
    with pytest.raises(UserError, match="but 3 .tfrecord, 1 without an ending. Bring image files"):
        loaders.load("x", path=tmp_path, data=data)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a/b.h5", "x")
    with pytest.raises(UserError, match="a.zip holds no image .*but 1 .h5"):
        loaders.load("x", path=tmp_path / "a.zip", data=data)
    assert heads.kinds([]) == ""


@pytest.mark.parametrize("skip_bad", (False, True))
def test_names_that_are_not_utf_8(skip_bad, tmp_path, data):
    images, labels = coloured(4, 2, 32, 0)
    folder = write_images(tmp_path / "f", images, labels)
    bad = os.fsencode(folder / "class_1") + b"/\xff.png"
    os.rename(folder / "class_1" / "001.png", bad)
    os.rename(folder / "class_0", os.fsencode(folder) + b"/\xe9t\xe9")
    if skip_bad:
        with open(bad, "wb") as file:
            file.write(b"none")
    for _ in range(2):  # decoded, and from the cache
        found = loaders.load("x", path=folder, data=data, skip_bad=skip_bad)
        assert len(found) == 4 - skip_bad and found.classes == ("class_1", "\\udce9t\\udce9")
        said = [*found.names, *found.classes, *found.skipped, found.source]
        assert "\n".join(said).encode() and any("\\udcff" in name for name in said)


def test_a_turn_that_a_file_says_is_not_applied(tmp_path, data):
    from torchvision.datasets.folder import default_loader

    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    (tmp_path / "c").mkdir()
    file = tmp_path / "c" / "a.png"
    Image.fromarray(noise(1, 32, 0)[0]).save(file, exif=exif)
    assert Image.open(file).getexif()[0x0112] == 6
    found = pixels_of(loaders.load("x", path=tmp_path, data=data))[0]
    assert np.array_equal(found, np.asarray(default_loader(file)))
    assert np.array_equal(found, noise(1, 32, 0)[0])


# ---- the places of other projects and of torchvision


@pytest.mark.parametrize(
    "name, place",
    (
        ("textures", "dtd/dtd/images"),
        ("textures", "ood_datasets/dtd/images"),
        ("places365", "places365_standard/val"),
        ("places365", "val_256"),
        ("places365", "ood_datasets/places365_standard"),
        ("lsun_c", "LSUN_C"),
        ("lsun_r", "ood_data/LSUN_resize"),
        ("isun", "ood_datasets/iSUN"),
    ),
)
def test_folders_elsewhere(name, place, data):
    images, labels = coloured(4, 2, 32, 1)
    write_images(data / place, images, labels)
    found = pixels_of(loaders.load(name, data=data))
    assert np.array_equal(found, images[np.argsort(labels, kind="stable")])
    np.savez(data / f"{name}.npz", images=noise(2, 32, 0))
    assert len(loaders.load(name, data=data)) == 2  # what was found before, is found first


@pytest.mark.parametrize(
    "place", ("svhn/selected_test_32x32.mat", "SVHN/test_32x32.mat", "ood_data/svhn/test_32x32.mat")
)
def test_svhn_elsewhere(place, data):
    images = noise(3, 32, 1)
    (data / place).parent.mkdir(parents=True)
    savemat(data / place, {"X": images.transpose(1, 2, 3, 0), "y": [[10], [1], [2]]})
    assert np.array_equal(pixels_of(loaders.load("svhn", data=data)), images)


@pytest.mark.parametrize(
    "name, place",
    (
        ("cifar10", "cifar-10-batches-bin"),
        ("cifar10", "cifar-10-batches-mat"),
        ("cifar100", "cifar-100-binary"),
        ("cifar100", "cifar-100-matlab"),
    ),
)
def test_other_versions_of_cifar_by_name(name, place, data):
    ending = ".bin" if "bin" in place else ".mat"
    made = write_version(data / place, ending, 10 if name == "cifar10" else 100)
    for split in ("train", "test"):
        found = loaders.load_id(name, split, data)
        assert np.array_equal(pixels_of(found), made[split][0])
        assert found.labels.tolist() == made[split][1]


def test_mnist_by_name(data):
    (data / "MNIST" / "raw").mkdir(parents=True)
    (data / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(idx(noise(3, 28, 0)[..., 0]))
    assert len(loaders.load("mnist", data=data)) == 3
