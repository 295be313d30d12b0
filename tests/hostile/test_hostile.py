"""Files that a stranger made: each ends in its one line, quickly, and does nothing else.

What is promised is in tests/README.md. Every input goes through the function that reads it, in this
process: nothing may come out but a value or a UserError, in seconds and within the memory.
"""

import gzip
import io
import json
import os
import pickle
import resource
import socket
import struct
import tarfile
import time
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from utils import loaders, snapshots
from utils.evaluation.printed import format_set_table, format_summaries, shown_rows
from utils.evaluation.report import read_result
from utils.evaluation.shards import Shards
from utils.loaders import bounds, containers
from utils.runtime import CIFAR as EXPERIMENT
from utils.runtime import Cache, UserError, printable, read_json
from utils.snapshots import find
from utils.snapshots.schema import check_description, check_state
from utils.training.files import find_state, load_state

RECORDED = EXPERIMENT / "results" / "recorded"
SECONDS, MEGABYTES = 10, 1000
ESCAPE = "\x1b[2J\x1b]0;title\x07"


@pytest.fixture(autouse=True)
def bounded():
    """No test may take long, or a gigabyte more than there was."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


def refused(read, *arguments, **keywords):
    """The one line that a reader refuses its input with."""
    with pytest.raises(UserError) as error:
        read(*arguments, **keywords)
    assert len(str(error.value)) < 2000
    return str(error.value)


def value_or_refused(read, *arguments, **keywords):
    try:
        return read(*arguments, **keywords)
    except UserError as error:
        assert str(error)


def mutations(content, seed, count):
    """The bytes cut short, with bytes changed, doubled, or with zeros inside."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        place = int(rng.integers(0, len(content)))
        if i % 4 == 0:
            yield content[:place]
        elif i % 4 == 1:
            changed = bytearray(content)
            for j in rng.integers(0, len(content), 8):
                changed[j] = int(rng.integers(0, 256))
            yield bytes(changed)
        elif i % 4 == 2:
            yield content[:place] + bytes(64) + content[place:]
        else:
            yield content[place:] + content[:place]


