"""The files of a training run beside its snapshots: the state that --resume needs, and what a new run of the same name sets aside."""
import contextlib
import filecmp
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from . import snapshots
from .runtime import UserError, make_folder, write_bytes


def start_run(folder, stem):
    """Make room for a new run: a former run's files of this name are also put into ``replaced``; none is moved or changed.

    Returns {"folder": where they are kept, "names": theirs}, {} when there are none. A new run that fails before its first
    snapshot thus leaves everything as it was.
    """
    folder = make_folder(folder)
    snapshots.remember_folder(folder)
    names = run_files(folder, stem)
    if not names:
        return {}
    kept = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-", time.gmtime()), dir=make_folder(folder / snapshots.REPLACED)))
    for name in names:
        try:
            os.link(folder / name, kept / name)
        except OSError:   # a file system without hard links
            shutil.copy2(folder / name, kept / name)
    return {"folder": str(kept), "names": names}


def run_files(folder, stem, temporary=False):
    """Sorted names of a run's files in a folder, or of the temporary ones that a killed run has left half-written."""
    pattern = re.escape(stem) + r"(_epoch_\d+|_best|_training_results|\.resume)\.(pt|json|csv)"
    pattern = rf"\.{pattern}\.\w+" if temporary else pattern
    return sorted(file.name for file in Path(folder).iterdir() if file.is_file() and re.fullmatch(pattern, file.name))


def withdraw_run(folder, stem, former):
    """Undo ``start_run`` of a run that has written nothing but its first resume state."""
    finish_run(folder, stem)
    if former:
        kept, state = Path(former["folder"]), f"{stem}.resume.pt"
        if state in former["names"]:
            os.replace(kept / state, Path(folder) / state)
        shutil.rmtree(kept)
        with contextlib.suppress(OSError):   # not empty: other runs' files
            kept.parent.rmdir()


def remove_replaced(folder, former):
    """Remove a former run's snapshots of single epochs, each only if ``replaced`` has the very same file."""
    kept = Path(former["folder"])
    for name in former["names"]:
        file = Path(folder) / name
        if re.search(r"_epoch_\d+\.(pt|json)$", name) and file.exists() and (kept / name).exists() \
                and filecmp.cmp(file, kept / name, shallow=False):
            file.unlink()


def save_state(folder, stem, **state):
    """Everything an interrupted run needs to go on (tensors and plain values only)."""
    write_bytes(Path(folder) / f"{stem}.resume.pt", snapshots.to_bytes(state))


def load_state(folder, stem):
    path = Path(folder) / f"{stem}.resume.pt"
    if not path.exists():
        there = ", ".join(sorted(f.name for f in Path(folder).glob("*.resume.pt"))) or "no interrupted run"
        raise UserError(f"nothing to resume: {path} does not exist. There is: {there}. Run the same command without --resume")
    state = snapshots.read_pt(path)
    if not (isinstance(state, dict) and {"epoch", "model", "optimizer", "recipe", "rows", "best", "data"} <= set(state)):
        raise UserError(f"{path} is not the state of an interrupted run. Remove it and run the same command without --resume")
    return state


def goes_on(folder, stem, recipe, sources):
    """Whether there is an interrupted run's state with this recipe, given what ``sources`` names: fingerprints of "data", "parent", "outliers"."""
    path = Path(folder) / f"{stem}.resume.pt"
    if not path.exists():
        return False
    state = snapshots.read_pt(path)
    made = {"preset": "paper", "precision": "auto", **state.get("recipe", {})}
    return agrees(made, recipe) and all(state.get(name) == value for name, value in sources.items())


def agrees(made, recipe):
    """Whether a snapshot's or an interrupted run's recipe is the one wanted, in what both of them name."""
    return all(made.get(key, value) == value for key, value in recipe.items())


def finish_run(folder, stem):
    """Remove what only an unfinished run needs."""
    for name in [f"{stem}.resume.pt", *run_files(folder, stem, temporary=True)]:
        with contextlib.suppress(FileNotFoundError):
            (Path(folder) / name).unlink()
