"""MNIST's idx files, plain or packed by gzip: images (N,H,W) of unsigned bytes, labels (N,)."""

import gzip
import math
import re
import zlib

import numpy as np

from utils.runtime import UserError, open_regular

from .. import arrays, bounds
from .base import Content, Form, Path

IMAGES = re.compile(r"images?([._-])idx3([._-])ubyte(\.gz)?$", re.IGNORECASE)
BYTES = 8  # the code of unsigned bytes in an idx file's head


def find(path: Path) -> dict[str, list[Path]]:
    """Files by their names, below a folder or the ``raw/`` in it; one file also by its head."""
    if path.is_dir():
        for folder in (path, path / "raw"):
            found: dict[str, list[Path]] = {}
            for file in sorted(folder.iterdir()) if folder.is_dir() else ():
                if IMAGES.search(file.name):
                    part = "train" if "train" in file.name.lower() else "test"
                    first = found.setdefault(part, [file])[0]  # x sorts before x.gz
                    if file.name not in (first.name, f"{first.name}.gz"):
                        raise UserError(
                            f"{folder} holds several sets of {part} images, {first.name} and "
                            f"{file.name}. Give one file of images, or a folder with one set"
                        )
            if found:
                return found
        return {}
    head = bounds.first_bytes(path)
    plain = head[:4] == bytes((0, 0, BYTES, 3))
    return {"": [path]} if plain or (head[:2] == b"\x1f\x8b" and IMAGES.search(path.name)) else {}


def read_array(path: Path, sides: int) -> np.ndarray:
    """uint8 array of ``sides`` dimensions; its head says how many bytes follow, which is compared
    with what the file can hold before they are read.
    """
    with open_regular(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        length = file.seek(0, 2)
        file.seek(0)
        source = gzip.GzipFile(fileobj=file) if packed else file
        try:
            head = source.read(4 + 4 * sides)
            shape = tuple(np.frombuffer(head[4:], ">u4").tolist())
            if head[:4] != bytes((0, 0, BYTES, sides)) or len(shape) != sides:
                raise ValueError(f"its head is not that of {sides}-dimensional unsigned bytes")
            size = math.prod(shape)
            if not packed and size > length:
                raise ValueError(f"it says that it holds {size} bytes and is of {length}")
            bounds.check_packed(size, length, str(path))
            content = bounds.read_whole(source, path, limit=size)
            if len(content) != size:
                raise ValueError(f"it ends after {len(content)} of {size} bytes")
        except (ValueError, EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path} is not a whole idx file ({error})") from None
    return np.frombuffer(content, np.uint8).reshape(shape)


def labels_beside(path: Path) -> Path | None:
    """The file of the labels that belong to one of images, plain or packed; None: not there."""
    match = IMAGES.search(path.name)
    if match is None:
        return None
    name = f"{path.name[: match.start()]}labels{match[1]}idx1{match[2]}ubyte"
    places = (path.with_name(n) for n in (name, f"{name}.gz"))
    return next((place for place in places if place.exists()), None)


def read_file(path: Path) -> Content:
    pixels = arrays.check_pixels(read_array(path, 3), path)
    beside = labels_beside(path)
    if beside is None:
        return pixels, None
    return pixels, arrays.check_labels(read_array(beside, 1), len(pixels), beside)


FORM = Form("MNIST's idx", find, read_file)
