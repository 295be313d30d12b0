"""One training run: its log, its snapshots, the state that --resume needs, and what it sets aside."""
import contextlib
import csv
import filecmp
import io
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from utils import snapshots
from utils.runtime import UserError, make_folder, write_bytes, write_text

COLUMNS = ["epoch", "time(s)", "train_loss", "test_loss", "test_error(%)"]
CHECK_EVERY = 25   # steps between looks at the losses: reading a value makes the device wait


















class StepLog:
    """Losses and named terms of an epoch's steps, kept on the device and read every CHECK_EVERY steps.

    ``add`` raises UserError with the number of the first step whose loss is not finite.
    """

    def __init__(self, first_step):
        self.first_step, self.pending, self.sums, self.steps = first_step, [], {}, 0

    def add(self, terms):
        """terms: name -> scalar tensor; returns their sum, which is to be optimised."""
        loss = sum(terms.values())
        self.pending.append(torch.stack([loss.detach(), *(term.detach() for term in terms.values())]))
        self.names = ["loss", *terms]
        if len(self.pending) == CHECK_EVERY:
            self.check()
        return loss

    def check(self):
        if not self.pending:
            return
        values = torch.stack(self.pending).cpu().double()
        self.pending = []
        wrong = (~torch.isfinite(values).all(dim=1)).nonzero()
        if len(wrong):
            step = self.first_step + self.steps + int(wrong[0])
            parts = ", ".join(f"{n} {v:g}" for n, v in zip(self.names, values[wrong[0, 0]].tolist()))
            raise UserError(f"the loss is not finite at step {step} ({parts}); the last good snapshot is kept. "
                            f"Try a smaller --learning_rate")
        for name, value in zip(self.names, values.sum(dim=0).tolist()):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += len(values)

    def means(self):
        self.check()
        return {name: value / self.steps for name, value in self.sums.items()}




