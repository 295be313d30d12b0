"""Find a data set by name or path and give it as one uint8 tensor; the table of data sets and protocols."""
import contextlib
import hashlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

import numpy as np
import torch
from tqdm import tqdm

from . import readers, toy
from .runtime import DATA, UserError, write_bytes

# One normalisation for ID, OOD and outliers alike ([Energy], [SR]): a second one would be a shortcut to tell them apart.
MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass
class ImageSet:
    """images uint8 (N,3,H,W) in channels_last memory, labels int64 (N,) or None, and where they come from.

    ``fingerprint`` is the sha256 of shape, pixels and labels; ``skipped`` names the images that could not be read.
    """

    images: torch.Tensor
    labels: Optional[torch.Tensor]
    name: str
    fingerprint: str
    classes: Optional[tuple] = None
    source: str = ""
    skipped: tuple = ()

    def __len__(self):
        return len(self.images)

    def subset(self, index, name=None):
        """The images of an index array as a set of their own."""
        labels = None if self.labels is None else self.labels[index].numpy()
        pixels = self.images.permute(0, 2, 3, 1)[index].contiguous().numpy()
        return make_set(pixels, labels, name or self.name, self.classes, self.source)

    def describe(self):
        """What a result file says of the set."""
        return {"name": self.name, "images": len(self), "fingerprint": self.fingerprint, "skipped": len(self.skipped)}


@dataclass(frozen=True)
class DataSet:
    """One line of DATASETS: where it lies below the data folder, how it is read, how many classes it has."""

    paths: tuple = ()                       # official places, tried in order; then the general ones of find_source
    read: Optional[Callable] = None         # (path, split) -> pixels, labels, classes; None = by the kind of file
    make: Optional[Callable] = None         # (split) -> the same, for sets that need no file
    num_classes: Optional[int] = None       # of an ID set
    crop_only: bool = False                 # larger images are cropped at the centre, not shrunk
    download: bool = False                  # data/download.py knows it


DATASETS = {
    "cifar10": DataSet(("cifar-10-batches-py",), readers.read_cifar, num_classes=10, download=True),
    "cifar100": DataSet(("cifar-100-python",), readers.read_cifar, num_classes=100, download=True),
    "digits": DataSet(make=toy.digits, num_classes=toy.ID_DIGITS),
    "textures": DataSet(("dtd/images",), download=True),
    "svhn": DataSet(("svhn/test_32x32.mat", "test_32x32.mat"), readers.read_svhn, download=True),
    "places365": DataSet(("places365/test_subset",), download=True),
    "lsun_c": DataSet(("LSUN",), crop_only=True, download=True),
    "lsun_r": DataSet(("LSUN_resize",), download=True),
    "isun": DataSet(("iSUN",), download=True),
    "300k": DataSet(("300K_random_images.npy",), download=True),
    "tiny_imagenet": DataSet(),
    "textures_dtd": DataSet(),
    "places": DataSet(),
    "scenes_crop": DataSet(),
    "scenes_resize": DataSet(),
    "digits_6_9": DataSet(make=toy.held_out_digits),
    "china_patches": DataSet(make=toy.photo_patches("china.jpg")),
    "flower_patches": DataSet(make=toy.photo_patches("flower.jpg")),
    "gaussian": DataSet(make=toy.gaussian),
    "rademacher": DataSet(make=toy.rademacher),
    "blobs": DataSet(make=toy.blobs),
    "digit_outliers": DataSet(make=toy.digit_outliers),
}

ID_SETS = [name for name, entry in DATASETS.items() if entry.num_classes]

# The six sets of the papers' protocol in the papers' order. Where the first of a line is not at hand the next, a set of
# the same kind but of other images, stands in for it under its own name.
SIX_SETS = (("textures", "textures_dtd"), ("svhn",), ("places365", "places"), ("lsun_c", "scenes_crop"),
            ("lsun_r", "scenes_resize"), ("isun",))
OOD_SETS = {"digits": tuple((name,) for name in
                            ("digits_6_9", "china_patches", "flower_patches", "gaussian", "rademacher", "blobs"))}
OUTLIER_SETS = {"digits": ("digit_outliers",)}
OUTLIERS = ("tiny_imagenet", "300k")


def ood_names(dataset, data=DATA):
    """Names of the OOD sets scored by default for an ID data set: of each line the first that is there."""
    lines = OOD_SETS.get(dataset, SIX_SETS)
    return [next((name for name in line if is_there(name, data=data)), line[0]) for line in lines]


def outlier_name(dataset, data=DATA):
    """Name of the auxiliary outlier set used by default: the first that is there."""
    names = OUTLIER_SETS.get(dataset, OUTLIERS)
    return next((name for name in names if is_there(name, data=data)), names[0])


