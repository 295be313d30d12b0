"""One training run: its log, its snapshots, and the state that --resume goes on from."""

import contextlib
import csv
import io
import math
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from utils import snapshots
from utils.loaders import TrainingBatches
from utils.runtime import UserError, print_note, ranks, write_text

from .files import NoFiles, RunFiles, load_state
from .steps import StepLog

COLUMNS = ["epoch", "time(s)", "train_loss", "test_loss", "test_error(%)"]


class Run:
    """A run from its first epoch, or with ``args.resume`` from where it was interrupted,
    to its files in place.

    folder, stem: where its snapshots go and their name without epoch; ``description`` goes into
    every .json; ``head``, a module that the loss keeps beside the model, is in the state alone. The
    state that was found, if any, is loaded into model and optimiser; ``first_epoch`` is the one to
    begin with.
    """

    def __init__(self, folder, stem, model, optimizer, args, description, head=None):
        self.files = NoFiles(folder, stem) if ranks.rank() else RunFiles(folder, stem)
        self.stem, self.args = stem, args
        self.model, self.optimizer, self.head = model, optimizer, head
        self.first_epoch, self.rows, self.best, self.best_epoch = 0, [], math.inf, None
        self.description = {**description, "recipe": args.recipe}
        ranks.meet()  # all have read what they begin with, before the first one moves it
        if args.resume:
            with ranks.first_alone():
                self.check_sources(load_state(folder, stem))
                self.restore(self.files.go_on())
        else:
            if self.files.start():
                print(
                    (
                        f"note: an interrupted run of {stem} was there; "
                        "this is a new one (--resume goes on with the other). "
                        f"Its files are kept in {self.files.aside}"
                    ),
                    flush=True,
                )
            if other := self.files.finished_otherwise(self.description):
                print(
                    f"note: a finished run of {stem} is there, of {other}; its files go to "
                    f"{snapshots.REPLACED}/ when this one has ended. --save DIR keeps both under "
                    "their names",
                    flush=True,
                )
            with self.interruptible():
                self.save_state(epoch=-1)

    @property
    def epochs(self) -> range:
        """The epochs to train, from 0 or where the run was interrupted."""
        return range(self.first_epoch, self.args.epochs)

    def steps(self, batches: TrainingBatches, epoch: int) -> Iterator:
        """What the epoch trains on: all of its batches."""
        return batches.epoch(epoch)

    def sources(self) -> dict:
        """Fingerprints of what the run was given beside its options."""
        return {
            "data": self.description.get("data_fingerprint"),
            "parent": self.description.get("parent_sha256"),
            "outliers": self.description.get("outliers", {}).get("fingerprint"),
        }

    def check_sources(self, state: dict) -> None:
        """UserError, before anything is moved, unless the run is given what it was given before."""
        names = {"data": "images", "parent": "pre-trained weights", "outliers": "outliers"}
        for key, value in self.sources().items():
            if state.get(key) != value:
                raise UserError(
                    f"the interrupted run of {self.stem} was given other {names[key]}. "
                    "Resume with the same, or start anew without --resume"
                )

    def restore(self, state: dict) -> None:
        before = {"ranks": 1, **(state.get("computed") or {})}  # former versions left one rank out
        for key, value in self.description["computed"].items():
            if before.get(key, value) != value:
                print_note(
                    f"the interrupted run had {key} {before[key]}, "
                    f"this one has {value}: the weights will not be, bit for bit, "
                    "those of a run that was not stopped"
                )
        snapshots.load_weights(self.model, state["model"], f"the state of {self.stem}")
        try:
            if self.head is not None and "head" in state:
                self.head.load_state_dict(state["head"])
            # the recipe has what it is made with, the state what it remembers of each weight
            groups = self.optimizer.state_dict()["param_groups"]
            kept = state["optimizer"]["state"]
            if set(kept) - {number for group in groups for number in group["params"]}:
                raise ValueError("it remembers weights that are not there")
            self.optimizer.load_state_dict({"state": kept, "param_groups": groups})
            for weight, kept in self.optimizer.state.items():
                buffer = kept.get("momentum_buffer")
                if buffer is not None and buffer.shape != weight.shape:
                    raise ValueError(f"{tuple(buffer.shape)} beside {tuple(weight.shape)}")
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise UserError(
                f"the state of {self.stem} is of another network or optimiser: {error}. "
                "Start anew without --resume"
            ) from None
        self.first_epoch, self.rows, self.best = state["epoch"] + 1, state["rows"], state["best"]
        self.best_epoch = state["best_epoch"]
        print(f"resuming {self.stem} at epoch {self.first_epoch} of {self.args.epochs}")

    def save_state(self, epoch: int) -> None:
        self.files.save_state(
            epoch=epoch,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            **({"head": self.head.state_dict()} if self.head is not None else {}),
            recipe=self.args.recipe,
            given=self.args.given,
            rows=self.rows,
            best=self.best,
            best_epoch=self.best_epoch,
            computed=self.description["computed"],
            **self.sources(),
        )

    def write_log(self) -> None:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        extra = [name for name in (self.rows[0] if self.rows else {}) if name not in COLUMNS]
        table.writerow(COLUMNS + extra)
        table.writerows([[row[name] for name in COLUMNS + extra] for row in self.rows])
        write_text(self.files.log, text.getvalue())

    def end_epoch(self, epoch: int, log: StepLog, test_loss: float, test_error: float) -> None:
        """Write the epoch's snapshot and log, then the state,
        and only then remove the snapshots it makes obsolete.

        A run that is stopped anywhere in between finds a whole snapshot and a whole state again.
        """
        means, seconds = log.means(), log.seconds
        train_loss = sum(means.values())
        # the last step's update has no training loss that would show it
        if not math.isfinite(test_loss):
            step = log.first_step + round(log.steps)
            raise UserError(
                f"the test loss is not finite after epoch {epoch + 1}, at step {step}; "
                "the last good snapshot is kept. Try a smaller --learning_rate"
            )
        row = {
            "epoch": epoch,
            "time(s)": round(seconds, 1),
            "train_loss": round(train_loss, 6),
            "test_loss": round(test_loss, 6),
            "test_error(%)": round(test_error, 2),
        }
        terms = {name: round(value, 6) for name, value in means.items()} if len(means) > 1 else {}
        self.rows.append({**row, **terms})
        obsolete = [self.files.snapshot(epoch - 1)]
        self.save_snapshot(epoch, test_error)
        if test_error < self.best:
            if self.best_epoch is not None:
                obsolete.append(self.files.snapshot(self.best_epoch, best=True))
            self.best, self.best_epoch = test_error, epoch
            self.save_snapshot(epoch, test_error, best=True)
        self.write_log()
        self.save_state(epoch)
        for file in [] if ranks.rank() else obsolete:
            snapshots.remove_snapshot(file)
        detail = "".join(f" | {name} {value:.4f}" for name, value in terms.items())
        print(
            (
                f"epoch {epoch + 1:3d}/{self.args.epochs} | {seconds:5.0f} s | train "
                f"loss {train_loss:.4f} | test loss {test_loss:.4f} | test error "
                f"{test_error:.2f} %{detail}"
            ),
            flush=True,
        )

    def save_snapshot(self, epoch: int, test_error: float, best: bool = False) -> None:
        description = {
            **self.description,
            "epoch": epoch,
            "id_accuracy": round(100 - test_error, 4),
        }
        snapshots.save_snapshot(self.files.snapshot(epoch, best), self.model, description)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C inside says how to go on; a failure before the end of the first epoch
        leaves everything as it was.

        So does Ctrl-C there where the new run would take the place of another interrupted one.
        """
        try:
            yield
        except KeyboardInterrupt:
            if not self.rows and self.files.aside is not None:
                self.files.withdraw()
                raise KeyboardInterrupt(
                    f"The run of {self.stem} that had been interrupted before is as it was; "
                    "--resume goes on with it"
                ) from None
            command = shlex.join(["python", *[a for a in sys.argv if a != "--resume"], "--resume"])
            raise KeyboardInterrupt(
                f"The state after epoch {len(self.rows)} is in {self.files.place}. "
                f"Go on with: {command}"
            ) from None
        except Exception as error:
            if not self.rows:
                self.files.withdraw()
            # as BatchNorm says it
            if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):
                raise UserError(
                    "BatchNorm cannot train on one value a channel: a batch has but one image "
                    f"({self.description['train_images']} in batches of {self.args.batch_size} "
                    "leave one over), or the images are too small for this network. "
                    "Try another --batch_size or --image-size"
                ) from None
            raise

    def finish(self, draw: Callable[[Path], None], error_before: float | None = None) -> None:
        """``draw`` the log, move the run's files into place and say where its snapshot is; warn
        where fine-tuning has cost more than a point of ID accuracy, ``error_before`` being the
        error in percent of the network it began with.
        """
        if not ranks.rank():
            draw(self.files.log)
        kept = self.files.install()
        if kept:
            print(f"note: a former run's files of {self.stem} are now in {kept}")
        path = snapshots.snapshot_path(self.files.folder, self.stem, self.args.epochs - 1)
        print(f"ID error {self.rows[-1]['test_error(%)']:.2f} %. Snapshot: {path}")
        if error_before is not None and self.rows[-1]["test_error(%)"] > error_before + 1:
            print_note(
                f"fine-tuning has raised the ID error from {error_before:.2f} to "
                f"{self.rows[-1]['test_error(%)']:.2f} %. Try a smaller --learning_rate, fewer "
                "epochs, or less weight on the loss's own term"
            )
