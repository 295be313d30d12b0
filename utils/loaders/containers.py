"""Folders and archives of images: the names of what is in them, and how to open one of these.

Nothing is unpacked on disk.
"""

import bisect
import copy
import functools
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


# (path, what changes with its content) -> file, members and others of the archive that was listed
# last: all of a tar has to be passed for it, and all of a .zip's own list read
listed: dict[tuple, tuple[Any, dict, dict]] = {}


class Archive:
    """The images inside a .zip or .tar, by sorted name; nothing is unpacked on disk.

    ``order`` is the order in which they lie in the file:
    to go backwards in a compressed tar is to unpack it anew.
    """

    def __init__(self, path, inside=""):
        self.path, self.inside = Path(path), inside
        try:
            check_regular(path)
            self.content = self.content_now()
            key = str(path), self.content, self.path.stat().st_ctime_ns
            if key not in listed:
                found = self.list_members()
                listed.clear()
                listed[key] = found
            self.file, self.members, self.others = listed[key]
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

    def list_members(self) -> tuple[Any, dict, dict]:
        """(the opened archive, its images, what else it holds), by their names."""
        zipped = zipfile.is_zipfile(self.path)
        if zipped:
            with open_regular(self.path) as file:
                bounds.check_directory(file, self.path)
            self.file = zipfile.ZipFile(self.path)
        else:
            self.file = tarfile.open(self.path, tarinfo=bounds.Member)  # noqa: SIM115
        members: dict = {}
        others: dict = {}
        for member in bounds.limited(self.file, self.path):
            # as tar packs "." and as some Windows programs write folders
            name = member.filename.replace("\\", "/") if zipped else member.name
            name = name.removeprefix("./")
            if zipped:
                if not member.is_dir():
                    (members if self.is_image(member, name) else others)[name] = member
            elif member.isfile():
                kind = members if self.is_image(member, name) else others
                kind[name] = bounds.Placed.of(member)
            elif member.islnk():  # another name of a file before it
                target = member.linkname.removeprefix("./")
                if heads.is_named_image(name) and target in members:
                    members[name] = members[target]
            elif member.issym() and heads.is_named_image(name):  # is told as what is not read
                others[name] = bounds.Placed.of(member)
        if not zipped:
            self.file.fileobj.seek(self.file.offset)
            # a damaged header passes for the end
            if self.file.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("damaged after its first part")
        return self.file, members, others

    def has_folder(self, name: str) -> bool:
        """Whether files that are no images lie below a folder of this name."""
        place = bisect.bisect_left(self.sorted_others, f"{name}/")
        return any(n.startswith(f"{name}/") for n in self.sorted_others[place : place + 1])

    @functools.cached_property
    def sorted_others(self) -> list[str]:
        return sorted(self.others)

    def is_image(self, member: Any, name: str) -> bool:
        """As of a Folder; a tar's member is looked at while it is passed."""
        if heads.is_named_image(name) or not heads.may_be_image(name):
            return heads.is_named_image(name)
        try:
            zipped = isinstance(self.file, zipfile.ZipFile)
            with self.file.open(member) if zipped else self.file.extractfile(member) as file:
                return heads.is_image_head(file.read(heads.HEAD))
        except Exception:  # encrypted, damaged: each unpacker has errors of its own
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
        other.file = copy.copy(self.file)  # its list of members is not read again
        handle = "fp" if isinstance(self.file, zipfile.ZipFile) else "fileobj"
        setattr(other.file, handle, open_regular(self.path))
        if self.content_now() != self.content:
            raise UserError(f"{self.path} has been changed since it was listed. Run it again")
        return other


def stamp(file: str | Path) -> str:
    """What changes when a file does, or another one takes its name: its times may be set."""
    try:
        found = os.stat(file)
        times = f"{found.st_mtime_ns}|{found.st_ctime_ns}"
        return f"{file}|{found.st_size}|{times}|{found.st_ino}"
    except (OSError, ValueError):  # a link to nothing, no name: decoding says so, or leaves it out
        return f"{file}|unreadable"
