"""Folders and archives of images: the names of what is in them, and how to open one of these.

Nothing is unpacked on disk.
"""

import copy
import os
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO

from utils.runtime import UserError, check_regular, open_regular

from . import bounds, heads, splits


class Folder:
    """The images below a folder, by sorted relative name; class folders may be links."""

    def __init__(self, path):
        self.path = Path(path)
        start = len(os.path.join(path, ""))
        found = (file[start:].replace(os.sep, "/") for file in bounds.list_files(path))
        named, self.others = [], []
        for name in found:
            (named if self.is_image(name) else self.others).append(name)
        self.names = sorted(named)
        self.order = range(len(self.names))

    def is_image(self, name: str) -> bool:
        """By its ending, else by its first bytes."""
        return heads.is_named_image(name) or (
            heads.may_be_image(name) and heads.is_image_head(bounds.first_bytes(self.path / name))
        )

    def open(self, name: str) -> BinaryIO:
        return open_regular(self.path / name)

    def reopened(self) -> "Folder":
        """The same names, whatever has come into the folder since."""
        return self


class OneFile(Folder):
    """One image file, as a folder that holds nothing else."""

    def __init__(self, path):
        self.path, self.names, self.order, self.others = path.parent, [path.name], range(1), []


# (path, what changes with its content) -> members and others of the tar that was read last, all
# of which has to be passed to list it
listed: dict[tuple, tuple[dict, dict]] = {}


class Archive:
    """The images inside a .zip or .tar, by sorted name; nothing is unpacked on disk.

    ``order`` is the order in which they lie in the file:
    to go backwards in a compressed tar is to unpack it anew.
    """

    def __init__(self, path, inside=""):
        self.path, self.inside = Path(path), inside
        try:
            check_regular(path)
            self.content, zipped = self.content_now(), zipfile.is_zipfile(path)
            if zipped:
                with open_regular(path) as file:
                    bounds.check_directory(file, path)
            self.file = (
                zipfile.ZipFile(path) if zipped else tarfile.open(path, tarinfo=bounds.Member)  # noqa: SIM115
            )
            key = str(path), self.content, self.path.stat().st_ctime_ns
            known = listed.get(key) if not zipped else None
            self.members, self.others = known or ({}, {})
            for member in [] if known else bounds.limited(self.file, path):
                if member.is_dir() if zipped else not member.isfile():
                    continue
                # as tar packs "." and as some Windows programs write folders
                name = member.filename.replace("\\", "/") if zipped else member.name
                name = name.removeprefix("./")
                there = self.members if self.is_image(member, name) else self.others
                there[name] = member if zipped else bounds.Placed.of(member)
            if not (zipped or known):
                self.file.fileobj.seek(self.file.offset)
                # a damaged header passes for the end
                if self.file.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError("damaged after its first part")
                listed.clear()
                listed[key] = self.members, self.others
        except UserError as error:
            text = str(error)
            raise UserError(text if str(path) in text else f"{path}: {text}") from None
        except Exception as error:  # each unpacker has errors of its own
            raise UserError(f"{path} is not a readable .zip or .tar archive ({error})") from None
        chosen = {name for name in self.members if name.startswith(inside)}
        # of the archive's one folder around everything no class is called
        self.inside = inside or splits.common_root(sorted(chosen))
        self.names = sorted(name.removeprefix(self.inside) for name in chosen)
        self.order = sorted(
            range(len(self.names)),
            key=lambda i: self.place(self.members[self.inside + self.names[i]]),
        )

    def is_image(self, member: Any, name: str) -> bool:
        """As of a Folder; a tar's member is looked at while it is passed."""
        if heads.is_named_image(name) or not heads.may_be_image(name):
            return heads.is_named_image(name)
        try:
            zipped = isinstance(self.file, zipfile.ZipFile)
            with self.file.open(member) if zipped else self.file.extractfile(member) as file:
                return heads.is_image_head(file.read(heads.HEAD))
        except (RuntimeError, NotImplementedError, zipfile.BadZipFile):  # encrypted, damaged
            return False

    def content_now(self) -> tuple[int, int, int]:
        """What is another one where the file has other content: not the time of its rights."""
        found = self.path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    @staticmethod
    def place(member: zipfile.ZipInfo | bounds.Placed) -> int:
        """Where in the file a member begins."""
        return member.header_offset if isinstance(member, zipfile.ZipInfo) else member.offset

    def open(self, name: str) -> IO[bytes]:
        return self.open_member(self.members[self.inside + name])

    def open_member(self, member: Any) -> IO[bytes]:  # by its name a tar would be searched
        if isinstance(self.file, zipfile.ZipFile):
            return self.file.open(member)
        return member.opened(self.file)

    def reopened(self) -> "Archive":
        """The same members, read by a handle of its own, for another process."""
        other = copy.copy(self)
        if isinstance(self.file, zipfile.ZipFile):
            other.file = zipfile.ZipFile(self.path)
        else:
            other.file = copy.copy(self.file)
            other.file.fileobj = open_regular(self.path)
        if self.content_now() != self.content:
            raise UserError(f"{self.path} has been changed since it was listed. Run it again")
        return other


def stamp(file: Path) -> str:
    """What changes when a file does, or another one takes its name: its times may be set."""
    try:
        found = file.stat()
        times = f"{found.st_mtime_ns}|{found.st_ctime_ns}"
        return f"{file}|{found.st_size}|{times}|{found.st_ino}"
    except OSError:  # a link to nothing: decoding says so, or leaves it out
        return f"{file}|unreadable"
