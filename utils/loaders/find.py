"""Find a data set by name or path and read it; the sets that a protocol or a loss asks for."""

import argparse
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from utils.runtime import DATA, UserError, print_note, printable, short_path

from . import arrays, forms, heads, inside, parquet, readers, splits, streaming
from .digits import Content
from .places import has_parts, locate, split_off
from .readers import Size
from .sets import (
    DATASETS,
    LIST_NAMES,
    OOD_SETS,
    OTHER_FOLDERS,
    OUTLIER_SETS,
    OUTLIERS,
    SIX_SETS,
    SOURCES,
    DataSet,
    ImageSet,
    make_set,
)

MADE = "made from installed packages"
NAMED = re.compile(r"[\w.+-]+")  # what a set may be called in NAME=PATH


def ood_names(dataset: str, data: str | Path = DATA) -> list[str]:
    """Names of the OOD sets scored by default for an ID data set:
    of each line the first that is there.
    """
    lines = OOD_SETS.get(dataset, SIX_SETS)
    return [next((name for name in line if is_there(name, data=data)), line[0]) for line in lines]


def outlier_name(dataset: str, data: str | Path = DATA) -> str:
    """Name of the auxiliary outlier set used by default: the first that is there."""
    names = OUTLIER_SETS.get(dataset, OUTLIERS)
    return next((name for name in names if is_there(name, data=data)), names[0])


def is_there(name: str, split: str = "test", data: str | Path = DATA) -> bool:
    return DATASETS[name].make is not None or find_source(name, split, data) is not None


def candidates(name: str, split: str, data: str | Path) -> list[Path]:
    """Every path below the data folder at which the set may lie,
    in the order in which they are tried.
    """
    data, entry = Path(data), DATASETS.get(name, DataSet())
    endings = heads.ARRAY_ENDINGS + heads.ARCHIVE_ENDINGS
    stems = [f"{name}/{split}", f"ood/{name}", f"outliers/{name}", name]
    general = [data / f"{stem}{ending}" for stem in stems for ending in ("",) + endings]
    official = [*entry.paths, *entry.elsewhere]
    there = [f"{folder}/{path}" for folder in OTHER_FOLDERS for path in official]
    return (
        [data / path for path in entry.paths]
        + general
        + [data / path for path in (*entry.elsewhere, *there)]
    )


def find_source(name: str, split: str, data: str | Path = DATA) -> Path | None:
    """The path of a named set, or None; not an empty folder,
    nor for an ID set one that is not the split's own.
    """
    plain = Path(data) / name if DATASETS.get(name, DataSet()).num_classes else None
    for path in candidates(name, split, data):
        if path.is_file() or (path.is_dir() and path != plain and any(path.iterdir())):
            return path
    return None


def as_path(path: str | Path) -> inside.Place:
    """A path as typed; what lies inside an archive as it is."""
    return path if isinstance(path, inside.Inside) else Path(path).expanduser()


def lies_at(path: str | Path) -> bool:
    """Whether there are images at a path: a file or folder, in an archive too, or a severity's."""
    place = inside.opened(as_path(path))
    return place.exists() or forms.form_of(place) is not None


def named_place(name: str, split: str, data: str | Path) -> splits.Place:
    """Where a part of a named set lies: an official place is read whole; one's own may have parts,
    as everywhere. The path is None where there is nothing.
    """
    entry, found = DATASETS.get(name, DataSet()), find_source(name, split, data)
    if found is None or found in [Path(data) / path for path in entry.paths]:
        return splits.Place(found)
    return locate(found, split, strict=bool(entry.num_classes))


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
    elif streaming.is_streamed(place, size):
        images = streaming.stream(place, name, size, entry.crop_only, skip_bad)
        images = replace(images, labels=None, classes=None) if place.whole else images
        tell(images, split, told, unread=place.unread)
        note_bad(images)
        return images
    else:
        pixels, labels, classes, bad = readers.read_images(
            path, data, size, entry.crop_only, skip_bad, place.inside
        )
        source = readers.open_source(path, place.inside)
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


def name_or_path(item: str) -> tuple[str, str | None]:
    """(name, path or None) of a NAME, a PATH, folder:PATH or NAME=PATH;
    a path's set is called as its file or folder unless it is named.
    """
    given, equals, place = item.partition("=")
    # what is there under the whole text is a path with a = in it
    if equals and NAMED.fullmatch(given) and place and not Path(item).expanduser().exists():
        kind, _, path = place.partition(":")
        return given, path if path and kind in ("folder", "path", "file") else place
    kind, _, path = item.partition(":")
    path = path if path and kind in ("folder", "path", "file") else item
    endings = heads.ARRAY_ENDINGS + heads.ARCHIVE_ENDINGS + (".mat", parquet.ENDING)
    file, severity = forms.corruptions.split_severity(path)
    if path is item and "/" not in item and not file.lower().endswith(endings):
        return item, None
    name = os.path.basename(os.path.abspath(Path(file).expanduser()))
    ending = next((ending for ending in endings if name.lower().endswith(ending)), "")
    stem = name[: len(name) - len(ending)]
    return (stem or name) + (f"_{severity}" if severity else ""), path


