"""Find snapshots: the folders runs write to, and what a name, a stem or a path means."""

import contextlib
import csv
import io
import os
import re
from pathlib import Path

from utils.loaders import ID_SETS
from utils.runtime import (
    CIFAR,
    UserError,
    locked,
    make_folder,
    printable,
    read_regular_text,
    write_bytes,
)

from . import published
from .files import read_description

SNAPSHOTS = CIFAR / "snapshots"


# other folders that runs have written to, so that their snapshots are found by name
FOLDERS = SNAPSHOTS / "folders.txt"


# what comes with the project: used where there is no run of one's own of that folder and name
PROVIDED = SNAPSHOTS / "provided"


# short fine-tunings of reproduce.py --sweep, which are found by path alone
SWEEP = SNAPSHOTS / "sweep"


ENDINGS = (".pt", ".pth", ".ckpt", ".safetensors")  # of files with weights
SHOWN = 10  # files of a folder that an error names


RUN = ".run"  # ending of the folder in which a run keeps its files until it has ended
STATES = (".resume.pt", ".ended.pt")  # of a run: no snapshots
REPLACED = "replaced"  # where a former run's snapshots go when a new run of the same name begins


def resolve_folder(text: str | Path) -> Path:
    """Absolute path of a --save or --load value: ./snapshots/...
    is the project's snapshots folder from wherever one is.
    """
    path = Path(text).expanduser()
    parts = [part for part in path.parts if part != "."]
    if not path.is_absolute() and parts and parts[0] == "snapshots":
        return Path(os.path.abspath(SNAPSHOTS.joinpath(*parts[1:])))
    return path.resolve()


def snapshot_path(folder: str | Path, stem: str, epoch: int | str) -> Path:
    return Path(folder) / f"{stem}_{'best' if epoch == 'best' else f'epoch_{epoch}'}.pt"


def run_folder(folder: str | Path, stem: str) -> Path:
    """The folder in which a run of this name keeps its files until it has ended."""
    return Path(folder) / f"{stem}{RUN}"


def folder_of(path: Path) -> Path:
    """The folder a snapshot belongs to: for one that is still in a run's own folder,
    the one it is going to.
    """
    return path.parent.parent if path.parent.name.endswith(RUN) else path.parent


def remember_folder(folder: Path) -> None:
    """Note a folder outside the project's, so that its snapshots are found by name; a note that
    cannot be written is none.
    """
    if folder.is_relative_to(SNAPSHOTS):
        return
    # of two runs at once neither loses the other's
    with contextlib.suppress(OSError, UserError), locked(make_folder(FOLDERS.parent)):
        known = FOLDERS.read_bytes().splitlines() if FOLDERS.exists() else []
        if os.fsencode(folder) not in known:  # names of files are bytes
            write_bytes(FOLDERS, b"\n".join([*known, os.fsencode(folder)]) + b"\n")


def stem_of(path: str | Path) -> str:
    return re.sub(r"_(epoch_\d+|best)$", "", Path(path).stem)


def is_variant(stem: str, usual: str) -> bool:
    """Whether a run's name is ``usual`` and, after it, what departs from the recipe, or departs
    beside what ``usual`` names.
    """
    return stem.startswith(f"{usual}_") and bool(re.search(r"_(pretrained|tune)(_|$)", usual))


def variants(files: list[Path], usual: str) -> list[Path]:
    """Of the runs in ``files`` that depart from a ``usual`` name, the newest snapshot of each; those
    that began with given weights only where there are no others.
    """
    newest = {}
    # one that has ended before one of its name that has not
    for file in sorted(files, key=lambda file: (file.parent == folder_of(file), epoch_of(file))):
        stem = stem_of(file)
        if epoch_of(file) >= 0 and is_variant(stem, usual) and not stem.endswith("_best"):
            newest[stem] = file
    plain = [stem for stem in sorted(newest) if not began_with_given(newest[stem])]
    return [newest[stem] for stem in plain or sorted(newest)]


def began_with_given(file: Path) -> bool:
    """Whether a snapshot is of a run that began with the weights of ``baseline.py --load``, by its
    name, or where that is a hash by its description: such a run is never what its own --load means.
    """
    stem = stem_of(file)
    if "-changes-" not in stem:
        return "_load-" in stem
    with contextlib.suppress(OSError, UserError):  # none there, or none that says anything
        made = read_description(file) or {}
        return made.get("stage") == "pretrain" and "parent" in made
    return False


