"""The files of a run: they lie in a folder of its own,
and are moved into place by renames when it has ended.

``FOLDER/STEM.run/`` holds the log, the newest and the best snapshot and the state that --resume
needs, at the end the log's figure. What a finished run of that name had left in FOLDER stays there
until the new one is whole; then it goes to ``FOLDER/replaced/``.
"""

import contextlib
import os
import re
import tempfile
import time
from pathlib import Path

from utils import snapshots
from utils.runtime import UserError, make_folder, write_bytes
from utils.snapshots.schema import check_state

try:
    import fcntl
except ImportError:  # not a POSIX system: two runs of one name are not told apart there
    fcntl = None


class RunFiles:
    """The folder of one run; one process at a time holds it."""

    def __init__(self, folder: str | Path, stem: str):
        self.folder, self.stem = Path(folder), stem
        self.place = snapshots.run_folder(folder, stem)
        self.aside = None  # where an interrupted run of this name has been put by ``start``
        self.lock = None

    def start(self) -> bool:
        """Begin a run; returns whether an interrupted one was there, which is then in ``aside``."""
        make_folder(self.folder)
        snapshots.remember_folder(self.folder)
        adopt(self.folder, self.stem)
        if self.place.exists():
            self.hold()
            if self.ended.exists():  # it was killed while its files were moved
                self.install()
            elif self.state.exists():
                self.aside = self.new_replaced()
                os.rename(self.place, self.aside / self.place.name)
        make_folder(self.place)
        self.hold()
        return self.aside is not None

    def go_on(self) -> dict:
        """Take up an interrupted run again and return its state;
        snapshots that are not of the state are removed.
        """
        state = load_state(self.folder, self.stem)
        adopt(self.folder, self.stem)
        self.hold()
        bests = {snapshots.epoch_of(file) for file in self.own() if "_best_epoch_" in file.name}
        # former versions did not record it
        state.setdefault("best_epoch", max(bests, default=None))
        for file in self.own():
            kept = state["best_epoch"] if "_best_epoch_" in file.name else state["epoch"]
            if snapshots.epoch_of(file) not in (-1, kept):
                file.unlink()
        return state

    def hold(self) -> None:
        """Lock the run's folder for this process; UserError where another one trains there.
        A kill releases it.
        """
        if fcntl is None:
            return
        if self.lock is None:
            os.register_at_fork(after_in_child=self.release)
        self.release()
        self.lock = os.open(self.place, os.O_RDONLY)
        held = True
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        except OSError:  # a disk that knows no locks stops nobody
            pass
        try:
            held = held and os.path.samestat(os.fstat(self.lock), os.stat(self.place))
        except FileNotFoundError:  # the other one has just ended
            held = False
        if not held:
            raise UserError(
                f"another process is training {self.stem} in {self.folder}. "
                "Wait until it has ended, or train in another folder: --save DIR"
            )

    def release(self) -> None:
        """Give the lock up; in a process that decodes images, which may outlive this one, its
        copy of it.
        """
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def own(self) -> list[Path]:
        """What runs of this name write into their folder,
        temporary files of a killed one among it.
        """
        pattern = (
            re.escape(self.stem)
            + r"(_epoch_\d+|_best_epoch_\d+|_training_results|\.resume)\.(pt|json|csv|png)"
        )
        pattern = rf"{pattern}|\.{pattern}\.\w+|{re.escape(self.ended.name)}"
        there = self.place.iterdir() if self.place.exists() else ()
        return sorted(file for file in there if re.fullmatch(pattern, file.name))

    def snapshot(self, epoch: int, best: bool = False) -> Path:
        """Path of the snapshot of an epoch, or of the best one so far, in the run's folder."""
        return snapshots.snapshot_path(
            self.place, f"{self.stem}_best" if best else self.stem, epoch
        )

    @property
    def state(self) -> Path:
        return self.place / f"{self.stem}.resume.pt"

    @property
    def ended(self) -> Path:
        """What the state is called once the run has ended and what it
        replaces has been put aside.
        """
        return self.place / f"{self.stem}.ended.pt"

    @property
    def log(self) -> Path:
        return self.place / f"{self.stem}_training_results.csv"

    def save_state(self, **state: object) -> None:
        """Everything that --resume needs (tensors and plain values only)."""
        write_bytes(self.state, snapshots.to_bytes(state))

    def finished_otherwise(self, description: dict) -> str:
        """What a finished run of this name has otherwise that no name says: "other images (PATH)",
        "another network (NAME)"; "" where there is none, or nothing.
        """
        files = [f for f in finished_files(self.folder, self.stem) if f.suffix == ".json"]
        with contextlib.suppress(UserError):  # what cannot be read says nothing
            made = (snapshots.read_description(files[-1]) or {}) if files else {}
            told = {
                "arch": f"another network ({made.get('arch')})",
                "data_fingerprint": f"other images ({made.get('data')})",
            }
            other = [
                what
                for key, what in told.items()
                if made.get(key) not in (None, description.get(key))
            ]
            return " and ".join(other)
        return ""

    def withdraw(self) -> None:
        """Undo ``start`` of a run that has no snapshot yet: everything is as it was before."""
        self.remove()
        if self.aside is not None:
            os.rename(self.aside / self.place.name, self.place)
            for folder in (self.aside, self.aside.parent):
                with contextlib.suppress(OSError):  # not empty: other runs' files
                    folder.rmdir()
            self.aside = None

    def install(self) -> Path | None:
        """Move the run's files into place; returns where those that it replaces are now,
        None when there were none.

        A description is moved before its weights, and put aside after them:
        weights that are found have their own one.
        """
        kept = None
        if not self.ended.exists():
            former = finished_files(self.folder, self.stem)
            kept = self.new_replaced() if former else None
            for file in sorted(former, key=lambda file: file.suffix != ".pt"):
                os.rename(file, kept / file.name)
            os.rename(self.state, self.ended)
        for file in sorted(self.own(), key=lambda file: file.suffix == ".pt"):
            name = re.sub(r"_best_epoch_\d+", "_best", file.name)
            if re.fullmatch(
                re.escape(self.stem) + r"(_epoch_\d+|_best|_training_results)\.\w+", name
            ):
                os.rename(file, self.folder / name)
        self.remove()
        return kept

    def remove(self) -> None:
        """Remove what is left in the run's folder, and the folder if nothing
        of anyone else's is in it.
        """
        for file in sorted(self.own(), key=lambda file: file in (self.state, self.ended)):
            file.unlink()
        with contextlib.suppress(OSError):
            self.place.rmdir()

    def new_replaced(self) -> Path:
        """A new folder below ``replaced``, named by the time."""
        replaced = make_folder(self.folder / snapshots.REPLACED)
        prefix = time.strftime("%Y%m%d-%H%M%S-", time.gmtime())
        return Path(tempfile.mkdtemp(prefix=prefix, dir=replaced))


