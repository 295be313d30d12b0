"""Archives of images: nothing unsafe is unpacked, and a choice of the images can be made."""

import hashlib
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from tqdm import tqdm

Archive = tarfile.TarFile | zipfile.ZipFile
CHUNK = 1 << 20  # bytes
# of the images that are read
IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"),
    *(".webp", ".gif", ".avif"),
)


class DownloadError(Exception):
    """Why one data set could not be made ready."""


def is_image(path: PurePath) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")


def members(archive: Archive) -> Iterator[tuple[str, int, str, Any]]:
    """(name, declared bytes, "file" | "folder" | "other",
    handle) of each member of a tar or zip archive.
    """
    if isinstance(archive, tarfile.TarFile):
        for member in archive:
            plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
            yield (
                member.name,
                member.size,
                "folder" if member.isdir() else "file" if plain else "other",
                member,
            )
    else:
        for member in archive.infolist():
            plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = "folder" if member.is_dir() else "file"
            yield member.filename, member.file_size, kind if plain else "other", member


def safe_members(archive: Archive, limits: dict) -> list[tuple[PurePosixPath, Any]]:
    """[(path, handle)] of an archive's files; DownloadError if any member is unsafe or
    all together are too many.

    The rules are checked here since tarfile's own filters are absent from some Python 3.10 and 3.11
    releases. Hidden files are left out: macOS puts ``._name.jpg`` beside
    ``name.jpg``, which is no image.
    """
    files, total = [], 0
    for number, (name, size, kind, handle) in enumerate(members(archive), start=1):
        path = PurePosixPath(name.replace("\\", "/"))
        total += size
        if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
            raise DownloadError(f"unsafe archive refused: member {name!r} lies outside the target")
        if kind == "other" or (kind == "file" and not path.parts):
            raise DownloadError(
                f"unsafe archive refused: member {name!r} is a link, a device or no plain file"
            )
        if number > limits["members"] or total > limits["bytes"]:
            raise DownloadError(
                f"unsafe archive refused: more than {limits['members']:,} members or "
                f"{limits['bytes']:,} bytes unpacked"
            )
        if kind == "file" and not any(
            part.startswith(".") or part == "__MACOSX" for part in path.parts
        ):
            files.append((path, handle))
    return files


def choose_images(names: Iterable[str], count: int, seed: int) -> list[str]:
    """``count`` of the names, sorted: those with the smallest sha256 of "seed/name".

    The choice depends on the set of names and the seed alone, not on their order,
    the platform or the Python version.
    """
    ranked = sorted(
        sorted(set(names)), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()
    )
    return sorted(ranked[:count])


def write_members(archive: Archive, entry: dict, out: Path) -> None:
    """Write the archive's files (or the chosen images, without their folders) below ``out``."""
    files = safe_members(archive, entry["limits"])
    if "choose" in entry["extract"]:
        images = {path.name: handle for path, handle in files if is_image(path)}
        names = choose_images(images, entry["extract"]["choose"], entry["extract"]["seed"])
        files = [(PurePosixPath(name), images[name]) for name in names]
    opened = archive.extractfile if isinstance(archive, tarfile.TarFile) else archive.open
    for path, handle in tqdm(files, desc="unpack", unit=" files", disable=None):
        place = out / path
        place.parent.mkdir(parents=True, exist_ok=True)
        # x: a name that comes twice is an error
        with opened(handle) as source, open(place, "xb") as file:
            shutil.copyfileobj(source, file, CHUNK)
