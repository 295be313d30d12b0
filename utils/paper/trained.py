"""The snapshots that tables and studies are of: found where they are there, else trained by the
command a user would type.
"""

import argparse
import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

from utils import loaders, runtime, snapshots
from utils.losses import LOSSES
from utils.training import files, meant, names, options, recipes

from .commands import run_script
from .results import is_folder_of, usual_folder
from .usual import USUAL, changed, unusual_words


def training_stage(loss: str | None) -> str:
    """What training calls the stage of a loss of fine-tuning, or of none."""
    return "tune" if loss else "pretrain"


def why_unfit(file: Path, args: argparse.Namespace, pretrained: Path | None) -> str | None:
    """What keeps a snapshot from being the paper's method; None if nothing does."""
    description = snapshots.read_description(file) or {}
    if args.train and args.fresh:
        return "is trained anew"
    if not snapshots.is_complete(description):
        return "is not of a whole run"
    if departed := recipes.departures(description):
        return "has another recipe: " + ", ".join(
            f"{key} {value}, not {usual}" for key, (value, usual) in departed.items()
        )
    if pretrained is None and description.get("seed") != args.seed:
        return f"is of seed {description.get('seed')}, not {args.seed}"
    if pretrained and description.get("parent_sha256") != runtime.sha256_file(pretrained):
        return f"was not made from {snapshots.short_name(pretrained)}"
    return None


def snapshot_of(
    stage: str, args: argparse.Namespace, pretrained: Path | None = None
) -> Path | None:
    """The whole run's snapshot of a stage, made from ``pretrained``; with --train it is trained
    where it is missing, else None.

    A run of the preset ``code`` counts, where its recipe is the paper's and the usual folder has
    none.
    """
    loss = None if stage == "pretrained" else stage
    folder, run = usual_folder(loss), (training_stage(loss), args.dataset, args.arch, args.seed)
    stem, reasons = names.usual_stem(*run), []
    for file in runs_of(folder, {stem, names.former_stem(*run)}):
        unfit = why_unfit(file, args, pretrained)
        if unfit is None:
            return file
        reasons.append(f"{snapshots.short_name(file)} {unfit}")
    reason = "; ".join(reasons) or f"there is no snapshot {folder}/{stem}"
    untrained = "" if args.train else "; its rows are not measured (--train trains it)"
    runtime.print_note(reason + untrained)
    return train(loss, args, pretrained) if args.train else None


def runs_of(folder: str, stems: set[str]) -> list[Path]:
    """The newest snapshot of every run in the folders of a stage that has one of these names, or
    departs from it: in each folder those of one's own before provided ones, the names themselves
    first, then the longest schedule.
    """
    newest = {}
    for file in snapshots.all_snapshots():
        stem, place = snapshots.stem_of(file), file.parent.name
        epoch = snapshots.epoch_of(file)
        if stem.endswith("_best") or not is_folder_of(place, folder):
            continue
        if any(stem == name or snapshots.is_variant(stem, name) for name in stems):
            newest[place, stem] = max(newest.get((place, stem), (-2, file)), (epoch, file))
    found = [
        (place, file.is_relative_to(snapshots.PROVIDED), stem not in stems, -epoch, file)
        for (place, stem), (epoch, file) in newest.items()
    ]
    return [file for *_, file in sorted(found)]