def local_path(name: str, split: str, data: str | Path) -> str | None:
    """A file or folder of this name in the current folder,
    for a name that means nothing else; or None.
    """
    unknown = name not in DATASETS and find_source(name, split, data) is None
    there = unknown and Path(forms.corruptions.split_severity(name)[0]).exists()
    return name if there else None


def id_place(text: str, data: str | Path) -> str:
    """An --id value: a path, or where below the data folder a set of that name lies. UserError: a
    known set that is not there, or one that needs no file.
    """
    if "/" in text or Path(text).expanduser().exists():
        return text
    folder = Path(data) / text
    if folder.is_dir() and has_parts(folder):
        return str(folder)
    if found := find_source(text, "test", data):
        return str(found)
    if text in DATASETS and DATASETS[text].make:
        raise UserError(
            f"--id {text}: '{text}' has no file, it is made from installed packages. Take its name in "
            f"the place of yours: python baseline.py {text}"
        )
    if text in DATASETS:
        raise UserError(missing_message(text, "test", data))
    return text


def with_name(content: Content, name: str) -> tuple:
    pixels, labels, classes = content
    return pixels, labels, name, classes


def missing_message(name: str, split: str, data: str | Path, path: Path | None = None) -> str:
    if path is not None:
        return (
            f"data set '{name}': {path} does not exist. Give a folder, a .zip or .tar of images, "
            "or an .npz or .npy array"
        )
    if name not in DATASETS:
        return (
            f"unknown data set '{name}', and there is nothing of that name in {data}. There is: "
            f"{', '.join(DATASETS)}; or give a path: folder:PATH"
        )
    stems = (f"{name}/{split}", f"ood/{name}", f"outliers/{name}")
    places = ", ".join(
        str(Path(data) / place)
        for place in (*DATASETS[name].paths, *(f"{stem}.npz" for stem in stems))
    )
    # A set without an address of its own may have one of its kind that can be downloaded.
    lines = [line for line in ((name,), *SIX_SETS, OUTLIERS) if name in line]
    known = SOURCES["by_hand"]  # whose place data/download.py prints
    kin = [other for line in lines for other in line if DATASETS[other].download or other in known]
    return (
        f"data set '{name}' ({split}) not found; looked for {places} and folders or archives "
        "of that name. Place it there"
        + (f" or run: {download_command(kin[:1], data)}" if kin else "")
        + (f". {where_to_get(name, data)}" if name in SOURCES["by_hand"] else "")
    )


def download_command(names: list[str], data: str | Path) -> str:
    return f"python data/download.py {' '.join(names)}" + (
        "" if Path(data) == DATA else f" --data {data}"
    )


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
        raise UserError(
            f"data set '{name}' ({images.source}): labels go from {low} to {high}, "
            f"outside 0 to {expected - 1}"
        )
    used = len(set(images.labels.tolist()))
    if not named and high >= 100 and 2 * used <= high:  # fewer are noted by load_id_pair
        raise UserError(
            f"data set '{name}' ({images.source}): labels go to {high}, and only {used} of these "
            f"{high + 1} classes are there. Number the classes from 0 on, or name all of them in "
            "'classes'"
        )
    return images


def listed_path(name: str, folder: str, data: str | Path = DATA) -> Path | None:
    """Path of the list with which OpenOOD names the test images of a set, or None."""
    file = Path(data) / "benchmark_imglist" / folder / f"test_{LIST_NAMES.get(name, name)}.txt"
    return file if file.is_file() else None


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


def where_to_get(name: str, data: str | Path = DATA) -> str:
    """What to do for a set that is not there, in one line."""
    if DATASETS[name].download:
        return f"{name}: {download_command([name], data)}"
    entry = SOURCES["by_hand"].get(name)
    return f"{name}: from {entry['from']} to {Path(data) / entry['layout']}" if entry else name


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


def check_chain(dataset: str, data: str | Path, own_id: bool = False) -> None:
    """UserError that names every image set of a whole chain that is not there, before the hours
    that come ahead of its use.
    """
    wanted = [] if own_id else [dataset]
    missing = [
        name for name in wanted + ood_names(dataset, data) if not is_there(name, "test", data)
    ]
    if not is_there(outlier_name(dataset, data), "train", data):
        missing.append(OUTLIERS[-1])
    if missing:
        raise UserError(
            f"of the images that the chain needs there is no {', '.join(missing)} in {data}. Run: "
            f"{download_command(missing, data)}"
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