def bytes_of(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def zipped(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/b.png", bytes_of(lambda f: Image.fromarray(PIXELS[0]).save(f, "PNG")))


def tarred(file):
    content = bytes_of(lambda f: Image.fromarray(PIXELS[0]).save(f, "PNG"))
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("a/b.png")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


IDX = bytes((0, 0, 8, 3)) + struct.pack(">III", 3, 8, 8) + PIXELS[..., 0].tobytes()
CIFAR = {b"data": bytes(2 * 3072), b"labels": [0, 1]}
WHOLE = {
    "a.npy": bytes_of(lambda f: np.save(f, PIXELS)),
    "a.npz": bytes_of(lambda f: np.savez(f, images=PIXELS, labels=[0, 1, 2])),
    "b.npz": bytes_of(lambda f: np.savez_compressed(f, images=PIXELS)),
    "a.mat": bytes_of(lambda f: savemat(f, {"X": PIXELS.transpose(1, 2, 3, 0), "y": [1, 2, 3]})),
    "a.zip": bytes_of(zipped),
    "a.tar": bytes_of(tarred),
    "a.png": bytes_of(lambda f: Image.fromarray(PIXELS[0]).save(f, "PNG")),
    "a.jpg": bytes_of(lambda f: Image.fromarray(PIXELS[0]).save(f, "JPEG")),
    "a.gif": bytes_of(lambda f: Image.fromarray(PIXELS[0]).save(f, "GIF")),
    "a.tiff": bytes_of(lambda f: Image.fromarray(PIXELS[0]).save(f, "TIFF")),
    "a.webp": bytes_of(lambda f: Image.fromarray(PIXELS[0]).save(f, "WEBP")),
    "a.txt": b"a.png 0\n",
    "a": bytes_of(lambda f: Image.fromarray(PIXELS[0]).save(f, "PNG")),
    "c.mat": bytes_of(
        lambda f: savemat(f, {"data": np.zeros((3, 3072), np.uint8), "labels": [1, 2, 3]})
    ),
    "images-idx3-ubyte": IDX,
    "images-idx3-ubyte.gz": gzip.compress(IDX),
}


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_images(tmp_path, name):
    for i, content in enumerate(mutations(WHOLE[name], seed=1, count=16)):
        path = tmp_path / f"{i}{name}"
        path.write_bytes(content)
        value_or_refused(loaders.load, "x", path=path, data=tmp_path)


def test_damaged_pickles(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    whole = pickle.dumps(CIFAR, protocol=2)
    for content in mutations(whole, seed=2, count=40):
        (folder / "test_batch").write_bytes(content)
        value_or_refused(loaders.load, "x", path=folder)


@pytest.mark.parametrize(
    "content",
    (
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        b"\x80\x02}r\xff\xff\xff\x7f.",  # remembered as number 2**31
        b"\x80\x05\x96" + struct.pack("<Q", 3 << 30) + b".",
        b"\x80\x05\x8e" + struct.pack("<Q", 1 << 60) + b".",
        b"(" * 200_000,
        b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
    ),
)
def test_pickles_that_do_something(tmp_path, content):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "test_batch").write_bytes(content)
    assert "test_batch" in refused(loaders.load, "x", path=tmp_path / "c")


def folded(part, times=40):
    """A list or dict that holds another one twice, which holds another one twice, ..."""
    for _ in range(times):
        part = [part, part] if isinstance(part, list) else {b"a": part, b"b": part}
    return part


@pytest.mark.parametrize(
    "content",
    (
        {b"data": folded([0]), b"labels": [0]},
        {b"data": folded({b"a": 0}), b"labels": [0]},
        {b"data": bytes(3072), b"labels": folded([0])},
        {b"data": [bytes(1 << 16)] * 10_000, b"labels": [0]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [1 << (1 << 20)]},
    ),
)
def test_pickles_that_unfold(tmp_path, content):
    (tmp_path / "c").mkdir()
    file = tmp_path / "c" / "test_batch"
    file.write_bytes(pickle.dumps(content, protocol=2))
    assert file.stat().st_size < 1 << 19
    assert "test_batch" in refused(loaders.load, "x", path=tmp_path / "c")


def test_a_dtype_that_is_named_by_a_list_that_unfolds(tmp_path):
    (tmp_path / "c").mkdir()
    name = pickle.dumps(folded([0]), protocol=2)[2:-1]
    (tmp_path / "c" / "test_batch").write_bytes(b"\x80\x02cnumpy\ndtype\n(" + name + b"tR.")
    assert "not of uint8" in refused(loaders.load, "x", path=tmp_path / "c")


# ---- what is no file


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as end:
        os.chdir(path.parent)
        end.bind(path.name)


def make_device(path):
    path.symlink_to("/dev/zero")


def make_folder(path):
    path.mkdir()


KINDS = (make_pipe, make_socket, make_device)
NAMES = (
    "a.npz",
    "a.npy",
    "a.zip",
    "a.tar.gz",
    "a.mat",
    "a.txt",
    "a.png",
    "a",
    "a.parquet",
    "x-idx3-ubyte",
    "test_batch.bin",
)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_images_that_are_no_file(tmp_path, monkeypatch, make, name):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    assert "not a file" in refused(loaders.load, "x", path=tmp_path / name, data=tmp_path / "d")


@pytest.mark.parametrize("make", (*KINDS, make_folder))
def test_snapshots_and_results_that_are_no_file(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    for name in ("s.pt", "s.json"):
        make(tmp_path / name)
    refused(snapshots.read_weights, tmp_path / "s.pt")
    refused(snapshots.read_description, tmp_path / "s.pt")
    refused(read_result, tmp_path / "s.json")
    make(tmp_path / "x.npz")
    assert Cache(tmp_path).load("x") is None
    (tmp_path / "a.run").mkdir()
    make(tmp_path / "a.run" / "a.resume.pt")
    assert find_state(tmp_path, "a")
    refused(load_state, tmp_path, "a")


def test_a_folder_is_read_once_whatever_links_lead_to_it(tmp_path):
    (tmp_path / "b").mkdir()
    Image.fromarray(PIXELS[0]).save(tmp_path / "b" / "a.png")
    for name in ("a", "c", "d"):
        (tmp_path / name).symlink_to(tmp_path)
        (tmp_path / "b" / name).symlink_to(tmp_path / "b")
    assert containers.Folder(tmp_path).names == ["b/a.png"]


@pytest.mark.parametrize("limit", ("FILES", "SECONDS"))
def test_a_listing_ends(tmp_path, monkeypatch, limit):
    for i in range(5):
        (tmp_path / f"{i}.png").touch()
    monkeypatch.setattr(bounds, limit, 3 if limit == "FILES" else -1)
    assert "listing it ended" in refused(containers.Folder, tmp_path)


@pytest.mark.parametrize("name", ("a.zip", "a.tar"))
def test_an_archive_of_too_many_members(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(WHOLE[name])
    monkeypatch.setattr(bounds, "MEMBERS", 0)
    assert "listing it ended" in refused(containers.Archive, tmp_path / name)


def test_memory_of_a_tar_of_many_members(tmp_path):
    """As many as ImageNet has are within a gigabyte."""
    content, count = WHOLE["a.png"], 10_000
    with open(tmp_path / "a.tar", "wb") as file:
        for i in range(count):
            member = tarfile.TarInfo(f"ILSVRC2012/n{i % 100:08}/n{i % 100:08}_{i:08}.JPEG")
            member.size = len(content)
            file.write(member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
        file.write(bytes(1024))
    (tmp_path / "b.tar").write_bytes(WHOLE["a.tar"])
    containers.Archive(tmp_path / "b.tar")  # whatever is made once
    tracemalloc.start()
    archive = containers.Archive(tmp_path / "a.tar")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(archive.names) == count and peak / count * 1.4e6 < 1e9
    assert archive.open(archive.names[-1]).read() == content


# ---- small files that are large


def test_a_thin_image(tmp_path):
    Image.new("L", (1, 300_000)).save(tmp_path / "a.png")
    assert "after resizing" in refused(loaders.load, "x", path=tmp_path / "a.png", data=tmp_path)


def test_an_image_of_many_pixels(tmp_path):
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    whole = bytes_of(lambda f: Image.new("L", (1, 1)).save(f, "PNG"))
    (tmp_path / "a.png").write_bytes(whole[:16] + head + whole[29:])
    assert "cannot be read" in refused(loaders.load, "x", path=tmp_path / "a.png", data=tmp_path)


def zeros_in_zip(path, name, size, head=b""):
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as file,
    ):
        file.write(head)
        for _ in range(size >> 24):
            file.write(bytes(1 << 24))


def test_zeros_packed_small(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "FREE_BYTES", 1 << 22)
    monkeypatch.setattr(bounds, "IMAGE_BYTES", 1 << 22)
    zeros_in_zip(tmp_path / "a.zip", "a.png", 1 << 24)
    assert "no image is" in refused(loaders.load, "x", path=tmp_path / "a.zip", data=tmp_path)
    zeros_in_zip(tmp_path / "a.npz", "images.npy", 1 << 24)
    assert "packed into" in refused(loaders.load, "x", path=tmp_path / "a.npz")
    zeros_in_zip(tmp_path / "a.pt", "a/data/0", 1 << 24)
    assert "packed into" in refused(snapshots.read_weights, tmp_path / "a.pt")
    zeros_in_zip(tmp_path / "c.npz", "pixels.npy", 1 << 24)
    assert Cache(tmp_path).load("c") is None
    matrix = {"X": np.zeros((32, 32, 3, 3000), np.uint8), "y": np.ones((3000, 1))}
    savemat(tmp_path / "a.mat", matrix, do_compression=True)
    assert "packed into" in refused(loaders.load, "x", path=tmp_path / "a.mat")


def test_a_sparse_tar(tmp_path):
    member = tarfile.TarInfo("a.png")
    member.size = 1 << 40
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "no image is" in refused(loaders.load, "x", path=tmp_path / "a.tar", data=tmp_path)


@pytest.mark.parametrize("kind", (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"S"))
def test_heads_of_a_tar(tmp_path, kind):
    """Python reads a whole head into memory, and a sparse file's map of any length."""
    member = tarfile.TarInfo("a.png")
    member.size, member.type = 3 << 30, kind
    content = member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(content)
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(content))
    for name in ("a.tar", "b.tar.gz"):
        line = refused(loaders.load, "x", path=tmp_path / name, data=tmp_path)
        assert name in line and "Make the archive" in line


def test_values_of_a_whole_tar(tmp_path):
    """Each member would have a copy of them: gigabytes of a file of a few megabytes."""
    values = {f"k{i}": "v" for i in range(2000)}
    kind = {"format": tarfile.PAX_FORMAT, "pax_headers": values}
    with tarfile.open(tmp_path / "a.tar", "w", **kind) as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    assert "values" in refused(loaders.load, "x", path=tmp_path / "a.tar", data=tmp_path)


def mat_variable(dims, size, kind=9):
    """A .mat of one packed variable X whose head says ``dims``, and which holds so many bytes."""

    def part(code, content):
        return struct.pack("<II", code, len(content)) + content + bytes(-len(content) % 8)

    head = part(6, struct.pack("<II", kind, 0)) + part(5, struct.pack(f"<{len(dims)}i", *dims))
    head += part(1, b"X") + struct.pack("<II", 2, size)
    packer = zlib.compressobj(1)
    pieces = [packer.compress(struct.pack("<II", 14, len(head) + size) + head)]
    pieces += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    packed = b"".join(pieces) + packer.flush()
    start = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    return start + struct.pack("<II", 15, len(packed)) + packed


def test_a_variable_that_is_longer_than_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "FREE_BYTES", 1 << 22)
    labels = bytes_of(lambda f: savemat(f, {"y": np.ones((10, 1))}))[128:]  # without a file's head
    (tmp_path / "a.mat").write_bytes(mat_variable((32, 32, 3, 10), 1 << 26) + labels)
    assert "packed into" in refused(loaders.load, "x", path=tmp_path / "a.mat")


def test_a_variable_of_no_numbers(tmp_path):
    cell = np.empty((1, 1), object)
    cell[0, 0] = np.zeros((32, 32, 3, 2), np.uint8)
    savemat(tmp_path / "a.mat", {"X": cell, "y": [1, 2]})
    assert "of cell" in refused(loaders.load, "x", path=tmp_path / "a.mat")


def test_a_map_of_a_sparse_file(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        member.size = 1024
        archive.addfile(member, io.BytesIO(b"1000000000\n" + bytes(1013)))
    assert "with holes" in refused(loaders.load, "x", path=tmp_path / "a.tar", data=tmp_path)


def test_what_is_passed_over_in_a_packed_tar(tmp_path):
    member = tarfile.TarInfo("a.txt")
    member.size = 1 << 33
    content = member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(content))
    assert "passed over" in refused(loaders.load, "x", path=tmp_path / "a.tar.gz", data=tmp_path)


def test_arrays_of_too_many_members(tmp_path):
    """An .npz or .pt that lists 100,000 arrays, all of one place."""
    content, name = b"PK\3\4" + bytes(26), b"%07d"
    record = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, *[0] * 7, 7, *[0] * 6)
    entries = b"".join(record + name % i for i in range(100_000))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 34464, 34464, len(entries), len(content), 0)
    for file in ("a.npz", "a.pt"):
        (tmp_path / file).write_bytes(content + entries + end)
    assert "too long" in refused(loaders.load, "x", path=tmp_path / "a.npz", data=tmp_path)
    assert "too long" in refused(snapshots.read_weights, tmp_path / "a.pt")


