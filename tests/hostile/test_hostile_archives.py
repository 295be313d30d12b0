"""Archives that a stranger made: each ends in its one line, or is read as what it holds."""

import gzip
import struct
import tarfile
import zipfile

import pytest
from test_hostile import WHOLE, refused

from utils import loaders
from utils.loaders import containers, inside, keys

PNG = WHOLE["a.png"]


def member(name, content=PNG, kind=tarfile.REGTYPE, size=None, link=""):
    """A member of a .tar whose head may say another size."""
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, len(content) if size is None else size, link
    return made.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def values(*pairs, kind=tarfile.XHDTYPE):
    """A head of values before a member."""
    lines = []
    for key, value in pairs:
        line = f" {key}={value}\n".encode()
        length = next(n for n in range(len(line), len(line) + 9) if len(str(n)) + len(line) == n)
        lines.append(str(length).encode() + line)
    return member("v", b"".join(lines), kind)


def tar(tmp_path, *parts):
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join(parts) + bytes(1024))
    return path


def zipped(path, names, content=PNG, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name in names:
            archive.writestr(name, content)
    return path


def read(path):
    return loaders.load("x", path=path, data=path.parent / "d", size=8)


HEADS = {
    "digits alone": member("v", b"1" * 1_000_000, tarfile.XHDTYPE),
    "digits in a value": values(("a", "1" * 1_000_000), ("GNU.sparse.size", "5")),
    "many values": values(*((f"k{i}", "v") for i in range(2000))),
    "lines of no length": member("v", b"0 a=b\n" * 1000, tarfile.XHDTYPE),
    "a size below 0": values(("size", "-1024")),
    "a size of many digits": values(("size", "9" * 5000)),
    "holes, 0.0": values(("GNU.sparse.offset", "0"), ("GNU.sparse.numbytes", "9")),
    "holes, 0.1": values(("GNU.sparse.map", "0,10,1000,20"), ("GNU.sparse.size", "5000")),
}


@pytest.mark.parametrize("kind", HEADS)
def test_values_before_a_member(tmp_path, kind):
    line = refused(read, tar(tmp_path, HEADS[kind], member("a/1.png")))
    assert "a.tar" in line and "Make the archive" in line


def test_values_that_are_needed(tmp_path):
    """A long name in UTF-8 or not, a size, and what a whole archive says of itself."""
    name = "ä/" + "b" * 200 + ".png"
    own = values(("path", name), ("size", len(PNG)), ("mtime", "1.5"))
    head = values(*((f"k{i}", "v") for i in range(900)), kind=tarfile.XGLTYPE)
    path = tar(tmp_path, head, own, member("x", size=0), member("c/1.png"))
    assert containers.Archive(path).names == ["c/1.png", name]
    assert len(read(path)) == 2


@pytest.mark.parametrize("size", (-512, -1024, -(1 << 40)))
def test_a_member_that_ends_before_it_begins(tmp_path, size):
    """The next one would be this one, without end."""
    assert "none has" in refused(read, tar(tmp_path, member("a/1.png"), member("b", size=size)))


def test_links_in_a_tar(tmp_path):
    """A second name of a file is an image, as tar packs it; a name alone is told as not read."""
    hard = member("b/2.png", b"", tarfile.LNKTYPE, link="./a/1.png")
    soft = member("b/3.png", b"", tarfile.SYMTYPE, link="/etc/passwd")
    lost = member("b/4.png", b"", tarfile.LNKTYPE, link="nosuch.png")
    path = tar(tmp_path, member("./a/1.png"), hard, soft, lost)
    found = read(path)
    assert found.names == ("a/1.png", "b/2.png") and found.labels.tolist() == [0, 1]
    assert (found.images[0] == found.images[1]).all()
    assert list(containers.Archive(path).others) == ["b/3.png"]


def test_a_packed_file_without_an_ending_whose_head_is_long(tmp_path):
    head = member("v", b"", tarfile.XHDTYPE, size=3 << 30)
    (tmp_path / "a").write_bytes(gzip.compress(head))
    assert "that is no tar" in refused(read, tmp_path / "a")


@pytest.mark.parametrize("kind", (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
@pytest.mark.parametrize("name", ("a/a.png", "a", "images.npy"))
def test_ways_of_packing_that_know_no_bound(tmp_path, kind, name):
    """Of bzip2, 45 bytes are 45 MB, which are made at once."""
    path = zipped(tmp_path / ("a.npz" if "npy" in name else "a.zip"), [name], bytes(5000), kind)
    assert "deflate" in refused(read, path)


@pytest.mark.parametrize("name", ("a/a.png", "a", "test_batch", "test_batch.bin", "x-idx3-ubyte"))
@pytest.mark.parametrize("place, bit", (((6, 8), 1), ((14, 16), 1)))
def test_members_that_are_encrypted_or_damaged(tmp_path, name, place, bit):
    """``place``: of the flags or of the checksum, in the member's head and in the list."""
    name = name.replace("x-", "x-images-")
    path = zipped(tmp_path / "a.zip", [name], bytes((0, 0, 8, 3)) + bytes(100))
    content = bytearray(path.read_bytes())
    for where in (place[0], content.index(b"PK\1\2") + place[1]):
        content[where] ^= bit
    path.write_bytes(content)
    assert "a.zip" in refused(read, path)


def test_a_name_in_an_npz_that_is_no_text(tmp_path):
    content = WHOLE["a.npz"].replace(b"labels.npy", b"l\xff\xffels.npy")
    place = content.rindex(b"PK\1\2") + 8  # of the flags: names are UTF-8
    content = content[:place] + struct.pack("<H", 0x800) + content[place + 2 :]
    (tmp_path / "a.npz").write_bytes(content)
    assert keys.keys_of(tmp_path / "a.npz") == []
    assert "a.npz" in refused(read, tmp_path / "a.npz")


@pytest.mark.parametrize("length", (300, 5000))
def test_classes_that_are_long_numbers(tmp_path, length):
    path = zipped(tmp_path / "a.zip", ["1/a.png", "9" * length + "/a.png"])
    if length == 300:
        assert read(path).classes == ("1", "9" * 300)
    else:
        assert "classes" in refused(read, path)


def test_a_zip_of_many_files_without_an_ending(tmp_path):
    """What lies in it is looked for once, not once for each of its files."""
    path = zipped(tmp_path / "a.zip", [f"{i:05}" for i in range(4000)], b"a text")
    assert "4,000 without an ending" in refused(read, path)
    assert not inside.Inside(containers.Archive(path), "0000").is_dir()


def test_an_archive_is_listed_once(tmp_path, monkeypatch):
    opened = []
    whole = zipfile.ZipFile.__init__
    monkeypatch.setattr(
        zipfile.ZipFile, "__init__", lambda *a, **k: (opened.append(a[1]), whole(*a, **k))[1]
    )
    path = zipped(tmp_path / "a.zip", ["a/a.png", "b/b.png"])
    opened.clear()
    other = containers.Archive(path).reopened()
    assert len(read(path)) == 2 and opened.count(path) == 1
    assert other.open("a/a.png").read() == PNG and opened.count(path) == 1
    zipped(path, ["a/c.png"])
    assert containers.Archive(path).names == ["a/c.png"]


def test_one_long_name_among_many(tmp_path):
    """A second reading, from the cache, does not make all names as long as the longest."""
    names = [f"a/{i:04}.png" for i in range(1200)]
    path = zipped(tmp_path / "a.zip", [*names, "b/" + "x" * 60_000 + ".png"])
    first = read(path)
    assert read(path).fingerprint == first.fingerprint


def test_images_that_come_while_a_folder_is_read(tmp_path, monkeypatch):
    """Names stay those of the images that were read."""
    (tmp_path / "f").mkdir()
    for name in ("b", "c"):
        (tmp_path / "f" / f"{name}.png").write_bytes(PNG)
    from utils.loaders import readers

    whole = readers.decode

    def decode(*arguments, **keywords):
        (tmp_path / "f" / "a.png").write_bytes(PNG)
        return whole(*arguments, **keywords)

    monkeypatch.setattr(readers, "decode", decode)
    assert read(tmp_path / "f").names == ("b.png", "c.png")
