"""What a file is, by its name, and by its first bytes where its name does not say so."""

import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from data.archives import IMAGE_ENDINGS

from . import bounds

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARRAY_ENDINGS = (".npz", ".npy")
# the first bytes of files whose names do not say what they are
NPY, ZIP, PACKED = b"\x93NUMPY", b"PK\3\4", (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
IMAGE = tuple(IMAGE_ENDINGS)
HEAD = 16  # bytes that are enough to know an image by
HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
# of files that lie beside images and are none: these are not opened to see what they are
OTHERS = (
    *(".txt", ".csv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".pdf", ".log"),
    *(".mat", ".npy", ".npz", ".pkl", ".pt", ".pth", ".h5", ".hdf5", ".parquet", ".arrow", ".bin"),
    *(".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".tfrecord", ".lmdb", ".mdb"),
    *(".db", ".py", ".mp4", ".avi", ".mov"),
)


def is_image_head(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an image in a format that is read."""
    if head.startswith(HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return True
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return True
    if head[:2] == b"BM":  # the two reserved numbers of a BMP are 0
        return head[6:10] == bytes(4)
    return head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b"\n\r \t" and len(head) > 4


# the first bytes of files that are no images, and what they are
KNOWN = (
    (b"\x89HDF", "an HDF5 file"),
    (b"MATLAB 7.3", "a MATLAB file of version 7.3 (HDF5)"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1f\x8b", "a file packed by gzip that is no tar"),
    (b"SQLite", "an SQLite data base"),
    (b"\x80", "a pickle, whose code might be anyone's"),
    (b"%PDF", "a PDF"),
)


def what_is(head: bytes) -> str:
    """A file in words, by its first bytes."""
    if not head:
        return "an empty file"
    told = next((words for start, words in KNOWN if head.startswith(start)), None)
    if told is None and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        told = "a text that is no list of images ('path label' a line)"
    return told or "neither an image nor an archive"


def is_hidden(name: str) -> bool:
    if not name.startswith((".", "_")) and "/." not in name and "/_" not in name:
        return False  # nearly all names
    parts = name.split("/")
    return any(part.startswith((".", "__MACOSX")) and part != "." for part in parts)


def ending_of(name: str) -> str:
    """The ending of a relative name in lower case; of a million names pathlib takes a minute."""
    return posixpath.splitext(name)[1].lower()


def is_named_image(name: str) -> bool:
    """Whether a relative name is that of an image, hidden files and folders apart."""
    return name.lower().endswith(IMAGE) and not is_hidden(name)


def may_be_image(name: str) -> bool:
    """Whether only a file's first bytes say that it is an image: no ending, or an unknown one."""
    ending = ending_of(name)
    return ending not in OTHERS and ending not in IMAGE_ENDINGS and not is_hidden(name)


def kinds(names: Iterable[str]) -> str:
    """ "3 .txt, 1 without an ending" of file names, the most frequent first; "" of none."""
    shown = [name for name in names if not is_hidden(name)]
    count = Counter(ending_of(name) or "without an ending" for name in shown)
    most = sorted(count.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{number:,} {ending[:20]}" for ending, number in most[:6]]
    return ", ".join(told + ["..."] * (len(most) > 6))


def is_array(path: Path) -> bool:
    """By its ending, else by its first bytes: of a .npy, or of a zip that begins with one."""
    if path.name.lower().endswith((*ARRAY_ENDINGS, *ARCHIVE_ENDINGS)):
        return path.name.lower().endswith(ARRAY_ENDINGS)
    head = bounds.first_bytes(path, 100)
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return head.startswith(NPY) or (head.startswith(ZIP) and name.endswith(b".npy"))


def is_archive(path: Path) -> bool:
    """By its ending, else by its first bytes: of a zip, a tar or something packed."""
    if not path.is_file() or is_array(path):
        return False
    if path.name.lower().endswith(ARCHIVE_ENDINGS):
        return True
    head = bounds.first_bytes(path, 512)
    if head.startswith(ZIP) or head[257:262] == b"ustar":
        return True
    try:
        if head.startswith(PACKED):
            tarfile.open(path, tarinfo=bounds.Member).close()
        return head.startswith(PACKED)
    except Exception:  # each unpacker has errors of its own
        return False


def is_image_file(path: Path) -> bool:
    """By its ending, else by its first bytes."""
    return is_named_image(path.name) or is_image_head(bounds.first_bytes(path))
