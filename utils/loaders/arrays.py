"""Images in arrays, .npy and .npz: uint8 pixels and integer labels, or an error that says what is
there instead.
"""

from pathlib import Path

import numpy as np

from utils.runtime import UserError, open_regular

from . import bounds
from .digits import Content
from .keys import WHOLE, find_key, label_key


def read_array(path: Path, split: str, inside: str = "") -> Content:
    """.npy or .npz of uint8 images (N,H,W,3), (N,3,H,W) or grey (N,H,W);
    an .npz may hold labels and classes. ``inside``: the key of the images of one part of it.
    """
    try:
        with open_regular(path) as file:
            bounds.check_arrays(file, path)
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
                images = read_grey(content, key)
                if images is None:  # a member that is no array comes as bytes
                    images = np.asarray(content[key])
                key = find_key(named, content.files)
                labels = None if key is None else np.asarray(content[key])
                classes = (
                    tuple(map(str, content["classes"])) if "classes" in content.files else None
                )
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as an array file ({error})") from None
    images = check_pixels(channels_last(images), path)
    return images, check_labels(labels, len(images), path), classes


def read_grey(content: np.lib.npyio.NpzFile, key: str) -> np.ndarray | None:
    """Grey uint8 images (N,H,W) of an .npz as (N,H,W,3), read one after the other: with the array
    beside it there would be a third more. None where there are others.
    """
    if f"{key}.npy" not in content.zip.namelist():
        return None
    with content.zip.open(f"{key}.npy") as member:
        if np.lib.format.read_magic(member) != (1, 0):
            return None
        shape, fortran, kind = np.lib.format.read_array_header_1_0(member)
        if kind != np.uint8 or fortran or len(shape) != 3 or shape[2] == 3 or 0 in shape:
            return None
        images = np.empty((*shape, 3), np.uint8)
        for place in images:
            grey = np.frombuffer(member.read(shape[1] * shape[2]), np.uint8)
            place[:] = grey.reshape(*shape[1:], 1)
    return images


def channels_last(images: np.ndarray) -> np.ndarray:
    """uint8 (N,3,H,W) -> (N,H,W,3) in the same memory, an image at a time: a second array would be
    as large. What has another shape is returned as it is.
    """
    shape, flags = images.shape, images.flags
    plain = images.dtype == np.uint8 and flags.c_contiguous and flags.writeable
    if not (plain and len(shape) == 4 and shape[1] == 3 and shape[3] not in (1, 3)):
        return images
    turned = images.reshape(shape[0], *shape[2:], 3)
    for place, image in zip(turned, images):
        place[:] = image.transpose(1, 2, 0).copy()
    return turned


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
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
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
