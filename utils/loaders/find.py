"""Where a data set lies: by its name below the data folder, or at a path; and what to do when it is
not there.
"""

import os
import re
from pathlib import Path

from utils.runtime import DATA, UserError, printable

from . import forms, heads, inside, parquet, splits
from .places import has_parts, locate
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
)

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


def listed_path(name: str, folder: str, data: str | Path = DATA) -> Path | None:
    """Path of the list with which OpenOOD names the test images of a set, or None."""
    file = Path(data) / "benchmark_imglist" / folder / f"test_{LIST_NAMES.get(name, name)}.txt"
    return file if file.is_file() else None


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
    return printable(stem or name) + (f"_{severity}" if severity else ""), path


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


def where_to_get(name: str, data: str | Path = DATA) -> str:
    """What to do for a set that is not there, in one line."""
    if DATASETS[name].download:
        return f"{name}: {download_command([name], data)}"
    entry = SOURCES["by_hand"].get(name)
    return f"{name}: from {entry['from']} to {Path(data) / entry['layout']}" if entry else name


def download_command(names: list[str], data: str | Path) -> str:
    return f"python data/download.py {' '.join(names)}" + (
        "" if Path(data) == DATA else f" --data {data}"
    )


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