def by_folder(files: list[Path], stem: str) -> dict[Path, list[Path]]:
    """{folder: [the newest snapshot of the run of this name], or where it has none the ``variants``
    of it}, of the folders that have either.
    """
    found = {}
    for folder in {folder_of(file) for file in files}:
        here = [file for file in files if folder_of(file) == folder]
        exact = sorted((file for file in here if stem_of(file) == stem), key=epoch_of)[-1:]
        if meant := exact or variants(here, stem):
            found[folder] = meant
    return found


def training_log(path: Path) -> Path:
    """The CSV with a line an epoch that a run writes beside its snapshots."""
    return path.with_name(f"{stem_of(path)}_training_results.csv")


def read_training_log(path: Path) -> list[dict[str, str]]:
    """The lines of the training log beside a snapshot, [] where there is none. UserError: no log."""
    log = training_log(path)
    try:
        return list(csv.DictReader(io.StringIO(read_regular_text(log), newline="")))
    except FileNotFoundError:
        return []
    except (ValueError, csv.Error) as error:
        raise UserError(f"{log} is not the log of a training ({error}). Move it away") from None


def epoch_of(path: str | Path) -> int:
    match = re.search(r"_epoch_(\d+)$", Path(path).stem)
    return int(match.group(1)) if match else -1


def short_name(path: Path) -> str:
    """What --model takes for a snapshot file: folder/name inside the
    snapshots folder, else its path.
    """
    return f"{folder_of(path).name}/{path.stem}" if path.is_relative_to(SNAPSHOTS) else str(path)


def all_snapshots() -> list[Path]:
    """Snapshot files of every folder a run has written to: those below the project's snapshots
    folder and in folders.txt.

    Of the provided ones, those that no run of one's own has taken the place of.
    """
    files = [
        f
        for f in SNAPSHOTS.rglob("*.pt")
        if not {REPLACED, SWEEP.name, published.PUBLISHED.name}
        & set(f.relative_to(SNAPSHOTS).parts)
    ]
    with contextlib.suppress(OSError, ValueError):  # ValueError: no path, as it holds NUL
        for folder in map(Path, map(os.fsdecode, FOLDERS.read_bytes().splitlines())):
            files += [*folder.glob("*.pt"), *folder.glob(f"*{RUN}/*.pt")]
    # a link may lead to a folder twice
    unique = {f.resolve(): f for f in reversed(files) if not f.name.endswith(STATES)}
    ended = {(f.parent, stem_of(f)) for f in unique.values() if not f.parent.name.endswith(RUN)}
    there = [
        f
        for f in unique.values()
        if f.parent == folder_of(f) or (folder_of(f), stem_of(f)) not in ended
    ]
    own = {(folder_of(f).name, stem_of(f)) for f in there if not f.is_relative_to(PROVIDED)}
    return sorted(
        f for f in there if not f.is_relative_to(PROVIDED) or (f.parent.name, stem_of(f)) not in own
    )


def find_snapshots(name: str, usual: str | None = None) -> list[Path]:
    """Files a --model or --load value means: a path, a file name,
    or a stem = its newest epoch in each folder that has it.

    A stem may begin with its folder's name, ``tune_sr/cifar10_wrn_s1_tune``. In a folder that has
    no run of that name of one's own, those that depart from it are meant, before a provided one;
    last those that began with given weights. UserError when there is none, whose advice is to train
    the ``usual`` one.
    """
    for path in (Path(name).expanduser(), resolve_folder(name)):
        if path.is_file():
            return [path.resolve()]
    if name.startswith(published.PREFIX):
        return [published.find_published(name)]
    wanted = re.sub(r"\.pt$", "", name)
    wanted, folder = Path(wanted).name, Path(wanted).parent.name
    files = [f for f in all_snapshots() if folder in ("", folder_of(f).name)]
    exact = [f for f in files if f.stem == wanted]
    if exact:
        return exact
    plain = [f for f in files if stem_of(f) == wanted or not began_with_given(f)]
    for part in (plain, files):
        own, provided = (
            by_folder([f for f in part if f.is_relative_to(PROVIDED) == given], wanted)
            for given in (False, True)
        )
        taken = {folder.name for folder in own}
        found = own | {at: there for at, there in provided.items() if at.name not in taken}
        if found:
            return [file for folder in sorted(found) for file in found[folder]]
    place = Path(name).expanduser()
    if place.is_dir():
        names = sorted(f.name for f in place.iterdir() if f.suffix in ENDINGS and f.is_file())
        raise UserError(f"{name} is a folder, not a snapshot. In it there is: {listed(names)}")
    if place.suffix in ENDINGS and len(place.parts) > 1 and place.parent.is_dir():
        names = sorted(f.name for f in place.parent.iterdir() if f.suffix in ENDINGS)
        raise UserError(f"{name} does not exist. In {place.parent} there is: {listed(names)}")
    there = ", ".join(dict.fromkeys(stem_of(f) for f in all_snapshots())) or "no snapshot"
    command = baseline_command(usual or wanted)
    command = command.replace("baseline.py", "tune.py") if "tune" in name else command
    raise UserError(
        f"snapshot '{name}' not found in {SNAPSHOTS} and its folders. There is: "
        f"{there}. Run: {command}"
    )


