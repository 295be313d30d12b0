"""Read image sets: one by its name or path, and those that a protocol or a loss asks for."""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from utils.runtime import DATA, UserError, print_note, printable, short_path

from . import arrays, forms, heads, inside, readers, splits, streaming
from .digits import Content
from .find import (
    as_path,
    download_command,
    is_there,
    listed_path,
    local_path,
    missing_message,
    name_or_path,
    named_place,
    ood_names,
    outlier_name,
)
from .places import locate
from .readers import Size
from .sets import DATASETS, DataSet, ImageSet, make_set

MADE = "made from installed packages"


def load(
    name: str,
    split: str = "test",
    data: str | Path = DATA,
    path: str | Path | splits.Place | None = None,
    size: Size = 32,
    skip_bad: bool = False,
    fit_arrays: bool = False,
) -> ImageSet:
    """ImageSet of a named data set, or of ``path`` (a known form, a folder, archive, list or array;
    or the Place that ``locate`` found) under the given name.

    ``size`` is the side that images of other sizes are brought to, or (resize, crop); arrays keep
    theirs but for ``fit_arrays``. Raises UserError.
    """
    entry = DATASETS.get(name, DataSet())
    if path is None and entry.make:
        images = make_set(*with_name(entry.make(split), name), source=MADE)
        tell(images, split, "")
        return images
    if path is None:
        place = named_place(name, split, data)
    elif isinstance(path, splits.Place):
        place = path
    else:
        place = locate(as_path(path), split)
    path = place.path
    form = None if path is None else forms.form_of(path)
    if path is None or (form is None and not path.exists()):
        raise UserError(missing_message(name, split, data, path))
    bad, names, others, told = (), None, "", place.told
    if form:
        pixels, labels, classes = *form.read(path, place.kind or split), form.classes(path)
        told = told or form.told(path)
    elif path.is_file() and heads.is_array(path):
        pixels, labels, classes = arrays.read_array(path, split, place.inside)
    elif (source := streaming.source_to_stream(place, size)) is not None:
        images = streaming.stream(source, place, name, size, entry.crop_only, skip_bad)
        images = replace(images, labels=None, classes=None) if place.whole else images
        tell(images, split, told, unread=place.unread)
        note_bad(images)
        return images
    else:
        source = readers.open_source(path, place.inside)
        pixels, labels, classes, bad = readers.read_images(
            path, data, size, entry.crop_only, skip_bad, place.inside, source
        )
        # of the same listing: more images may have come into the folder while it was read
        names = readers.image_names(source, bad)
        others = heads.kinds(getattr(source, "others", ()))
    side = readers.crop_side(size)
    if fit_arrays and pixels.shape[1:3] != (side, side):
        pixels = readers.fit_pixels(pixels, size, entry.crop_only)
    if place.whole:
        labels = classes = None
    images = make_set(pixels, labels, name, classes, printable(str(path / place.inside)))
    images.skipped, images.names = tuple(map(printable, bad)), names
    tell(images, split, told, others, place.unread)
    note_bad(images)
    return images


def with_name(content: Content, name: str) -> tuple:
    pixels, labels, classes = content
    return pixels, labels, name, classes


def note_bad(images: ImageSet) -> None:
    """Say on stderr which images of a set could not be read."""
    bad = images.skipped
    if bad:
        print_note(
            f"{images.name}: {len(bad)} of {len(bad) + len(images)} images could not be "
            f"read and are left out ({', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''})"
        )


def tell(images: ImageSet, split: str, told: str, others: str = "", unread: str = "") -> None:
    """One line on what has been read: name, place, split, images, classes, what was left out, what
    lies beside the images and is none, and which folders lie beside those that were read.
    """
    place = short_path(images.source) if images.source not in ("", MADE) else MADE
    line = f"{images.name} ({split}): {place}"
    line += f"{f', the {told}' if told else ''}, {len(images):,} images"
    if images.classes:
        names = ", ".join(images.classes[:12]) + (", ..." if len(images.classes) > 12 else "")
        line += f", {len(images.classes)} classes: {names}"
    elif images.labels is not None:
        line += f", labels {int(images.labels.min())} to {int(images.labels.max())}"
    line += f", {len(images.skipped)} left out" if images.skipped else ""
    line += f"; beside them, not read: {unread}" if unread else ""
    print(line + (f"; no images, not read: {others}" if others else ""), flush=True)


def load_named(
    names: Iterable[str],
    folder: str,
    data: str | Path = DATA,
    size: Size = 32,
    skip_bad: bool = False,
) -> tuple[list[ImageSet], list[str]]:
    """([ImageSets of those that are there], [the names of the others], in order), by the lists of
    ``folder`` where the user has these.
    """
    paths = {name: listed_path(name, folder, data) for name in names}
    there = [name for name in names if paths[name] or is_there(name, data=data)]
    sets = [
        load(name, "test", data, paths[name], size, skip_bad, fit_arrays=True) for name in there
    ]
    return sets, [name for name in names if name not in there]


def parse_ood(
    text: str,
    dataset: str,
    data: str | Path = DATA,
    size: Size = 32,
    skip_bad: bool = False,
    option: str = "--ood",
) -> list[ImageSet]:
    """ImageSets of an --ood value: comma-separated names, folder:PATH / path:PATH or NAME=PATH items;
    "" = the protocol's sets. ``option``: whose value it is.
    """
    given = [item.strip() for item in text.split(",") if item.strip()]
    items = given or ood_names(dataset, data)
    missing = [] if given else [name for name in items if not is_there(name, data=data)]
    if missing:
        raise UserError(
            f"of the protocol's OOD sets there is no {', '.join(missing)} in {data}. Run: "
            f"{download_command(missing, data)}; or name others: --ood NAME,folder:PATH"
        )
    named = [
        (name, path or local_path(name, "test", data)) for name, path in map(name_or_path, items)
    ]
    there = [(name, path and inside.around(inside.opened(as_path(path)))) for name, path in named]
    sets = [
        load(name, "test", data, path, size, skip_bad, fit_arrays=True)
        for item in there
        for name, path in forms.corruptions.each_corruption(*item)
    ]
    check_names([images.name for images in sets], option)
    return sets


def check_names(names: list[str], option: str) -> None:
    """UserError where two OOD sets have one name, or one is called as the ID images are."""
    for i, name in enumerate(names):
        if name in (*names[:i], "id"):
            what = "'id', as the ID images are called" if name == "id" else f"'{name}' twice"
            raise UserError(
                f"{option} names {what}; a path's set is called as its file or folder. "
                f"Name it otherwise: {option} NAME=PATH"
            )


def load_outliers(args: argparse.Namespace, size: int | None = None) -> ImageSet:
    """ImageSet of --outliers NAME|PATH, or of the first outlier set that is there,
    ``size`` pixels a side as the ID images.
    """
    text = args.outliers or outlier_name(args.dataset, args.data)
    name, path = name_or_path(text)
    path = path or local_path(name, "train", args.data)
    return load(
        name,
        "train",
        args.data,
        path,
        size or args.image_size or 32,
        args.skip_bad,
        fit_arrays=True,
    )
