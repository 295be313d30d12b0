"""The table of data sets, and what a set is: one uint8 tensor of images and its labels."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from utils.runtime import DATA, UserError

from . import digits
from .bounds import CLASSES, LONGEST_NAME

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of R, G, B in 0..1
# One normalisation for ID, OOD and outliers alike ([Energy], [SR]): a second one would be a
# shortcut to tell them by.
MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)


STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)


IMAGENET_MEAN = (0.485, 0.456, 0.406)


IMAGENET_STD = (0.229, 0.224, 0.225)


SOURCES = json.loads((DATA / "sources.json").read_text(encoding="utf-8"))
STAND_INS = json.loads((DATA / "stand_ins.json").read_text(encoding="utf-8"))


@dataclass
class ImageSet:
    """images uint8 (N,3,H,W) in channels_last memory, labels int64 (N,) or None,
    and where they come from.

    ``fingerprint`` is the sha256 of shape, pixels and labels;
    ``skipped`` names the images that could not be read; ``names`` (N,) are the file names of the
    others below the folder or archive, None where they come from an array.
    """

    images: torch.Tensor
    labels: torch.Tensor | None
    name: str
    fingerprint: str
    classes: tuple | None = None
    source: str = ""
    skipped: tuple = ()
    names: tuple | None = None

    def __post_init__(self):
        classes = self.classes or ()
        if len(classes) > CLASSES or max(map(len, classes), default=0) > LONGEST_NAME:
            raise UserError(
                f"data set '{self.name}' ({self.source}) names {len(classes):,} classes; at most "
                f"{CLASSES:,} can be, of {LONGEST_NAME:,} characters each"
            )

    def __len__(self):
        return len(self.images)

    @property
    def streamed(self) -> bool:
        """Whether the images stay on disk (streaming.py); ``images`` then stands for the tensor."""
        return not torch.is_tensor(self.images)

    def subset(
        self, index: np.ndarray, name: str | None = None, in_place: bool = False
    ) -> "ImageSet":
        """The images of an index array as a set of their own; ``in_place``, of a rising index: in
        this set's memory, which holds nothing else afterwards.
        """
        labels = None if self.labels is None else self.labels[index].numpy()
        if in_place and not self.streamed:
            pixels = self.images.permute(0, 2, 3, 1).numpy()
            for place, image in enumerate(index):
                pixels[place] = pixels[image]
            pixels = pixels[: len(index)]
        else:
            pixels = self.images[index].permute(0, 2, 3, 1).contiguous().numpy()
        made = make_set(pixels, labels, name or self.name, self.classes, self.source)
        made.names = self.names and tuple(self.names[i] for i in index)
        return made

    def part(self, index: np.ndarray, in_place: bool = False) -> "ImageSet":
        """``subset`` that knows what was left out; of one that streams a part that streams."""
        if not self.streamed:
            return replace(self.subset(index, in_place=in_place), skipped=self.skipped)
        names = self.names and tuple(self.names[i] for i in index)
        digest = hashlib.sha256(self.fingerprint.encode() + np.asarray(index).tobytes())
        labels = None if self.labels is None else self.labels[index]
        kept = {"fingerprint": digest.hexdigest(), "names": names, "labels": labels}
        return replace(self, images=self.images.part(index), **kept)

    def describe(self) -> dict:
        """What a result file says of the set."""
        return {
            "name": self.name,
            "images": len(self),
            "fingerprint": self.fingerprint,
            "skipped": len(self.skipped),
        }


@dataclass(frozen=True)
class DataSet:
    """One line of DATASETS: where it lies below the data folder, how many classes it has."""

    paths: tuple = ()  # official places, tried in order; then the general ones of find_source
    elsewhere: tuple = ()  # where other projects and torchvision keep it; tried after all others
    # (split) -> pixels, labels, classes, for sets that need no file
    make: Callable | None = None
    num_classes: int | None = None  # of an ID set
    crop_only: bool = False  # larger images are cropped at the centre, not shrunk
    download: bool = False  # data/download.py knows it


# Folders that other projects keep their OOD sets in, below the data folder
OTHER_FOLDERS = ("ood_data", "ood_datasets")

DATASETS = {
    "cifar10": DataSet(
        ("cifar-10-batches-py",),
        elsewhere=(
            "cifarpy/cifar-10-batches-py",
            "cifar10/cifar-10-batches-py",
            "cifar-10-batches-bin",
            "cifar-10-batches-mat",
            *(f"cifar-10-{version}.tar.gz" for version in ("python", "binary", "matlab")),
        ),
        num_classes=10,
        download=True,
    ),
    "cifar100": DataSet(
        ("cifar-100-python",),
        elsewhere=(
            "cifarpy/cifar-100-python",
            "cifar100/cifar-100-python",
            "cifar-100-binary",
            "cifar-100-matlab",
            *(f"cifar-100-{version}.tar.gz" for version in ("python", "binary", "matlab")),
        ),
        num_classes=100,
        download=True,
    ),
    "digits": DataSet(make=digits.digits, num_classes=digits.ID_DIGITS),
    "textures": DataSet(("dtd/images",), ("dtd/dtd/images",), download=True),
    "svhn": DataSet(
        ("svhn/test_32x32.mat", "test_32x32.mat"),
        ("SVHN/test_32x32.mat", "svhn/selected_test_32x32.mat"),
        download=True,
    ),
    "places365": DataSet(
        ("places365/test_subset",),
        (
            *("places365_standard/test", "places365_standard/val", "places365_standard"),
            *("test_256", "val_256", "test_large", "val_large"),
        ),
        download=True,
    ),
    "lsun_c": DataSet(("LSUN",), ("LSUN_C",), crop_only=True, download=True),
    "lsun_r": DataSet(("LSUN_resize",), ("LSUN_R",), download=True),
    "isun": DataSet(("iSUN",), download=True),
    "300k": DataSet(("300K_random_images.npy",), download=True),
    "tiny_imagenet": DataSet(),
    "tin": DataSet(("tiny-imagenet-200/val",), download=True),
    "inaturalist": DataSet(("iNaturalist/images", "iNaturalist")),
    "sun": DataSet(("SUN/images", "SUN")),
    "places_mos": DataSet(("Places/images", "Places")),
    "mnist": DataSet(elsewhere=("MNIST",)),
    **{
        name: DataSet()
        for name in SOURCES["by_hand"]
        if name not in ("inaturalist", "sun", "places_mos", "mnist")
    },
    **{name: DataSet() for name in STAND_INS["sets"]},
    "digits_6_9": DataSet(make=digits.held_out_digits),
    "china_patches": DataSet(make=digits.photo_patches("china.jpg")),
    "flower_patches": DataSet(make=digits.photo_patches("flower.jpg")),
    "gaussian": DataSet(make=digits.gaussian),
    "rademacher": DataSet(make=digits.rademacher),
    "blobs": DataSet(make=digits.blobs),
    "digit_outliers": DataSet(make=digits.digit_outliers),
}


ID_SETS = [name for name, entry in DATASETS.items() if entry.num_classes]


# The six sets of the papers' protocol in the papers' order. Where the first of a line is not at
# hand the next, a set of the same kind but of other images, stands in for it under its own name.
SIX_SETS = tuple(
    (name, *(other for other, entry in STAND_INS["sets"].items() if entry["for"] == name))
    for name in SOURCES["groups"]["ood"]
)


OOD_SETS = {
    "digits": tuple(
        (name,)
        for name in (
            "digits_6_9",
            "china_patches",
            "flower_patches",
            "gaussian",
            "rademacher",
            "blobs",
        )
    )
}


OUTLIER_SETS = {"digits": ("digit_outliers",)}


OUTLIERS = ("tiny_imagenet", "300k")

# What needs no download: the chain's default, and real photographs whose scores tell
# one network from another.
NO_DOWNLOAD = "digits"
PHOTOGRAPHS = "china_patches"


# Groups of OOD sets, (name, sets), as other benchmarks have them: of OpenOOD v1.5 for an ID set, of
# OpenOOD and of [DICE] for ImageNet; and OpenOOD's ID images that were taken otherwise.
CIFAR_FAR = ("far", ("mnist", "svhn", "textures", "places365"))
OPENOOD_GROUPS = {
    "cifar10": (("near", ("cifar100", "tin")), CIFAR_FAR),
    "cifar100": (("near", ("cifar10", "tin")), CIFAR_FAR),
}
IMAGENET_GROUPS = (
    ("near", ("ssb_hard", "ninco")),
    ("far", ("inaturalist", "textures", "openimage_o")),
)
IMAGENET_FOUR = (("", ("inaturalist", "sun", "places_mos", "textures")),)
SHIFTED = ("imagenet_c", "imagenet_r", "imagenet_v2")
LIST_NAMES = {"textures": "texture"}  # a set's name here -> in OpenOOD's lists

# (mean, std) of R, G, B in 0..1, by the names of --mean and --std, as published code has them
STATISTICS = {
    "cifar": (MEAN, STD),  # [Energy], [SR]: this project's, for CIFAR-10 and CIFAR-100 alike
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def make_set(
    pixels: np.ndarray,
    labels: np.ndarray | None,
    name: str,
    classes: tuple[str, ...] | None = None,
    source: str = "",
) -> ImageSet:
    """ImageSet of uint8 (N,H,W,3) pixels and labels (N,) or None."""
    pixels = np.ascontiguousarray(pixels)
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(pixels)
    if labels is not None:
        labels = np.ascontiguousarray(labels, dtype=np.int64)
        digest.update(labels)
    return ImageSet(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        None if labels is None else torch.from_numpy(labels),
        name,
        digest.hexdigest(),
        classes,
        source,
    )


def outlier_statistics(norm: str, own: Statistics = (MEAN, STD)) -> Statistics:
    """(mean, std) that outliers are normalised with: the ID images',
    or ImageNet's as the published code of [SR].
    """
    return (IMAGENET_MEAN, IMAGENET_STD) if norm == "imagenet" else own