def listed(names: list[str]) -> str:
    """Names of snapshots for an error, "no snapshot" of none."""
    shown = [printable(name) for name in names[:SHOWN]] + ["..."] * (len(names) > SHOWN)
    return ", ".join(shown) or "no snapshot"


def baseline_command(stem: str) -> str:
    """The command that trains what a stem names."""
    named = re.match(r"(\w[\w.+-]*?)_[^_]+(?:_s\d+)?_(?:pretrained|tune)(?=_|$)", stem)
    dataset = named.group(1) if named else stem.partition("_")[0] if "_" in stem else ID_SETS[0]
    return training_command("baseline.py", dataset)


def training_command(script: str, dataset: str, own: bool = False) -> str:
    """``python SCRIPT DATASET``, and where its images are for those of one's own."""
    return f"python {script} {dataset}" + " --id PATH" * (own or dataset not in ID_SETS)


def in_folder(folder: Path, stem: str) -> list[Path]:
    """[the file of that name, or its newest epoch, or that of a run which has not ended], or the
    ``variants`` of that name; [] when there is none of them.
    """
    newest = [
        sorted((f for f in place.glob(f"{stem}_epoch_*.pt") if stem_of(f) == stem), key=epoch_of)[
            -1:
        ]
        for place in (folder, run_folder(folder, stem))
    ]
    named = [f for f in [folder / f"{stem}.pt"] if f.is_file()] or newest[0] or newest[1]
    return named or variants([*folder.glob("*.pt"), *folder.glob(f"*{RUN}/*.pt")], stem)


def in_load_folder(name: str) -> list[Path]:
    """Snapshots in the folder that a --load value means, those of one's own first, then the
    provided ones; [] where it means none.
    """
    folder = resolve_folder(name)
    places = [folder, *folder.glob(f"*{RUN}")]
    if folder.is_relative_to(SNAPSHOTS):
        places.append(PROVIDED / folder.relative_to(SNAPSHOTS))
    files = [file for place in places for file in sorted(place.glob("*.pt"))]
    return [file for file in files if not file.name.endswith(STATES)]


def find_one(name: str, stem: str | None = None) -> Path:
    """The one file a --load value means; a folder is searched for ``stem``. UserError when there is
    none or there are several.
    """
    folder = resolve_folder(name)
    if (
        stem
        and folder.is_dir()
        or stem
        and name.startswith(("./", "snapshots/"))
        and not folder.is_file()
    ):
        stem = stem.removesuffix(".pt")
        files = in_folder(folder, stem)
        if not files and folder.is_relative_to(SNAPSHOTS):
            files = in_folder(PROVIDED / folder.relative_to(SNAPSHOTS), stem)
        if not files:
            there = (
                ", ".join(
                    sorted({stem_of(f) for f in folder.glob("*.pt") if not f.name.endswith(STATES)})
                )
                or "no snapshot"
            )
            raise UserError(
                f"snapshot '{stem}' not found in {folder}. There is: {there}. Run: "
                f"{baseline_command(stem)}"
            )
    else:
        files = find_snapshots(name, stem)
    if len(files) > 1:
        raise UserError(
            f"'{name}' means several snapshots: "
            f"{', '.join(short_name(f) for f in files)}. Name one of them"
        )
    return files[0]