@pytest.mark.parametrize("classes", (["a"] * 100_001, ["a" * 1001] * 3))
def test_names_of_classes(tmp_path, classes):
    np.savez_compressed(tmp_path / "a.npz", images=PIXELS, labels=[0, 1, 2], classes=classes)
    assert "classes" in refused(loaders.load, "x", path=tmp_path / "a.npz", data=tmp_path)


def test_an_array_that_would_be_brought_to_many_pixels(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=[0, 1, 2])
    line = refused(loaders.load_id, "x", "test", path=tmp_path / "a.npz", size=10_000)
    assert "pixels" in line


# ---- labels


@pytest.mark.parametrize("label", (np.nan, 1e300, 2.7, -1, 11, np.inf))
def test_labels_of_a_mat(tmp_path, label):
    content = {"X": np.zeros((8, 8, 3, 2), np.uint8), "y": np.array([[1.0], [label]])}
    savemat(tmp_path / "a.mat", content)
    assert "labels" in refused(loaders.load, "x", path=tmp_path / "a.mat")


@pytest.mark.parametrize(
    "labels", ([0, 999, 1], [0, 10**12, 1], [-1, 0, 1], [0.0, 1.0, 2.0], [2**63, 0, 1], [[0, 1, 2]])
)
def test_labels_of_an_array(tmp_path, labels):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=np.array(labels))
    assert "label" in refused(loaders.load_id, "x", "train", path=tmp_path / "a.npz")