class Run:
    """The files of one training run: log, snapshot an epoch, best snapshot, resume state.

    ``stem`` is the snapshots' name without epoch; ``description`` goes into every .json. With ``args.resume`` the state
    is loaded into model and optimiser and ``first_epoch`` is the one to go on with.
    """

    RECIPE = ("arch", "layers", "widen_factor", "droprate", "epochs", "learning_rate", "batch_size", "oe_batch_size", "momentum",
              "decay", "padding", "outlier_padding", "outlier_norm", "seed", "loss", "alpha", "beta", "m_in", "m_out", "l1_on",
              "preset", "precision")

    def __init__(self, folder, stem, model, optimizer, args, description):
        self.folder, self.stem, self.model, self.optimizer = Path(folder), stem, model, optimizer
        self.args, self.first_epoch, self.rows, self.best, self.former = args, 0, [], math.inf, {}
        self.recipe = {key: getattr(args, key) for key in self.RECIPE if getattr(args, key, None) not in (None, "auto")}
        self.description = {**description, "recipe": self.recipe}
        self.log = self.folder / f"{stem}_training_results.csv"
        if args.resume:
            self.restore(load_state(folder, stem))
        else:
            self.former = start_run(folder, stem)
            if self.interrupted_before():
                print(f"note: an interrupted run of {stem} was there; this is a new one (--resume goes on with the other). "
                      f"Its files are kept in {self.former['folder']}", flush=True)
            with self.interruptible():
                self.save_state(epoch=-1)

    def interrupted_before(self):
        """Whether the files set aside are of a run that was itself to be gone on with."""
        return f"{self.stem}.resume.pt" in self.former.get("names", ())

    def sources(self):
        """Fingerprints of what the run was given beside its options."""
        return {"data": self.description.get("data_fingerprint"), "parent": self.description.get("parent_sha256"),
                "outliers": self.description.get("outliers", {}).get("fingerprint")}

    def restore(self, state):
        for key in sorted(set(state["recipe"]) | set(self.recipe)):
            if state["recipe"].get(key) != self.recipe.get(key):
                raise UserError(f"the interrupted run of {self.stem} had {key} {state['recipe'].get(key)}, not {self.recipe.get(key)}. "
                                f"Resume with the same options, or start anew without --resume")
        names = {"data": "images", "parent": "pre-trained weights", "outliers": "outliers"}
        for key, value in self.sources().items():
            if state.get(key) != value:
                raise UserError(f"the interrupted run of {self.stem} was given other {names[key]}. "
                                f"Resume with the same, or start anew without --resume")
        for key, value in self.description["computed"].items():
            if state.get("computed", {}).get(key, value) != value:
                print(f"note: the interrupted run had {key} {state['computed'][key]}, this one has {value}: the weights will not be, bit for bit, "
                      f"those of a run that was not stopped", file=sys.stderr)
        snapshots.load_weights(self.model, state["model"], f"the state of {self.stem}")
        self.optimizer.load_state_dict(state["optimizer"])
        self.first_epoch, self.rows, self.best = state["epoch"] + 1, state["rows"], state["best"]
        self.former = state.get("former", {})
        self.remove_former(state["epoch"])
        print(f"resuming {self.stem} at epoch {self.first_epoch} of {self.args.epochs}")

    def save_state(self, epoch):
        save_state(self.folder, self.stem, epoch=epoch, model=self.model.state_dict(),
                             optimizer=self.optimizer.state_dict(), recipe=self.recipe, rows=self.rows, best=self.best,
                             computed=self.description["computed"], former=self.former, **self.sources())

    def write_log(self):
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        extra = [name for name in (self.rows[0] if self.rows else {}) if name not in COLUMNS]
        table.writerow(COLUMNS + extra)
        table.writerows([[row[name] for name in COLUMNS + extra] for row in self.rows])
        write_text(self.log, text.getvalue())

    def end_epoch(self, epoch, seconds, means, test_loss, test_error):
        """Log the epoch; write its snapshot, then the resume state, and only then remove the former snapshot.

        A run that is stopped anywhere in between finds a whole snapshot and a whole state again.
        """
        if not math.isfinite(test_loss):   # the last step's update has no training loss that would show it
            step = (epoch + 1) * math.ceil(self.description["train_images"] / self.args.batch_size)
            raise UserError(f"the test loss is not finite after epoch {epoch + 1}, at step {step}; the last good snapshot is kept. "
                            f"Try a smaller --learning_rate")
        row = {"epoch": epoch, "time(s)": round(seconds, 1), "train_loss": round(means["loss"], 6),
               "test_loss": round(test_loss, 6), "test_error(%)": round(test_error, 2)}
        terms = {name: round(value, 6) for name, value in means.items() if name != "loss"}
        self.rows.append({**row, **(terms if len(terms) > 1 else {})})
        description = {**self.description, "epoch": epoch, "id_accuracy": round(100 - test_error, 4)}
        snapshots.save_snapshot(snapshots.snapshot_path(self.folder, self.stem, epoch), self.model, description)
        if test_error < self.best:
            self.best = test_error
            snapshots.save_snapshot(snapshots.snapshot_path(self.folder, self.stem, "best"), self.model, description)
        self.write_log()
        self.save_state(epoch)
        self.remove_former(epoch)
        detail = "".join(f" | {name} {value:.4f}" for name, value in terms.items()) if len(terms) > 1 else ""
        print(f"epoch {epoch + 1:3d}/{self.args.epochs} | {seconds:5.0f} s | train loss {means['loss']:.4f} | "
              f"test loss {test_loss:.4f} | test error {test_error:.2f} %{detail}", flush=True)

    def remove_former(self, epoch):
        """Remove the former epoch's snapshot, and a former run's, which ``replaced`` has, once that of ``epoch`` is there."""
        if epoch > 0:
            snapshots.remove_snapshot(snapshots.snapshot_path(self.folder, self.stem, epoch - 1))
        if epoch == 0 and self.former:
            remove_replaced(self.folder, self.former)
            print(f"note: a former run's files of {self.stem} are now in {self.former['folder']}")

    @contextlib.contextmanager
    def interruptible(self):
        """Ctrl-C inside says how to go on; a failure before the end of the first epoch leaves the folder as it was.

        So does Ctrl-C there where it would take the place of another interrupted run.
        """
        try:
            yield
        except KeyboardInterrupt:
            if not self.rows and self.interrupted_before():
                withdraw_run(self.folder, self.stem, self.former)
                raise KeyboardInterrupt(f"The run of {self.stem} that had been interrupted before is as it was; --resume goes on with it") from None
            command = shlex.join(["python", *[a for a in sys.argv if a != "--resume"], "--resume"])
            raise KeyboardInterrupt(f"The state after epoch {len(self.rows)} is in {self.folder}. Go on with: {command}") from None
        except Exception as error:
            if not self.rows:
                withdraw_run(self.folder, self.stem, self.former)
            if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):    # as BatchNorm says it
                raise UserError(f"BatchNorm cannot train on one value a channel: a batch has but one image ({self.description['train_images']} in batches "
                                f"of {self.args.batch_size} leave one over), or the images are too small for this network. Try another --batch_size or --image-size") from None
            raise

    def finish(self):
        """Remove the resume state and return the final snapshot's path."""
        finish_run(self.folder, self.stem)
        path = snapshots.snapshot_path(self.folder, self.stem, self.args.epochs - 1)
        print(f"ID error {self.rows[-1]['test_error(%)']:.2f} %. Snapshot: {path}")
        return path


class Clock:
    """Seconds since it was made or last asked."""

    def __init__(self):
        self.start = time.perf_counter()

    def lap(self):
        now = time.perf_counter()
        seconds, self.start = now - self.start, now
        return seconds


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
