"""Forms inside an archive: its files and folders as paths, so that forms are read as they are where
they lie unpacked. Nothing is unpacked on disk.
"""

import fnmatch
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from utils.runtime import UserError

from . import bounds, containers, forms, heads, lists, splits
from .heads import is_hidden, is_named_image

DEPTH = 3  # folders around everything
ENDINGS = (*heads.ARRAY_ENDINGS, ".bin", ".mat", "-ubyte", "-ubyte.gz")  # or none at all
known: dict[tuple[str, str], "Inside | None"] = {}  # (archive, its stamp) -> what ``opened`` found


class Member:
    """An opened file of an archive. NumPy takes what tarfile gives for a file of the disk and asks
    for its number, which it has not. UserError where it cannot be unpacked.
    """

    def __init__(self, file: IO[bytes], name: str):
        self.file, self.name = file, name
        self.read, self.readline = self.told(file.read), self.told(file.readline)
        self.readinto, self.seek = self.told(file.readinto), self.told(file.seek)
        self.tell, self.close = file.tell, file.close

    def told(self, action: Callable) -> Callable:
        """An action of the file whose errors, of which each unpacker has its own, are UserErrors."""

        def act(*arguments: Any) -> Any:
            try:
                return action(*arguments)
            except Exception as error:
                raise UserError(f"{self.name} cannot be unpacked ({error})") from None

        return act

    def seekable(self) -> bool:
        return True

    def __enter__(self) -> "Member":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


class Inside:
    """A file or folder of an archive, ``at`` below its root: what of pathlib's Path forms use."""

    def __init__(self, archive: "containers.Archive", at: str = ""):
        self.archive, self.at = archive, at.strip("/")
        self.name = PurePosixPath(self.at).name or archive.path.name
        self.suffix = PurePosixPath(self.name).suffix

    def __str__(self) -> str:
        return f"{self.archive.path}/{self.at}".rstrip("/")

    def __fspath__(self) -> str:
        return str(self)

    def __lt__(self, other: "Inside") -> bool:
        return self.at < other.at

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Inside) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: str) -> "Inside":
        return Inside(self.archive, f"{self.at}/{name}")

    @property
    def parent(self) -> "Inside":
        return Inside(self.archive, self.at.rpartition("/")[0])

    def with_name(self, name: str) -> "Inside":
        return self.parent / name

    def expanduser(self) -> "Inside":
        return self

    resolve = expanduser

    def is_file(self) -> bool:
        return self.at in self.archive.others

    def is_dir(self) -> bool:
        return not self.at or self.archive.has_folder(self.at)

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator["Inside"]:
        below = f"{self.at}/".lstrip("/")
        names = (n.removeprefix(below) for n in self.archive.others if n.startswith(below))
        yield from (self / name for name in dict.fromkeys(n.partition("/")[0] for n in names))

    def glob(self, pattern: str) -> Iterator["Inside"]:
        return (path for path in self.iterdir() if fnmatch.fnmatch(path.name, pattern))

    def open_member(self) -> Member:
        """The file, opened; FileNotFoundError, or a UserError where it claims to be much larger than
        the archive can hold.
        """
        if not self.is_file():
            raise FileNotFoundError(f"no file {self.at} in {self.archive.path}")
        member = self.archive.others[self.at]
        size = member.file_size if hasattr(member, "file_size") else member.size
        bounds.check_packed(size, self.archive.path.stat().st_size, str(self))
        try:
            return Member(self.archive.open_member(member), str(self))
        except Exception as error:  # encrypted, damaged
            raise UserError(f"{self} cannot be unpacked ({error})") from None


Place = Path | Inside


def opened(path: Place) -> Place:
    """``path``; of an archive without an image that holds a form or parts as arrays, the folder in
    it that does; of a path that goes on inside an archive, what lies there. Of a severity's path,
    ``x.tar@3``, the same with its severity.
    """
    if isinstance(path, Inside):
        return path
    place, severity = forms.corruptions.split_severity(path)
    if heads.is_archive(place):
        key = str(place), containers.stamp(place)
        if key not in known:
            known[key] = folder_with_form(place)
        found = known[key]
    else:
        found = None if place.exists() else below(place)
    if found is None:
        return path
    return found if severity is None else Inside(found.archive, f"{found.at}@{severity}")


def below(path: Path) -> Inside | None:
    """What a path ``x.tar/folder/file`` names inside an archive; None: there is none, or not that."""
    archive = next((parent for parent in path.parents if parent.exists()), path)
    if not heads.is_archive(archive):
        return None
    found = Inside(containers.Archive(archive), path.relative_to(archive).as_posix())
    return found if found.exists() else None


def folder_with_form(path: Path) -> Inside | None:
    archive = containers.Archive(path)
    if archive.members or not any(map(may_be_form, archive.others)):
        return None
    folder = around(Inside(archive))
    return folder if holds_parts(folder) else None


def may_be_form(name: str) -> bool:
    """Whether an ending, or none, is that of a file of a form."""
    return PurePosixPath(name).suffix == "" or name.lower().endswith(ENDINGS)


def holds_parts(folder: Place) -> bool:
    """Whether a folder has a form, or a training, test or validation part."""
    return bool(forms.form_of(folder) or folder_parts(folder))


def folder_parts(folder: Place) -> dict[str, list[Place]]:
    """``parts_of_folder``: folders, arrays, archives and lists; inside an archive arrays alone."""
    if not isinstance(folder, Inside):
        endings = heads.ARRAY_ENDINGS + heads.ARCHIVE_ENDINGS
        return splits.parts_of_folder(folder, endings, lists.is_list)
    found = splits.parts_of_folder(folder, heads.ARRAY_ENDINGS)
    files = {kind: [part for part in some if part.is_file()] for kind, some in found.items()}
    return {kind: some for kind, some in files.items() if some}


def around(path: Place) -> Place:
    """The folder that has a form or parts, where ``path`` is nothing but a folder around it, at most
    DEPTH of them; else ``path``.
    """
    place = path
    for _ in range(DEPTH):
        if not place.is_dir() or holds_parts(place):
            break
        inner = only_folder(place)
        if inner is None:
            return path
        place = inner
    return place if place.is_dir() and holds_parts(place) else path


def only_folder(place: Place) -> Place | None:
    """The folder in a folder that has no other one and no images; None: it is no such one."""
    folders = []
    for entry in place.iterdir():
        if is_hidden(entry.name):
            continue
        if is_named_image(entry.name):  # before anything is asked of the disk
            return None
        if entry.is_dir():
            folders.append(entry)
        elif isinstance(entry, Path) and heads.is_image_file(entry):  # its archive has no image
            return None
        if len(folders) > 1:
            return None
    return folders[0] if folders else None