# ---- descriptions, states, results


WRONG = (5, -1, 2.7, "a", "", [], [[1]], {}, {"a": 1}, True, float("nan"), float("inf"), 10**30)
GOOD = {"arch": "wrn", "num_classes": 2, "layers": 10, "widen_factor": 1}
KEYS = ("arch", "num_classes", "layers", "widen_factor", "droprate", "classes", "recipe", "sha256")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "own_wrn_pretrained_epoch_0.pt"
    torch.manual_seed(0)
    model = snapshots.build_model(GOOD)
    torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize("key", KEYS)
def test_every_wrong_value_in_a_description(snapshot, key):
    for wrong in WRONG:
        snapshot.with_suffix(".json").write_text(json.dumps({**GOOD, key: wrong}))
        value_or_refused(snapshots.load_model, snapshot)


@pytest.mark.parametrize(
    "wrong",
    (
        {"layers": 6_000_004},
        {"widen_factor": 10**9},
        {"num_classes": 10**6},
        {"layers": 1000, "widen_factor": 1000},
        {"classes": 5},
        {"classes": [[1]]},
        {"classes": ["a"] * 10**6},
        {"image_size": float("nan")},
        {"image_size": {}},
        {"arch": "os:_exit"},
        {"arch": "time:sleep"},
        {"arch": "evilnet:net"},
        {"arch": ESCAPE},
        {"arch": None},
        {"outliers": {"fingerprint": {}}},
        {"outliers": {"images": "a"}},
        {"validation_ood": [{"name": 5}]},
        {"parent": "a\0b"},
        {"stage": "a"},
    ),
)
def test_a_description_that_would_do_harm(snapshot, wrong):
    snapshot.with_suffix(".json").write_text(json.dumps({**GOOD, **wrong}))
    refused(snapshots.load_model, snapshot)