def train(loss: str | None, args: argparse.Namespace, parent: Path | None = None) -> Path:
    """Path of the snapshot of a loss, or of pre-training, trained unless it is there:
    with this recipe, and made from this parent.

    A preset that changes the stage has folders of its own, ``tune_sr_quick``: it takes no place of
    a run of the papers' recipe.
    """
    stage, usual_preset = training_stage(loss), USUAL["preset"]
    recipe, usual = (
        recipes.resolve(stage, args.dataset, loss, preset, args.arch)
        for preset in (args.preset, usual_preset)
    )
    preset = usual_preset if recipe == usual else args.preset
    folder = usual_folder(loss)
    folder += f"_s{args.seed}" * getattr(args, "own_folders", False)
    place = snapshots.SNAPSHOTS / (folder + f"_{preset}" * (preset != usual_preset))
    recipe |= {"seed": args.seed, "arch": args.arch}
    beside = {"preset": preset, "precision": args.precision}
    given = {**vars(args), "save": place}
    made = names.Made(stage, args.dataset, loss or "ce", recipe | beside, given, parent)
    command = ["tune.py", "--loss", loss] if loss else ["baseline.py"]
    command += [args.dataset]
    command += unusual_words({"arch": args.arch, "seed": args.seed, "preset": preset})
    if place.name != usual_folder(loss):
        command += ["--save", f"./snapshots/{place.name}"]
    if parent and not is_default_parent(parent, args):
        command += ["--load", str(parent)]
    command += options.common_words(args)
    sources = sources_of(args, loss, parent)
    return train_unless_there(command, made, place, recipe, sources, args.fresh, beside)


def train_unless_there(
    command: list,
    made: names.Made,
    place: Path,
    recipe: dict,
    sources: dict,
    fresh: bool = False,
    beside: dict | None = None,
) -> Path:
    """Path of the last snapshot of a run in ``place`` under the name of what it is ``made`` of, or
    that of former versions, with this recipe and from these sources.

    The command trains it unless it is there; an interrupted run that has what is ``beside`` the
    recipe too goes on. ``fresh``: it is trained anew.
    """
    former = (made.stage, made.dataset, made.recipe["arch"], made.recipe["seed"])
    stems = (names.stem_of(made), names.former_stem(*former))
    lasts = {stem: snapshots.snapshot_path(place, stem, recipe["epochs"] - 1) for stem in stems}
    for last in [] if fresh else lasts.values():
        if is_of(last, recipe, sources):
            print(f"{snapshots.short_name(last)} is there")
            return last
    going_on = [
        last
        for stem, last in lasts.items()
        if not fresh and files.goes_on(place, stem, {**recipe, **(beside or {})}, sources)
    ]
    run_script([*command, *["--resume"] * bool(going_on)])
    return (going_on or list(lasts.values()))[0]


def is_default_parent(parent: Path, args: argparse.Namespace) -> bool:
    """Whether tune.py starts from this snapshot where no --load is typed."""
    with contextlib.suppress(runtime.UserError):  # none, or several
        return meant.find_parent(changed(args, load=None), {}) == parent
    return False


def is_of(file: Path, recipe: dict, sources: dict) -> bool:
    """Whether a snapshot is there and was trained with this recipe and from these sources: data,
    outliers and, if fine-tuned, the pre-trained parent.
    """
    if not file.exists():
        return False
    description = snapshots.read_description(file) or {}
    made = {
        "data": description.get("data_fingerprint"),
        "parent": description.get("parent_sha256"),
        "outliers": (description.get("outliers") or {}).get("fingerprint"),
    }
    agreed = files.agrees(description.get("recipe", {}), recipe)
    return agreed and sources.items() <= made.items()


def sources_of(args: argparse.Namespace, loss: str | None, parent: Path | None) -> dict:
    """What a training's result depends on beside its recipe, as ``is_of`` compares it."""
    given = loaders.given_id(args)
    data, side = id_images(args.dataset, args.data, given, args.image_size, args.skip_bad)
    outliers = None
    if loss and LOSSES[loss].outliers:
        outliers = loaders.load_outliers(changed(args, outliers=None), side).fingerprint
    return {"data": data, "parent": parent and runtime.sha256_file(parent), "outliers": outliers}


@functools.lru_cache(maxsize=1)
def id_images(dataset: str, *given: object) -> tuple[str, int]:
    """(fingerprint, side) of the ID training images."""
    images = loaders.load_id(dataset, "train", *given)
    return images.fingerprint, images.images.shape[-1]


def whole_runs() -> Iterator[tuple[Path, dict]]:
    """(file, description) of the last snapshot of each run that has come to its end."""
    for file in snapshots.all_snapshots():
        # without a description nothing tells how it was made
        description = snapshots.read_description(file) or {}
        if snapshots.is_complete(description) and snapshots.epoch_of(file) >= 0:
            yield file, description
