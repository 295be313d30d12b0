"""In-distribution images: labels of 0 to C-1, a training and a test set that belong together, and
the classes of a snapshot.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.runtime import DATA, UserError, print_note, printable

from . import splits
from .keys import keys_of
from .places import has_parts, locate, split_off
from .readers import Size
from .reading import load
from .sets import DATASETS, ImageSet


def load_id(
    name: str,
    split: str,
    data: str | Path = DATA,
    path: str | Path | splits.Unsplit | None = None,
    size: Size | None = None,
    skip_bad: bool = False,
    num_classes: int | None = None,
) -> ImageSet:
    """ImageSet with labels 0..C-1 of an in-distribution data set;
    UserError when labels are missing or out of range.

    ``path``: where one's own lie, or an ``Unsplit`` whose share is split off for testing. ``size``:
    the side all images are brought to; None = 32, but arrays keep theirs.
    """
    path, share = path if isinstance(path, splits.Unsplit) else (path, None)
    if share and path is None:
        raise UserError("--split is for images of your own: --id PATH")
    if share and has_parts(path):
        raise UserError(f"{path} has a training and a test part; --split is for images in one part")
    place = None if path is None else locate(Path(path).expanduser(), split, strict=not share)
    images = load(name, split, data, place, size or 32, skip_bad, fit_arrays=size is not None)
    if share:
        images = split_off(images, share, split)
        print(f"of them {len(images):,} for {split}ing, by --split {share:g}", flush=True)
    if images.labels is None:
        raise UserError(
            f"data set '{name}' ({images.source}) has no labels; "
            "ID images need class folders or an .npz with 'labels'"
            + other_keys(images.source)
            + (f". Beside it lies {place.unread}" if place and place.unread else "")
        )
    # one's own have classes of their own
    known = DATASETS[name].num_classes if name in DATASETS and path is None else None
    expected = num_classes or known or len(images.classes or ())
    height, width = images.images.shape[2:]
    if height != width:
        raise UserError(
            f"data set '{name}' ({images.source}): images are {height} high and "
            f"{width} wide, not square. Make them so: --image-size {min(height, width)}"
        )
    low, high = int(images.labels.min()), int(images.labels.max())
    # a set that does not say how many classes it has: no absurd labels
    named, expected = expected, expected or max(len(images), 1000)
    if low < 0 or high >= expected:
        told = f". Its classes are {', '.join(images.classes)}" if images.classes else ""
        raise UserError(
            f"data set '{name}' ({images.source}): labels go from {low} to {high}, "
            f"outside 0 to {expected - 1}{told}"
        )
    used = len(set(images.labels.tolist()))
    if not named and high >= 100 and 2 * used <= high:  # fewer are noted by load_id_pair
        raise UserError(
            f"data set '{name}' ({images.source}): labels go to {high}, and only {used} of these "
            f"{high + 1} classes are there. Number the classes from 0 on, or name all of them in "
            "'classes'"
        )
    return images


def other_keys(source: str) -> str:
    """What an .npz holds, as a sentence after another one; "" of anything else."""
    keys = keys_of(Path(source))[:8] if source.endswith(".npz") else []
    return f". It holds {', '.join(map(printable, keys))}" if keys else ""


def given_id(args: argparse.Namespace) -> str | splits.Unsplit | None:
    """What ``load_id`` takes for a script's --id and --split."""
    share = getattr(args, "split", None)
    return splits.Unsplit(args.id, share) if share else args.id


def load_id_pair(args: argparse.Namespace) -> tuple[ImageSet, ImageSet, int]:
    """(training set, test set, number of classes) of a script's data set;
    UserError unless the two belong together.
    """
    path = given_id(args)
    train = load_id(args.dataset, "train", args.data, path, args.image_size, args.skip_bad)
    known = DATASETS[args.dataset].num_classes if args.dataset in DATASETS and not args.id else None
    num_classes = known or max(int(train.labels.max()) + 1, len(train.classes or ()))
    test = load_id(
        args.dataset, "test", args.data, path, args.image_size, args.skip_bad, num_classes
    )
    used = set(train.labels.tolist())
    if len(used) == 1:
        (label,) = used
        only = train.classes[label] if train.classes else str(label)
        raise UserError(
            f"{train.source} holds one class, {only}: there is nothing "
            "to tell apart. The class of an image is the first folder below train/"
        )
    absent = sorted(set(range(num_classes)) - used)
    if absent and not known:
        print_note(
            f"no training image of '{args.dataset}' has the label "
            f"{', '.join(map(str, absent[:5]))}{', ...' if len(absent) > 5 else ''}; "
            f"the network has {num_classes} classes all the same"
        )
    if train.fingerprint == test.fingerprint:
        raise UserError(
            f"{train.source}: training and test images are the same. "
            "Give a folder with train/ and test/, or with train.npz and test.npz, or split them: "
            "--split 0.2"
        )
    if train.classes and test.classes and train.classes != test.classes:
        raise UserError(
            f"{test.source} has the classes {', '.join(test.classes)}, not those of training: "
            f"{', '.join(train.classes)}"
        )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"{test.source} holds images of {tuple(test.images.shape[1:])}, "
            f"training has {tuple(train.images.shape[1:])}"
        )
    return train, test, num_classes


def check_classes(
    names: Sequence[str] | None, trained: Sequence[str] | None, where: str, snapshot: str | Path
) -> None:
    """UserError where images' class names are some of a snapshot's, but not all in its order: their
    labels would mean other classes.

    Where none is the same, the i-th is taken for the i-th, and said so on stderr;
    either may be empty (unknown).
    """
    names, trained = list(names or ()), list(trained or ())
    if not names or not trained or names == trained:
        return
    first = next(
        (i for i, pair in enumerate(zip(names, trained)) if len(set(pair)) > 1),
        min(len(names), len(trained)),
    )
    told = (
        f"{where}: {len(names)} classes, those of {Path(snapshot).name} are {len(trained)}; "
        f"number {first} is '{names[first] if first < len(names) else 'none'}', "
        f"not '{trained[first] if first < len(trained) else 'none'}'"
    )
    if set(names) & set(trained) or len(names) != len(trained):
        raise UserError(
            f"{told}. Give images with its classes in its order "
            f"({', '.join(trained[:5])}{', ...' if len(trained) > 5 else ''})"
        )
    print_note(f"{told}; each is taken for the one in its place")