@pytest.mark.parametrize("text", ("[" * 100_000, "{}x", "5", "[1]", '"a"', "\x00", "", "NaN"))
def test_json_that_is_no_record(snapshot, text):
    file = snapshot.with_suffix(".json")
    file.write_text(text)
    refused(snapshots.load_model, snapshot)
    refused(read_result, file)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's, that they are new
    NESTED = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.strided)
TENSORS = {
    "of no dimension": torch.tensor(1.0),
    "meta": torch.empty(2, 2, device="meta"),
    "sparse": torch.eye(2).to_sparse(),
    "complex": torch.ones(2, 2, dtype=torch.complex64),
    "integers": torch.ones(2, 2, dtype=torch.int64),
    "nested": NESTED,
    "spread out": torch.ones(1).expand(10**6, 64),
    "a text": "a",
    "a list": [1],
}


@pytest.mark.parametrize("kind", TENSORS)
def test_weights_that_are_none(tmp_path, snapshot, kind):
    state = torch.load(snapshot, weights_only=True)
    for name in ("fc.weight", "conv1.weight", "more"):
        torch.save({**state, name: TENSORS[kind]}, tmp_path / "s.pt")
        refuse = value_or_refused if name == "more" else refused
        refuse(snapshots.load_model, tmp_path / "s.pt", "wrn")


