"""What one input may cost before anything of it is decoded: memory, files, seconds.

Pictures of strangers may say that they are as large as they like. What is asked for here is read
off heads and directories; the limits are far above any image set in use.
"""

import io
import math
import os
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

from scipy.io import whosmat

from data.archives import IMAGE_ENDINGS
from utils.runtime import UserError, open_regular

PIXELS = 1 << 26  # of one image, as it is and after it is resized: 268 MB of four bytes each
IMAGE_BYTES = 1 << 28  # of one image file
FILES = 4_000_000  # of a folder, folders in it among them
LEFT_OUT = ("lost+found",)  # folders that nobody may read, at the top of a disk
MEMBERS = 2_000_000  # of an archive: ImageNet has 1.4 million images, each takes half a kilobyte
HEAD_BYTES = 1 << 20  # of a member's own head
VALUES = 1000  # in a head of a tar
PASSED_BYTES = 1 << 32  # of a member of a compressed tar, which is unpacked to be passed over
SECONDS = 300  # to list a folder or an archive
RAISED = "the limits in utils/loaders/bounds.py if you trust it"
DIRECTORY_BYTES = 3 << 24  # of a .zip's list of members: 500,000 with names of 50 bytes
ARRAYS_BYTES = 1 << 22  # the same of an .npz or a .pt, a member an array
PACKED = 20  # an array of photographs is never packed to less than 1/20 of its size
FREE_BYTES = 1 << 27  # but a small one of one colour may be; grey ones take three times it
CLASSES = 100_000
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # ways of packing that are read in pieces
LONGEST_NAME = 1000  # characters of a class's name
MAT_PACKED = 15  # the kind of a .mat's variable that is packed by zlib
NUMBERS = ("double", "single", "logical", "int8", "int16", "int32", "int64")
NUMBERS += ("uint8", "uint16", "uint32", "uint64")
WHOLE_BYTES = 1 << 30  # of a file that is read at once: a fixed form's, whose parts are smaller


def list_files(top: str | Path) -> Iterator[str]:
    """Paths of the files below a folder, each real folder once, whatever links lead to it, and
    first by the path without links.

    UserError beyond ``FILES`` or ``SECONDS``.
    """
    end, count, seen = time.monotonic() + SECONDS, 0, set()
    folders, links = [os.fspath(top)], []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    count += 1
                    if count > FILES or time.monotonic() > end:
                        raise UserError(
                            f"{top}: listing it ended after {count - 1} files, at most {FILES} in "
                            f"{SECONDS} seconds. Give a smaller folder, or an array (.npy), or raise "
                            f"{RAISED}"
                        )
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_symlink() and os.path.isdir(entry.path):  # not one to itself
                        links.append(entry.path)
                    else:
                        yield entry.path
        except PermissionError:  # its class would be missing, and others have its label
            name = os.path.basename(folder)
            if name not in LEFT_OUT and not name.startswith("."):  # hidden ones are not read
                raise UserError(
                    f"{folder} may not be read. Change its rights, or give a folder without it"
                ) from None
        except OSError:  # it has gone
            continue
        links.sort()


def check_image(size: tuple[int, int], resized: tuple[int, int]) -> None:
    """ValueError where an image of (width, height) has too many pixels, before or after it is
    resized.
    """
    for (width, height), when in ((size, ""), (resized, " after resizing")):
        if width * height > PIXELS:
            raise ValueError(f"{width} x {height} pixels{when}, more than {PIXELS >> 20} million")


def read_image_bytes(file: BinaryIO) -> bytes:
    """The whole of an image file; ValueError where it is larger than any."""
    content = bytearray()
    while piece := file.read(1 << 20):  # a read of so many bytes asks for all of them first
        content += piece
        if len(content) > IMAGE_BYTES:
            raise ValueError(f"more than {IMAGE_BYTES >> 20} MB")
    return bytes(content)


def first_bytes(path: str | Path, count: int = 20) -> bytes:
    """The first bytes of a regular file; b"" of what is none, or may not be read."""
    try:
        with open_regular(path) as file:
            return file.read(count)
    except (OSError, ValueError, UserError):
        return b""


