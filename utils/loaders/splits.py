"""The training and test parts of a folder or archive of one's own: which there are, which is meant.

Once any part exists nothing falls back to everything there is: training on the test images, or
testing on both, gives numbers that look right.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from utils.runtime import UserError, printable

from .heads import is_hidden

# what a part is called, in any case -> what it is
KINDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}
WANTED = {"train": ("train",), "test": ("test", "val")}  # split -> parts that it may be


SHOWN = 5  # names of what is not read


class Place(NamedTuple):
    """Where a split lies: a path, inside an archive below a folder (``inside``, with its slash),
    and ``told``, what of the choice has to be said.
    """

    path: Path
    inside: str = ""
    told: str = ""
    kind: str = ""  # the part's: "train", "test", "val", or "" where there are no parts
    unread: str = ""  # names of what lies beside it and is not read
    whole: bool = False  # all images below the path, whose folders are no classes


class Unsplit(NamedTuple):
    """One's own images in one part, of which a share of each class is split off for testing."""

    path: str | Path | None
    share: float


def kind_of(name: str, endings: Iterable[str] = ()) -> str | None:
    """The kind of part that a file's or folder's name says, or None."""
    ending = next((end for end in endings if name.lower().endswith(end)), "")
    return KINDS.get(name.lower().removesuffix(ending))


def parts_of_folder(
    path: Path, endings: tuple[str, ...], is_list: Callable[[Path], bool] = lambda path: False
) -> dict[str, list[Path]]:
    """{kind: paths} of the parts that lie in a folder: folders, then arrays and archives by their
    ``endings``, then lists of images.
    """
    found: dict[str, list[Path]] = {}
    # by their names first: a folder may hold a million images
    named = (entry for entry in path.iterdir() if kind_of(entry.name, (*endings, ".txt")))
    entries = sorted(named, key=lambda entry: (not entry.is_dir(), entry.name))
    for entry in entries:
        kind = KINDS.get(entry.name.lower()) if entry.is_dir() else kind_of(entry.name, endings)
        if kind and (entry.is_dir() or entry.name.lower().endswith(endings)):
            found.setdefault(kind, []).append(entry)
    for entry in entries:
        kind = kind_of(entry.name, (".txt",))
        if kind and entry.suffix == ".txt" and is_list(entry):
            found.setdefault(kind, []).append(entry)
    return found


def beside(entries: Iterable[Path], parts: dict[str, list]) -> list[str]:
    """Names of the folders that lie beside the parts of a folder and are none of them."""
    known = {part.name for some in parts.values() for part in some}
    names = (entry.name for entry in entries if entry.is_dir() and entry.name not in known)
    return sorted(name for name in names if not is_hidden(name))


def common_root(names: list[str]) -> str:
    """The folder, with its slash, that holds all of an archive's images in folders of their own;
    "" where there is none, or it is a part itself.
    """
    first = {name.partition("/")[0] for name in names if "/" in name}
    deep = all(name.count("/") > 1 for name in names)
    if len(first) != 1 or not deep or KINDS.get(next(iter(first)).lower()):
        return ""
    return f"{first.pop()}/"


def parts_of_archive(names: list[str]) -> dict[str, list[str]]:
    """{kind: folders, with their slash} of the parts inside an archive."""
    root = common_root(names)
    folders = dict.fromkeys(
        name.removeprefix(root).split("/")[0] for name in names if "/" in name.removeprefix(root)
    )
    found: dict[str, list[str]] = {}
    for folder in folders:
        if KINDS.get(folder.lower()):
            found.setdefault(KINDS[folder.lower()], []).append(f"{root}{folder}/")
    return found


def beside_in_archive(names: list[str], parts: dict[str, list]) -> list[str]:
    """The same of the folders in an archive, by the names of its images."""
    known = {part for some in parts.values() for part in some}
    root = common_root(names)
    below = (name.removeprefix(root) for name in names)
    folders = dict.fromkeys(name.partition("/")[0] for name in below if "/" in name)
    return sorted(name for name in folders if f"{root}{name}/" not in known)


def choose_part(
    parts: dict[str, list], split: str, where: Path, strict: bool
) -> tuple[Any, str, str]:
    """(part, kind, what to say) of the split among {kind: parts}.

    A validation part is the test set where there is no other. ``strict``: of ID images, whose
    training part is never the test set, nor the other way round; else the part that is there.
    UserError: not there; or two of one kind.
    """
    names = ", ".join(part_name(part) for some in parts.values() for part in some)
    kinds = [kind for kind in WANTED[split] if kind in parts]
    if not kinds and strict:
        raise UserError(
            f"{where} has no {split} part; there is: {names}. Add {split}/ to it"
            + ("" if len(parts) > 1 else ", or split what there is: --split 0.2")
        )
    kind = kinds[0] if kinds else next(iter(parts))
    chosen = parts[kind]
    stems = {part_name(part).split("/")[-1].split(".")[0] for part in chosen}
    if len(stems) > 1:
        raise UserError(
            f"{where} has {len(stems)} {kind} parts, {', '.join(sorted(stems))}. Keep one of them"
        )
    told = "" if kind == split else f"{kind} part, as there is no {split} part"
    return chosen[0], kind, told


def unread(parts: dict[str, list], kind: str, strict: bool, beside: list[str]) -> str:
    """What lies beside the part that was chosen and is not read, by name: the folders that are no
    part, of ID images a validation part beside a test part, and else every other part.
    """
    kinds = set(parts) - {kind}
    if strict:  # the other split reads the other part
        kinds &= {"val"} if "test" in parts else set()
    names = [part_name(part) for k, some in parts.items() if k in kinds for part in some]
    names = list(dict.fromkeys([*names, *beside]))
    return ", ".join(map(printable, names[:SHOWN])) + ", ..." * (len(names) > SHOWN)


def part_name(part: Any) -> str:
    """A part, a path or a folder in an archive, by its own name."""
    return str(getattr(part, "name", part)).rstrip("/")
