"""Images in arrays, .npy and .npz: uint8 pixels and integer labels, or an error that says what is
there instead.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.runtime import UserError, open_regular, printable

from . import bounds, heads
from .digits import Content
from .keys import WHOLE, find_key, label_key

Images = tuple[np.ndarray, np.ndarray | None]  # uint8 (N,H,W,3), int64 labels (N,) or None

# of a .npy: version of the format -> what reads its header
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_array(path: Path, split: str, inside: str = "") -> Content:
    """.npy or .npz of uint8 images (N,H,W,3), (N,3,H,W) or grey (N,H,W);
    an .npz may hold labels and classes. ``inside``: the key of the images of one part of it.
    """
    try:
        with open_regular(path) as file:
            bounds.check_arrays(file, path)
            content = read_grey(file)
            if content is None:
                file.seek(0)
                content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                images, labels, classes = content, None, None
            else:
                wanted, named = ((inside,), (label_key(inside),)) if inside else WHOLE
                key = find_key(wanted, content.files)
                if key is None:
                    raise UserError(
                        f"{path} holds {', '.join(content.files) or 'nothing'}; "
                        "its images must be called 'images'"
                    )
                images = None
                if f"{key}.npy" in content.zip.namelist():
                    with content.zip.open(f"{key}.npy") as member:
                        images = read_grey(member)
                if images is None:  # a member that is no array comes as bytes
                    images = np.asarray(content[key])
                key = find_key(named, content.files)
                labels = None if key is None else np.asarray(content[key])
                classes = class_names(content["classes"]) if "classes" in content.files else None
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as an array file ({error})") from None
    images = contiguous(check_pixels(images, path))
    return images, check_labels(labels, len(images), path), classes


def class_names(names: np.ndarray) -> tuple[str, ...]:
    """The names in an array of texts, bytes or numbers (C,); ValueError where it is none."""
    if not isinstance(names, np.ndarray) or names.ndim != 1 or names.dtype.kind not in "USiu":
        raise ValueError("'classes' is not a list of names")
    texts = (name.decode() if isinstance(name, bytes) else str(name) for name in names)
    return tuple(map(printable, texts))


def read_grey(file: BinaryIO) -> np.ndarray | None:
    """Grey uint8 images (N,H,W) or (N,H,W,1) of a .npy as (N,H,W,3), read one after the other: with
    the array beside it there would be a third more. None of anything else.
    """
    if file.read(len(heads.NPY)) != heads.NPY:
        return None
    read_header = HEADERS.get(tuple(file.read(2)))
    if read_header is None:
        return None
    shape, fortran, kind = read_header(file)
    grey = (len(shape) == 3 and shape[2] != 3) or (len(shape) == 4 and shape[3] == 1)
    if kind != np.uint8 or fortran or not grey or 0 in shape:
        return None
    images = np.empty((*shape[:3], 3), np.uint8)
    for place in images:
        read = np.frombuffer(file.read(shape[1] * shape[2]), np.uint8)
        place[:] = read.reshape(*shape[1:3], 1)
    return images


def contiguous(images: np.ndarray) -> np.ndarray:
    """The images one value after the other, in the same memory where each image's values already lie
    together, in whatever order: a second array would be as large. For images just read, which
    nobody else holds.
    """
    order = sorted(range(images.ndim), key=lambda axis: -images.strides[axis])
    plain = images.transpose(order)
    if order[0] != 0 or not plain.flags.c_contiguous or not images.flags.writeable:
        return np.ascontiguousarray(images)
    turned = plain.reshape(images.shape)
    if images.flags.c_contiguous:
        return images
    for place, image in zip(turned, images):
        place[:] = image.copy()
    return turned


def joined(parts: Iterable[Images], count: int, where: Path) -> Images:
    """The images and labels of ``count`` files as one: each is put into its place as it is read, in
    memory for as many images as if all files held what the largest does. Labels only where all
    have them. UserError: images of several sizes.
    """
    if count == 1:
        return next(iter(parts))
    whole, total, labels = None, 0, []
    for pixels, named in parts:
        if whole is not None and whole.shape[1:] != pixels.shape[1:]:
            raise UserError(f"{where}: its files hold images of several sizes")
        if whole is None or len(whole) < total + len(pixels):
            larger = np.empty(
                (total + (count - len(labels)) * len(pixels), *pixels.shape[1:]), np.uint8
            )
            if whole is not None:
                larger[:total] = whole[:total]
            whole = larger
        whole[total : total + len(pixels)] = pixels
        total += len(pixels)
        labels.append(named)
        del pixels  # before the next file is read
    return whole[:total], np.concatenate(labels) if all(
        part is not None for part in labels
    ) else None


def check_pixels(images: np.ndarray, where: str | Path) -> np.ndarray:
    """uint8 (N,H,W,3) view of an array of images, or a UserError that says what it is instead."""
    shape, kind = images.shape, images.dtype
    if kind != np.uint8:
        raise UserError(
            f"{where}: images are {kind}, not uint8 (0 to 255). Write them so; of values of 0 to 1: "
            "(255 * images).round().astype('uint8')"
        )
    if images.ndim == 3 and shape[2] == 3:
        raise UserError(
            f"{where}: an array of shape {shape} is one colour image, or grey ones 3 wide. "
            "Give colour images as (N,H,W,3), also a single one"
        )
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    elif images.ndim == 4 and images.shape[3] == 1:
        images = np.repeat(images, 3, axis=3)
    elif images.ndim == 4 and images.shape[3] != 3 and images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"{where}: images have shape {shape}, not (N,H,W,3), (N,3,H,W) or (N,H,W)")
    if images.size == 0:
        raise UserError(f"{where}: there is no image in it")
    return images


def read_labels(path: Path, count: int) -> np.ndarray:
    """int64 (count,) labels of a .npy; UserError where they are not those."""
    try:
        with open_regular(path) as file:
            labels = np.load(file, allow_pickle=False)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as an array file ({error})") from None
    return check_labels(np.asarray(labels), count, path)


def check_labels(labels: np.ndarray | None, count: int, where: str | Path) -> np.ndarray | None:
    """int64 (N,) labels of (N,) or (N,1), or None."""
    if labels is None:
        return None
    if labels.shape == (count, 1):  # as Keras and MedMNIST write them
        labels = labels[:, 0]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        advice = ""
        if labels.ndim == 2 and len(labels) == count and labels.shape[1] > 1:  # one-hot
            advice = ". Write the numbers of the classes: labels.argmax(1)"
        elif labels.shape == (count,) and labels.dtype.kind in "US":
            advice = (
                ". Write numbers and, as 'classes', their names: "
                "classes, labels = np.unique(labels, return_inverse=True)"
            )
        elif labels.shape == (count,) and labels.dtype.kind in "fb":
            advice = ". Write whole numbers: labels.astype(int)"
        raise UserError(
            f"{where}: labels are {labels.dtype} of shape {labels.shape}, not {count} integers"
            + advice
        )
    if labels.size and labels.max() > np.iinfo(np.int64).max:
        raise UserError(f"{where}: labels reach {labels.max()}, which numbers no class")
    return labels.astype(np.int64)