def is_there(name, split="test", data=DATA):
    return DATASETS[name].make is not None or find_source(name, split, data) is not None


def candidates(name, split, data):
    """Every path below the data folder at which the set may lie, in the order in which they are tried."""
    data, entry = Path(data), DATASETS.get(name, DataSet())
    endings = readers.ARRAY_ENDINGS + readers.ARCHIVE_ENDINGS
    stems = [f"{name}/{split}", f"ood/{name}", f"outliers/{name}", name]
    general = [data / f"{stem}{ending}" for stem in stems for ending in ("",) + endings]
    return [data / path for path in entry.paths] + general


def find_source(name, split, data=DATA):
    """The path of a named set, or None. For an ID set a plain folder counts only if it is the split's own."""
    entry = DATASETS.get(name, DataSet())
    for path in candidates(name, split, data):
        if not path.exists() or (path == Path(data) / name and path.is_dir() and (entry.num_classes or not any(path.iterdir()))):
            continue
        return path
    return None


def load(name, split="test", data=DATA, path=None, size=32, skip_bad=False):
    """ImageSet of a named data set, or of ``path`` (a folder, archive or array) under the given name.

    ``size`` is the side that images of other sizes are brought to; arrays keep theirs. Raises UserError.
    """
    entry = DATASETS.get(name, DataSet())
    if path is None and entry.make:
        return make_set(*with_name(entry.make(split), name), source="made from installed packages")
    path = find_source(name, split, data) if path is None else find_split(Path(path).expanduser(), split)
    if path is None or not path.exists():
        raise UserError(missing_message(name, split, data, path))
    bad = ()
    if entry.read and path in [Path(data) / p for p in entry.paths]:
        pixels, labels, classes = entry.read(path, split)
    elif path.name.endswith(readers.ARRAY_ENDINGS):
        pixels, labels, classes = readers.read_array(path, split)
    else:
        pixels, labels, classes, bad = read_images(path, data, size, entry.crop_only, skip_bad)
    images = make_set(pixels, labels, name, classes, source=str(path))
    images.skipped = tuple(bad)
    if bad:
        print(f"note: {name}: {len(bad)} of {len(bad) + len(images)} images could not be read and are left out "
              f"({', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''})", file=sys.stderr)
    return images


def find_split(path, split):
    """``path`` itself, or its train / test part where it is a folder that holds one."""
    if path.is_dir():
        parts = [path / split] + [path / f"{split}{ending}" for ending in readers.ARRAY_ENDINGS + readers.ARCHIVE_ENDINGS]
        return next((part for part in parts if part.exists()), path)
    return path


def with_name(content, name):
    pixels, labels, classes = content
    return pixels, labels, name, classes


def make_set(pixels, labels, name, classes=None, source=""):
    """ImageSet of uint8 (N,H,W,3) pixels and labels (N,) or None."""
    pixels = np.ascontiguousarray(pixels)
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(pixels)
    if labels is not None:
        labels = np.ascontiguousarray(labels, dtype=np.int64)
        digest.update(labels)
    return ImageSet(torch.from_numpy(pixels).permute(0, 3, 1, 2), None if labels is None else torch.from_numpy(labels),
                    name, digest.hexdigest(), classes, source)


def read_images(path, data, size, crop_only, skip_bad):
    """Decode a folder or archive once; afterwards its pixels come from an array file below the data folder's cache.

    The cache key holds every file's name, size and time of change, so that a changed folder is decoded again.
    """
    source = readers.Folder(path) if path.is_dir() else readers.Archive(path)
    files = [path / name for name in source.names] if path.is_dir() else [path]
    stamps = [f"{file}|{file.stat().st_size}|{file.stat().st_mtime_ns}" for file in files]
    key = hashlib.sha256("\n".join([str(path.resolve()), str(size), str(crop_only), *stamps]).encode()).hexdigest()[:16]
    cached = Path(data) / "cache" / f"{path.name}-{key}.npz"
    with contextlib.suppress(Exception):   # a damaged cache file is made again
        with np.load(cached, allow_pickle=False) as content:
            bad = [str(name) for name in content["bad"]]
            if skip_bad or not bad:
                labels = content["labels"] if "labels" in content.files else None
                classes = tuple(map(str, content["classes"])) if "classes" in content.files else None
                return content["pixels"], labels, classes, bad

    def progress(names):
        return tqdm(names, desc=f"decoding {path.name}", unit="image", disable=None, leave=False)
    pixels, labels, classes, bad = readers.decode(source, size, crop_only, skip_bad, progress)
    arrays = {"pixels": pixels, "bad": np.array(bad, dtype=str)}
    if labels is not None:
        arrays.update(labels=labels, classes=np.array(classes))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with contextlib.suppress(OSError, UserError):   # a read-only or full data folder only costs the next run its decoding
        write_bytes(cached, buffer.getbuffer())
    return pixels, labels, classes, bad