def read_whole(file: BinaryIO, path: str | Path, limit: int = WHOLE_BYTES) -> bytearray:
    """The rest of a file, nobody else's; UserError where that is more than ``limit`` bytes."""
    content = bytearray()
    while piece := file.read(1 << 20):
        content += piece
        if len(content) > limit:
            raise UserError(f"{path} holds more than {limit:,} bytes, which no such file does")
    return content


def check_directory(file: BinaryIO, path: str | Path, limit: int = DIRECTORY_BYTES) -> None:
    """UserError where a .zip's own list of its members is too long to be read into memory."""
    length = file.seek(0, os.SEEK_END)
    start = max(length - (1 << 16) - 98, 0)
    file.seek(start)
    end = file.read()
    place = end.rfind(b"PK\5\6")
    size = int.from_bytes(end[place + 12 : place + 16], "little") if place >= 0 else 0
    place = end.rfind(b"PK\6\6")  # sizes of eight bytes
    if place >= 0:
        size = max(size % 0xFFFFFFFF, int.from_bytes(end[place + 40 : place + 48], "little"))
    file.seek(0)
    count = size // 46
    if size > limit or (size > limit // 4 and size > length):
        raise UserError(f"{path}: its list of up to {count} members is too long. Unpack it")


class Member(tarfile.TarInfo):
    """A member of a .tar whose head is short and says no more than name and size: Python reads the
    whole of a head, a long name, say, and of a sparse file's map, before anyone may look at it,
    takes minutes for one of digits alone, and keeps all values. UserError otherwise.
    """

    HEADS = (
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    )

    @classmethod
    def frombuf(cls, *block: Any) -> tarfile.TarInfo:
        member = super().frombuf(*block)
        if member.size < 0 or (member.type in cls.HEADS and member.size > HEAD_BYTES):
            raise UserError(
                f"a member's head says {member.size:,} bytes, which none has. Make the archive anew"
            )
        return member if member.type != tarfile.GNUTYPE_SPARSE else member.refuse()

    def refuse(self, *_: Any) -> None:
        raise UserError(
            f"'{self.name}' is a file with holes, which no image is. Make the archive without "
            "tar's --sparse"
        )

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """The member that follows a head of values, with the name and the size of these; values of
        all members, which name none, are passed over.
        """
        values = head_values(archive.fileobj.read(self._block(self.size))[: self.size])
        try:
            member = self.fromtarfile(archive)
        except tarfile.HeaderError as error:
            raise tarfile.SubsequentHeaderError(str(error)) from None
        member.offset = self.offset
        if self.type == tarfile.XGLTYPE:
            return member
        if any(key.startswith(b"GNU.sparse.") for key in values):
            member.refuse()
        if b"path" in values:
            member.name = values[b"path"].decode(errors="surrogateescape").rstrip("/")
        if b"linkpath" in values:
            member.linkname = values[b"linkpath"].decode(errors="surrogateescape")
        if b"size" in values:
            text = values[b"size"]
            member.size = int(text) if text.isdigit() and len(text) < 19 else 1 << 63
            if member.isfile():
                archive.offset = member.offset_data + member._block(member.size)
        return member


def head_values(content: bytes) -> dict[bytes, bytes]:
    """{key: value} of a head of a .tar: lines "LENGTH KEY=VALUE", whose length counts all of it;
    UserError where it is none.
    """
    values: dict[bytes, bytes] = {}
    place = 0
    while place < len(content):
        length = content[place : place + 20].partition(b" ")[0]
        end = place + int(length) if length.isdigit() else place
        line = content[place + len(length) + 1 : end].removesuffix(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals or end > len(content) or len(values) == VALUES:
            raise UserError("a member's head is damaged or too long. Make the archive anew")
        values[key], place = value, end
    return values


def is_packed(archive: zipfile.ZipFile | tarfile.TarFile) -> bool:
    """Whether an archive can only be read from its beginning."""
    plain = isinstance(archive, zipfile.ZipFile) or isinstance(archive.fileobj, io.BufferedReader)
    return not plain


class Placed(NamedTuple):
    """Where in a tar a member lies: a tenth of what Python keeps of it."""

    offset: int  # of its head
    offset_data: int
    size: int

    @classmethod
    def of(cls, member: tarfile.TarInfo) -> "Placed":
        return cls(member.offset, member.offset_data, member.size)

    def opened(self, archive: tarfile.TarFile) -> IO[bytes]:
        member = tarfile.TarInfo()
        member.offset_data, member.size = self.offset_data, self.size
        return archive.extractfile(member)


def passed(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, which does not keep them."""
    while member := archive.next():
        archive.members.clear()
        yield member


def limited(archive: zipfile.ZipFile | tarfile.TarFile, path: str | Path) -> Iterator:
    """The members of an archive; UserError beyond ``MEMBERS`` or ``SECONDS``, or at the first image
    file that is larger than any.
    """
    end, zipped = time.monotonic() + SECONDS, isinstance(archive, zipfile.ZipFile)
    packed = is_packed(archive)
    for count, member in enumerate(archive.infolist() if zipped else passed(archive)):
        name, size = (member.filename, member.file_size) if zipped else (member.name, member.size)
        if zipped and member.compress_type not in BOUNDED:
            raise UserError(
                f"{path}: '{name}' is packed in a way of which a few bytes may be gigabytes. Pack it "
                "as .zip files usually are (deflate), or unpack it and give the folder"
            )
        if count == MEMBERS or time.monotonic() > end:
            raise UserError(
                f"{path}: listing it ended after {count} members, at most {MEMBERS} in {SECONDS} "
                f"seconds. Unpack it and give the folder, or raise {RAISED}"
            )
        if size > IMAGE_BYTES and name.lower().endswith(tuple(IMAGE_ENDINGS)):
            raise UserError(
                f"{path}: '{name}' is of {size >> 20} MB, more than {IMAGE_BYTES >> 20}, which no "
                "image is. Make the archive without it"
            )
        if packed and size > PASSED_BYTES:
            raise UserError(
                f"{path}: '{name}' is of {size >> 30} GB, and all of a compressed tar is unpacked to "
                "be passed over. Make the archive without it, or unpack it and give the folder"
            )
        yield member


def check_packed(size: int, packed: int, what: str) -> None:
    """UserError where so little claims to be so much: it would fill the memory."""
    if size > max(FREE_BYTES, PACKED * packed):
        raise UserError(
            f"{what} is {size >> 20} MB packed into {packed >> 10} kB, which no images are. "
            "If you trust it, unpack it and give that"
        )


def check_arrays(file: BinaryIO, path: str | Path) -> None:
    """UserError where a member of a .npz is packed as no image is; nothing of a .npy."""
    if zipfile.is_zipfile(file):
        check_directory(file, path, ARRAYS_BYTES)
        length = file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file) as packed:
            for member in limited(packed, path):
                held = min(member.compress_size, length)
                check_packed(member.file_size, held, f"{path}: '{member.filename}'")
    file.seek(0)


def check_matrices(file: BinaryIO, names: tuple[str, ...], path: str | Path) -> None:
    """The same for a .mat; those variables of it that will be read are arrays of numbers."""
    length = file.seek(0, os.SEEK_END)
    check_unpacked(file, path)
    for name, shape, kind in whosmat(file):
        if name in names:
            if kind not in NUMBERS:
                raise UserError(f"{path}: '{name}' is of {kind}, not an array of numbers")
            check_packed(math.prod(map(int, shape)), length, f"{path}: '{name}'")
    file.seek(0)


def check_unpacked(file: BinaryIO, path: str | Path) -> None:
    """UserError where a packed variable of a .mat is longer than ``check_packed`` lets pass: each is
    unpacked and counted, as what its head says of its size need not be true.
    """
    file.seek(0)
    if 0 in file.read(4):  # version 4, which packs nothing
        file.seek(0)
        return
    file.seek(124)
    order = "<" if file.read(4)[2:] == b"IM" else ">"
    while len(head := file.read(8)) == 8:
        kind, packed = struct.unpack(f"{order}II", head)
        start = file.tell()
        if kind == MAT_PACKED:
            unpacker, size = zlib.decompressobj(), 0
            limit = max(FREE_BYTES, PACKED * packed)
            while size <= limit and (
                piece := file.read(min(1 << 16, start + packed - file.tell()))
            ):
                while piece and size <= limit:
                    size += len(unpacker.decompress(piece, 1 << 24))
                    piece = unpacker.unconsumed_tail
            check_packed(size, packed, f"{path}: a variable")
        file.seek(start + packed)
    file.seek(0)
