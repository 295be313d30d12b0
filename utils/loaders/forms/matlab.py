"""MATLAB files: CIFAR's (``data`` and ``labels``) and SVHN's (``X`` and ``y``), by their variables."""

import numpy as np
from scipy.io import loadmat, whosmat

from utils.runtime import UserError, open_regular, printable

from .. import arrays, bounds
from .base import Content, Form, Path, batch_names, named_files

LAYOUTS = (
    *batch_names(".mat"),
    {"train": ("train_32x32.mat",), "test": ("test_32x32.mat",)},
    {"test": ("selected_test_32x32.mat",)},
)
LABELS = ("labels", "fine_labels")
SHOWN = 6  # variables that an error names
NEWER, HDF5 = b"MATLAB 7.3", b"\x89HDF\r\n"


def find(path: Path) -> dict[str, list[Path]]:
    if path.is_dir():
        return named_files(path, LAYOUTS)
    named = path.suffix.lower() == ".mat" and path.exists()
    is_matlab = named or bounds.first_bytes(path).startswith((b"MATLAB 5.0", NEWER))
    return {"": [path]} if is_matlab else {}


def read_file(path: Path) -> Content:
    if bounds.first_bytes(path).startswith((NEWER, HDF5)):
        raise UserError(
            f"{path} is a MATLAB file of version 7.3, which is HDF5 inside and is not read. Write it "
            "anew in MATLAB: save('NAME.mat', 'X', 'y', '-v7'); or bring its images as an .npz with "
            "'images' and 'labels'"
        )
    try:
        with open_regular(path) as file:
            bounds.check_unpacked(file, path)
            names = [name for name, _, _ in whosmat(file)]
    except (UserError, FileNotFoundError):
        raise
    except Exception:
        names = []  # SVHN's reader says what is wrong
    if "data" in names and any(name in names for name in LABELS):
        return read_cifar(path)
    if names and not {"X", "y"} <= set(names):
        raise UserError(
            f"{path} holds {', '.join(map(printable, names[:SHOWN]))}; of a .mat are read 'X' and 'y', as "
            "SVHN's, or 'data' and 'labels', as CIFAR's. Or bring its images as an .npz with 'images' "
            "and 'labels'"
        )
    return read_svhn(path)


def read_cifar(path: Path) -> Content:
    """CIFAR's batch: ``data`` is (N,3072), all red values of an image by rows, then green, then
    blue; ``labels`` (N,1), or of CIFAR-100 ``fine_labels``.
    """
    try:
        with open_regular(path) as file:
            bounds.check_matrices(file, ("data", *LABELS), path)
            content = loadmat(file, variable_names=("data", *LABELS))
        data = content["data"]
        if data.ndim != 2 or data.shape[1] != 3072:
            raise ValueError(f"data is of shape {data.shape}, not (N,3072)")
        pixels = arrays.check_pixels(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), "data")
        labels = content["fine_labels" if "fine_labels" in content else "labels"].reshape(-1)
        if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():  # MATLAB's own numbers
            labels = labels.clip(-1, 1000).astype(np.int64)
        labels = arrays.check_labels(labels, len(pixels), "labels")
        if labels.min() < 0 or labels.max() > 99:
            raise ValueError(f"labels go from {labels.min()} to {labels.max()}")
        return pixels, labels
    except Exception as error:
        raise UserError(f"{path} is not a CIFAR .mat file ({error})") from None


def read_svhn(path: Path) -> Content:
    """SVHN's 32x32 .mat file: the array is (H,W,C,N), and label 10 means the digit 0."""
    try:
        with open_regular(path) as file:
            bounds.check_matrices(file, ("X", "y"), path)
            content = loadmat(file, variable_names=("X", "y"))
        images = content["X"].transpose(3, 0, 1, 2)
        labels = content["y"].reshape(-1)
        if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():  # MATLAB's own numbers
            labels = labels.clip(-1, 11).astype(np.int64)
        labels = arrays.check_labels(labels, len(images), "y")
        if labels.min() < 0 or labels.max() > 10:
            raise ValueError("y: labels are not digits, 0 to 10")
        return arrays.contiguous(arrays.check_pixels(images, "X")), labels % 10
    except Exception as error:
        raise UserError(f"{path} is not an SVHN .mat file ({error})") from None


FORM = Form("MATLAB, CIFAR's or SVHN's", find, read_file)