def missing_message(name, split, data, path=None):
    if path is not None:
        return f"data set '{name}': {path} does not exist. Give a folder, a .zip or .tar of images, or an .npz or .npy array"
    if name not in DATASETS:
        return (f"unknown data set '{name}', and there is nothing of that name in {data}. "
                f"There is: {', '.join(DATASETS)}; or give a path: folder:PATH")
    places = ", ".join(str(Path(data) / p) for p in (*DATASETS[name].paths, f"{name}/{split}.npz", f"ood/{name}.npz"))
    command = f"Run: python data/download.py {name}" if DATASETS[name].download else \
        "Place it there by hand, or choose another"
    return f"data set '{name}' ({split}) not found; looked for {places} and folders or archives of that name. {command}"


def load_id(name, split, data=DATA, path=None, size=32, skip_bad=False, num_classes=None):
    """ImageSet with labels 0..C-1 of an in-distribution data set; UserError when labels are missing or out of range."""
    images = load(name, split, data, path, size, skip_bad)
    if images.labels is None:
        raise UserError(f"data set '{name}' ({images.source}) has no labels; ID images need class folders or an .npz with 'labels'")
    expected = num_classes or (DATASETS[name].num_classes if name in DATASETS else None)
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or (expected and high >= expected):
        raise UserError(f"data set '{name}' ({images.source}): labels go from {low} to {high}, "
                        f"outside 0 to {expected - 1 if expected else '...'}")
    return images


def parse_ood(text, dataset, data=DATA, size=32, skip_bad=False):
    """ImageSets of an --ood value: comma-separated names or folder:PATH / path:PATH items; "" = the protocol's sets."""
    items = [item.strip() for item in text.split(",") if item.strip()] if text else ood_names(dataset, data)
    missing = [] if text else [name for name in items if not is_there(name, data=data)]
    if missing:
        raise UserError(f"of the OOD sets of the protocol {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in {data}. "
                        f"Run: python data/download.py {' '.join(missing)}; or name others: --ood NAME,folder:PATH")
    sets = []
    for item in items:
        kind, _, path = item.partition(":")
        if path and kind in ("folder", "path", "file"):
            sets.append(load(Path(path).name.split(".")[0], "test", data, path, size, skip_bad))
        elif "/" in item or item.endswith(readers.ARRAY_ENDINGS + readers.ARCHIVE_ENDINGS):
            sets.append(load(Path(item).name.split(".")[0], "test", data, item, size, skip_bad))
        else:
            sets.append(load(item, "test", data, None, size, skip_bad))
    repeated = [s.name for i, s in enumerate(sets) if s.name in [t.name for t in sets[:i]]]
    if repeated:
        raise UserError(f"--ood names '{repeated[0]}' twice")
    return sets


def load_id_pair(args):
    """(training set, test set, number of classes) of a script's data set; UserError when the two do not belong together."""
    train = load_id(args.dataset, "train", args.data, args.id, args.image_size, args.skip_bad)
    known = DATASETS[args.dataset].num_classes if args.dataset in DATASETS and not args.id else None
    num_classes = known or max(int(train.labels.max()) + 1, len(train.classes or ()))
    test = load_id(args.dataset, "test", args.data, args.id, args.image_size, args.skip_bad, num_classes)
    if train.fingerprint == test.fingerprint:
        raise UserError(f"{train.source}: training and test images are the same. Give a folder with train/ and test/, "
                        f"or with train.npz and test.npz")
    if train.classes and test.classes and train.classes != test.classes:
        raise UserError(f"{test.source} has the classes {', '.join(test.classes)}, not those of training: {', '.join(train.classes)}")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(f"{test.source} holds images of {tuple(test.images.shape[1:])}, training has {tuple(train.images.shape[1:])}")
    return train, test, num_classes


def load_outliers(args):
    """ImageSet of --outliers NAME|PATH, of the ID images' size."""
    text = args.outliers or outlier_name(args.dataset, args.data)
    path = None if text in DATASETS else text.partition(":")[2] if text.startswith("folder:") else text
    if path is not None and not Path(path).expanduser().exists() and find_source(text, "train", args.data):
        path = None
    name = text if path is None else Path(path).name.split(".")[0]
    return load(name, "train", args.data, path, args.image_size, args.skip_bad)


def outlier_statistics(norm):
    """(mean, std) that outliers are normalised with: those of the ID images, or ImageNet's as the published code of [SR]."""
    return (IMAGENET_MEAN, IMAGENET_STD) if norm == "imagenet" else (MEAN, STD)