class NoFiles(RunFiles):
    """The files of a run as the ranks beside the first one have them: read, never touched."""

    def start(self) -> bool:
        return False

    def go_on(self) -> dict:
        return load_state(self.folder, self.stem)

    def withdraw(self) -> None:
        """The first rank does."""

    def install(self) -> None:
        """The first rank does."""


def finished_files(folder: Path, stem: str) -> list[Path]:
    """The files of a finished run of this name."""
    pattern = re.escape(stem) + r"(_epoch_\d+|_best|_training_results)\.(pt|json|csv|png)"
    there = folder.iterdir() if folder.exists() else ()
    return sorted(file for file in there if file.is_file() and re.fullmatch(pattern, file.name))


def adopt(folder: Path, stem: str) -> None:
    """Bring an interrupted run of former versions, whose files lie in ``folder`` itself,
    into a folder of its own.

    Its state goes last, so that a kill in between leaves something to adopt again.
    """
    state = folder / f"{stem}.resume.pt"
    if not state.exists():
        return
    place = make_folder(snapshots.run_folder(folder, stem))
    # before that, the other files are of the run before it
    if load_state(folder, stem)["epoch"] >= 0:
        best = snapshots.read_description(folder / f"{stem}_best.pt") or {}
        for file in sorted(finished_files(folder, stem), key=lambda file: file.suffix != ".pt"):
            name = file.name.replace(f"{stem}_best.", f"{stem}_best_epoch_{best.get('epoch', 0)}.")
            os.rename(file, place / name)
    os.rename(state, place / state.name)


def find_state(folder: str | Path, stem: str) -> Path | None:
    """Path of an interrupted run's state, in the run's folder or where former
    versions had it; or None.
    """
    run = snapshots.run_folder(folder, stem)
    places = (
        run / f"{stem}.resume.pt",
        run / f"{stem}.ended.pt",
        Path(folder) / f"{stem}.resume.pt",
    )
    return next((place for place in places if place.exists()), None)


def find_states(folder: str | Path) -> list[str]:
    """Names of the interrupted runs of a folder."""
    places = [Path(folder), *Path(folder).glob(f"*{snapshots.RUN}")]
    found = [file.name for place in places for file in place.glob("*.pt")]
    endings = snapshots.STATES
    stems = {name.removesuffix(e) for name in found for e in endings if name.endswith(e)}
    return sorted(stem for stem in stems if find_state(folder, stem))


def load_state(folder: str | Path, stem: str) -> dict:
    """The state of an interrupted run; UserError when there is none, or it is none."""
    path = find_state(folder, stem)
    if path is None:
        states = [
            *Path(folder).glob("*.resume.pt"),
            *Path(folder).glob(f"*{snapshots.RUN}/*.resume.pt"),
        ]
        there = ", ".join(sorted(file.name for file in states)) or "no interrupted run"
        done = [
            file for file in finished_files(Path(folder), stem) if snapshots.epoch_of(file) >= 0
        ]
        advice = (
            f"{done[-1].stem} is of a run that has ended"
            if done
            else "Run the same command without --resume"
        )
        raise UserError(
            f"nothing to resume: {stem}.resume.pt does not exist in {folder}. "
            f"There is: {there}. {advice}"
        )
    return check_state(snapshots.read_pt(path), path)


def goes_on(folder: str | Path, stem: str, recipe: dict, sources: dict) -> bool:
    """Whether an interrupted run is there that has this recipe and was
    given what ``sources`` names.

    sources: fingerprints of "data", "parent", "outliers".
    """
    path = find_state(folder, stem)
    if path is None:
        return False
    state = check_state(snapshots.read_pt(path), path)
    agreed = agrees(state.get("recipe", {}), recipe)
    return agreed and all(state.get(name) == value for name, value in sources.items())


def agrees(made: dict, recipe: dict) -> bool:
    """Whether a snapshot's or an interrupted run's recipe is the one wanted,
    in what both of them name.
    """
    made = {"preset": "paper", "precision": "auto", **made}  # recorded where they are others
    return all(made.get(key, value) == value for key, value in recipe.items())