def test_names_of_nothing_but_dots(tmp_path):
    """Without one part after the other they would be gigabytes."""
    torch.save({"." * 30_000 + "weight": torch.ones(1)}, tmp_path / "s.pt")
    tracemalloc.start()
    assert "no network known" in refused(snapshots.load_model, tmp_path / "s.pt")
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()


def test_a_list_of_folders_of_which_one_is_no_path(tmp_path, monkeypatch):
    (tmp_path / "folders.txt").write_bytes(b"/a\0b\n")
    monkeypatch.setattr(find, "FOLDERS", tmp_path / "folders.txt")
    find.all_snapshots()


def test_a_json_that_is_much_in_memory(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[" + b"{}," * (1 << 24) + b"{}]")
    tracemalloc.start()
    assert "longer than" in refused(read_json, tmp_path / "a.json")
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()


def test_a_dtype_in_a_pt_is_not_built(tmp_path, snapshot):
    """As in CIFAR's pickles: a dtype whose state the file sets would read the file's bytes as
    addresses.
    """

    class Kind:
        def __reduce__(self):
            return np.dtype, ("u1", False, True), (3, "|", None, None, None, 8, 8, 63)

    class Array:
        def __reduce__(self):
            rebuild = np.zeros(0).__reduce__()[0]
            state = (1, (64,), Kind(), False, b"A" * 512)
            return rebuild, (np.ndarray, (0,), b"b"), state

    state = torch.load(snapshot, weights_only=True)
    torch.save({"state_dict": state, "array": Array(), "more": np.float64(1)}, tmp_path / "s.pt")
    weights = snapshots.read_weights(tmp_path / "s.pt")
    assert weights.keys() == state.keys()


def test_damaged_weights(tmp_path, snapshot):
    for i, content in enumerate(mutations(snapshot.read_bytes(), seed=3, count=16)):
        (tmp_path / f"{i}.pt").write_bytes(content)
        value_or_refused(snapshots.load_model, tmp_path / f"{i}.pt")


ROW = {"epoch": 0, "time(s)": 1.0, "train_loss": 1.0, "test_loss": 1.0, "test_error(%)": 50.0}
STATE = {
    "epoch": 0,
    "model": {"a": torch.ones(1)},
    "optimizer": {"state": {}, "param_groups": []},
    "recipe": {"epochs": 2},
    "rows": [ROW],
    "best": 50.0,
    "best_epoch": 0,
    "data": "f",
    "parent": None,
    "outliers": None,
    "given": {},
    "computed": {"threads": 1},
}


def test_a_whole_state_is_taken():
    assert check_state(STATE, "s") is STATE
    assert check_description(GOOD, "s") is GOOD


@pytest.mark.parametrize("key", STATE)
def test_every_wrong_value_in_a_state(key):
    for wrong in (*WRONG, *TENSORS.values()):
        value_or_refused(check_state, {**STATE, key: wrong}, "s")
    refused(check_state, {**STATE, key: {1: 2}}, "s")
    refused(check_state, {**STATE, "given": None}, "s")
    for key in ("arch", "epochs", "learning_rate", "padding"):
        refused(check_state, {**STATE, "recipe": {"epochs": 2, key: None}}, "s")
    refused(check_state, {**STATE, "given": {"data": None}}, "s")
    refused(check_state, {**STATE, "given": {"load": "a\0b"}}, "s")


def test_a_state_deletes_nothing_elsewhere(tmp_path):
    """What a state names is not deleted: former versions kept a folder's name in it."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "a_epoch_0.pt").touch()
    run = tmp_path / "a.run"
    run.mkdir()
    former = {"folder": str(other), "names": ["a_epoch_0.pt", "../other/a_epoch_0.pt"]}
    torch.save({**STATE, "former": former}, run / "a.resume.pt")
    from utils.training.files import RunFiles

    RunFiles(tmp_path, "a").go_on()
    assert (other / "a_epoch_0.pt").exists()


RESULT = json.loads((RECORDED / "digits_wrn_s1_tune_sr_energy.json").read_text())


def changed(content, wrong):
    """Copies of nested records and lists with each value in turn replaced, two levels deep in what
    is not a list of numbers.
    """
    for key in content if isinstance(content, dict) else range(min(len(content), 1)):
        copy = dict(content) if isinstance(content, dict) else list(content)
        yield {**content, key: wrong} if isinstance(content, dict) else [wrong]
        if isinstance(content[key], (dict, list)) and content[key]:
            for inner in changed(content[key], wrong):
                copy[key] = inner
                yield copy


@pytest.mark.parametrize("wrong", (*WRONG, None, [{}], {"a": {}}))
def test_every_wrong_value_in_a_result(tmp_path, wrong):
    """What is let through can be shown."""
    kept = {key: RESULT[key] for key in ("snapshot", "id", "arguments", "scores", "seconds")}
    kept["snapshot"] = {key: kept["snapshot"][key] for key in ("name", "sha256", "epoch")}
    for i, content in enumerate(changed(kept, wrong)):
        (tmp_path / f"{i}.json").write_text(json.dumps(content))
        if found := value_or_refused(read_result, tmp_path / f"{i}.json", True):
            format_summaries(found["scores"] * 2)
            assert format_set_table("x", shown_rows(found["scores"][0]), None)
    assert i > 30


def test_every_recorded_result_is_one():
    for path in RECORDED.glob("*.json"):
        assert read_result(path)


# ---- caches


def test_another_content_of_a_shard_is_made_anew(tmp_path):
    shards = Shards(tmp_path, 5)
    rows = (np.ones((5, 3), np.float32), np.ones((5, 4), np.float32))
    shards.write(iter([rows]), 0)
    file, array = tmp_path / "done.json", tmp_path / "logits.npy"
    good, whole = json.loads(file.read_text()), array.read_bytes()
    assert shards.done == 5 and shards.arrays()["features"].shape == (5, 4)
    for key, wrong in [(key, wrong) for key in good for wrong in (*WRONG, None, 4)]:
        file.write_text(json.dumps({**good, key: wrong}))
        right = {("count", 5): 5, ("done", 5): 5, ("done", 4): 4}  # 5 images, and fewer done
        assert shards.done == (right.get((key, wrong), 0) if type(wrong) is int else 0)
    for wrong in (*WRONG, [1, 2], [128, -1], [128, 10**9], ["a", "b"], [128, 4], [0, 3]):
        file.write_text(json.dumps({**good, "files": {**good["files"], "logits": wrong}}))
        assert shards.done == 0
    file.write_text(json.dumps(good))
    for content in (whole[:-1], b"", whole.replace(b"<f4", b"<i4"), bytes(len(whole))):
        array.write_bytes(content)
        assert shards.done == 0
    array.unlink()
    os.mkfifo(array)
    assert shards.done == 0


def test_another_content_in_the_cache_of_images_is_made_anew(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(folder / f"{i}.png")
    right = loaders.load("x", path=folder, data=tmp_path, size=8).fingerprint
    (file,) = (tmp_path / "cache").glob("*.npz")
    with np.load(file) as content:
        whole = dict(content)
    for key, wrong in (
        ("pixels", whole["pixels"][:2]),
        ("pixels", whole["pixels"].astype(float)),
        ("bad", np.array(["0.png"])),
        ("bad", np.array(5)),
        ("key", np.array("another")),
        ("more", np.array(1)),
    ):
        np.savez(file, **{**whole, key: wrong})
        assert loaders.load("x", path=folder, data=tmp_path, size=8).fingerprint == right
    # two files that change places, with their sizes and times
    times = [(folder / f"{i}.png").stat().st_mtime_ns for i in (0, 1)]
    os.rename(folder / "0.png", tmp_path / "x")
    os.rename(folder / "1.png", folder / "0.png")
    os.rename(tmp_path / "x", folder / "1.png")
    for i in (0, 1):
        os.utime(folder / f"{i}.png", ns=(times[i], times[i]))
    assert loaders.load("x", path=folder, data=tmp_path, size=8).fingerprint != right


# ---- what is printed


@pytest.mark.parametrize(
    "text", (ESCAPE, "\x9b2J", "\r", "a\nb", "\u202e", "\udcff", "\x00", "\x7f")
)
def test_what_is_printed_moves_no_cursor(text):
    assert printable(text).isprintable()
