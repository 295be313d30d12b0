"""What the two training scripts share apart from their loops: schedule, evaluation, epoch log, saving and resuming."""
import contextlib
import csv
import io
import math
import platform
import shlex
import sys
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from . import datasets, features, runs, runtime, snapshots
from .losses import LOSSES
from .runtime import UserError, autocast, write_text

COLUMNS = ["epoch", "time(s)", "train_loss", "test_loss", "test_error(%)"]
CHECK_EVERY = 25   # steps between looks at the losses: reading a value makes the device wait


def cosine_lr(step, total, base, final=1e-6):
    """Learning rate of a 0-based step: a cosine from ``base`` at step 0 towards ``final`` at step ``total`` ([Energy])."""
    return final + (base - final) * 0.5 * (1 + math.cos(math.pi * step / total))


def set_lr(optimizer, value):
    for group in optimizer.param_groups:
        group["lr"] = value


def arch_name(arch):
    """What of --arch goes into file names: a network's name, or the function of module:function."""
    return arch.rsplit(":", 1)[-1]


def describe_network(args, num_classes, train_set, computed):
    """What a snapshot's .json says of its network, of the images it was trained on and, ``computed``, by what."""
    return {"arch": args.arch, "num_classes": num_classes, "layers": args.layers, "widen_factor": args.widen_factor,
            "droprate": args.droprate, "dataset": args.dataset, "data": train_set.source if args.id else args.dataset,
            "data_fingerprint": train_set.fingerprint, "train_images": len(train_set),
            "classes": list(train_set.classes or ()), "image_size": train_set.images.shape[-1], "seed": args.seed, "computed": computed,
            "versions": {"python": platform.python_version(), "torch": torch.__version__}}


def image_size(path, args):
    """Side of the images that a snapshot was trained on, or None where nothing says it."""
    return snapshots.describe(path, snapshots.read_weights(path), args.arch if ":" in args.arch else None).get("image_size")


def load_parent(path, args, description):
    """The pre-trained network to fine-tune, with the dropout of this recipe; its own shape is believed over the defaults."""
    state = snapshots.read_weights(path)
    parent = snapshots.describe(path, state, args.arch if ":" in args.arch else None)
    if parent["num_classes"] != description["num_classes"] or parent.get("dataset") not in (None, args.dataset):
        raise UserError(f"{path} is a network for {parent.get('dataset')} with {parent['num_classes']} classes, not for "
                        f"{args.dataset} with {description['num_classes']}. Run: python baseline.py {args.dataset}")
    shape = {key: parent[key] for key in ("arch", "layers", "widen_factor") if parent.get(key) is not None}
    for key, value in shape.items():
        if args.given.get(key, value) != value:
            raise UserError(f"{path} is a snapshot of another network: its {key} is {value}, not {args.given[key]}. "
                            f"Leave the option out, or run: python baseline.py {args.dataset}")
    datasets.check_classes(description["classes"], parent.get("classes"), f"{args.dataset}'s training images", path)
    vars(args).update(shape)
    model = snapshots.build_model({**description, **shape})
    snapshots.load_weights(model, state, path)
    return model, {**description, **shape}


def prepare(model, train_set, args, device, precision):
    """The model ready to be trained on batches of this ImageSet; UserError when it does not take its images."""
    model = runtime.prepare_training(model, device, args.compile)
    features.check_fits(model, train_set)
    if device.type == "cuda" and args.compile == "on":
        model.train()
        loss = LOSSES.get(getattr(args, "loss", None))
        count = args.batch_size + (args.oe_batch_size if loss and loss.outliers else 0)
        example = torch.zeros(count, *train_set.images.shape[1:], device=device)
        runtime.compile_training(model, example.contiguous(memory_format=torch.channels_last), precision)
    return model


def make_optimizer(model, args):
    """SGD with Nesterov momentum; weight decay on every parameter, as the papers' code has it."""
    return torch.optim.SGD(model.parameters(), lr=args.learning_rate, momentum=args.momentum,
                           weight_decay=args.decay, nesterov=args.momentum > 0, fused=True)


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


@torch.no_grad()
def evaluate(model, batches, device, precision):
    """(mean cross-entropy, error in percent) on the Batches of a labelled set."""
    model.eval()
    total, wrong = [], 0
    for x, y in batches:
        with autocast(device, precision):
            logits, _ = model(x)
        total.append(cross_entropy(logits, y, reduction="sum"))
        wrong += (logits.argmax(dim=1) != y).sum()
    return float(torch.stack(total).cpu().double().sum()) / len(batches.images), 100 * int(wrong) / len(batches.images)


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
            self.restore(runs.load_state(folder, stem))
        else:
            self.former = runs.start_run(folder, stem)
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
        runs.save_state(self.folder, self.stem, epoch=epoch, model=self.model.state_dict(),
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
            runs.remove_replaced(self.folder, self.former)
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
                runs.withdraw_run(self.folder, self.stem, self.former)
                raise KeyboardInterrupt(f"The run of {self.stem} that had been interrupted before is as it was; --resume goes on with it") from None
            command = shlex.join(["python", *[a for a in sys.argv if a != "--resume"], "--resume"])
            raise KeyboardInterrupt(f"The state after epoch {len(self.rows)} is in {self.folder}. Go on with: {command}") from None
        except Exception as error:
            if not self.rows:
                runs.withdraw_run(self.folder, self.stem, self.former)
            if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):    # as BatchNorm says it
                raise UserError(f"BatchNorm cannot train on one value a channel: a batch has but one image ({self.description['train_images']} in batches "
                                f"of {self.args.batch_size} leave one over), or the images are too small for this network. Try another --batch_size or --image-size") from None
            raise

    def finish(self):
        """Remove the resume state and return the final snapshot's path."""
        runs.finish_run(self.folder, self.stem)
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
