"""Which snapshot a fine-tuning starts from, and which interrupted run --resume goes on with."""

import contextlib
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils import snapshots
from utils.runtime import UserError

from . import files
from .names import OF_IMAGES, SHAPE, Made, departures, usual_stem
from .network import arch_name
from .settled import absolute

# what a run has that recorded nothing else
BESIDE = dict.fromkeys(("outliers", "validation_ood", "load", *OF_IMAGES)) | {
    "auto_margins": False,
    "balance": False,
    "new_head": False,
    "accumulate": 1,
}
# where and by what it is computed; and what is looked at apart from other options
NOT_COMPARED = {
    "data",
    "device",
    "compile",
    "deterministic",  # the state's own note tells them apart
    "stream",
    "test_bs",
    "dataset",
    "save",
    "resume",
    "dry_run",
}


def find_given(args: Namespace, state: Mapping[str, Any]) -> Path | None:
    """The snapshot that a pre-training begins with: what --load names; of an interrupted run's
    ``state`` the one it had; None where it is neither. UserError when there is none of that name.
    """
    load = args.load or state.get("given", {}).get("load")
    if load is None:
        return None
    stem = usual_stem("pretrain", args.dataset, args.arch or "wrn")
    return begun_with(state, wherever(args, state)) or snapshots.find_one(load, stem)


def find_parent(args: Namespace, state: Mapping[str, Any]) -> Path:
    """The snapshot that a fine-tuning starts from: what --load names, or in that folder the network
    of the run's seed, else that of seed 1; of an interrupted run's ``state`` the one it had.
    UserError when there is none.
    """
    load = args.load or state.get("given", {}).get("load", "./snapshots/pretrained")
    there = snapshots.in_load_folder(load)
    seed = args.seed if args.seed is not None else state.get("recipe", {}).get("seed", 1)
    own, first = (usual_stem("pretrain", args.dataset, args.arch or "wrn", s) for s in (seed, 1))
    stems = {snapshots.stem_of(file) for file in there}
    is_there = any(stem == own or snapshots.is_variant(stem, own) for stem in stems)
    begun = begun_with(state, [*there, *wherever(args, state)])
    return begun or snapshots.find_one(load, own if is_there else first)


def wherever(args: Namespace, state: Mapping[str, Any]) -> list[Path]:
    """All snapshots, unless --load was typed otherwise than for an interrupted run."""
    typed = args.load and absolute(args.load) != state.get("given", {}).get("load")
    return [] if typed or not state else snapshots.all_snapshots()


def begun_with(state: Mapping[str, Any], files: list[Path]) -> Path | None:
    """The file whose description has the sha256 of the weights that an interrupted run began with:
    its name may mean another one by now. None where there is none, or no such run.
    """
    for file in files if state.get("parent") else []:
        with contextlib.suppress(UserError):  # one that cannot be read is not the one
            if (snapshots.read_description(file) or {}).get("sha256") == state["parent"]:
                return file
    return None


def find_interrupted(args: Namespace, stage: str) -> tuple[dict, str]:
    """(state, name) of the interrupted run that --resume means: of those of this data set and loss,
    and of the network where one was typed, the one with the options that were typed, whatever
    version named it. UserError when there is none, or several are meant.
    """
    folder = snapshots.resolve_folder(args.save)
    arch = re.escape(arch_name(args.arch)) if args.arch else ".+?"
    of_any_seed = re.compile(
        re.escape(args.dataset)
        + rf"_(?P<arch>{arch})(_s\d+)?_{'tune' if stage == 'tune' else 'pretrained'}(_.+)?"
    )
    stems = [stem for stem in files.find_states(folder) if of_any_seed.fullmatch(stem)]
    there = {}
    for stem in stems:
        # one of several that cannot be read is not the one that is meant
        with contextlib.suppress(*[UserError] * (len(stems) > 1)):
            state = files.load_state(folder, stem)
            if not is_of(of_any_seed, stem, state["recipe"].get("arch")):
                continue
            loss = state["recipe"].get("loss", args.loss)
            if loss != args.loss:
                raise UserError(f"the interrupted run {stem} had loss {loss}, not {args.loss}")
            there[stem] = state
    typed = typed_options(args)
    fit = [stem for stem, state in there.items() if has(state, typed)]
    exact = [stem for stem in fit if not departing(there[stem], args, stage) - set(typed)]
    found = list(there) if len(there) == 1 else exact if len(exact) == 1 else fit
    if len(found) > 1:
        raise UserError(
            f"--resume could go on with {', '.join(found)}. Type the options of one of them"
        )
    seed = 1 if args.seed is None else args.seed
    stem = found[0] if found else ended(folder, of_any_seed, typed)
    stem = stem or usual_stem(stage, args.dataset, args.arch or "wrn", seed)
    return there.get(stem) or files.load_state(folder, stem), stem


def interrupted(args: Namespace, stage: str) -> tuple[dict, str | None]:
    """(state, name) of the interrupted run that is to go on, ({}, None) without --resume. UserError
    too where its weights are not of the network that it names.
    """
    if not args.resume:
        return {}, None
    state, stem = find_interrupted(args, stage)
    snapshots.check_shape(state, f"the state of {stem}")
    return state, stem


def is_of(pattern: re.Pattern, stem: str, arch: str | None) -> bool:
    """Whether a run of this name and network is of the pattern's data set: that of ``my`` is none
    of ``my_set``.
    """
    match = pattern.fullmatch(stem)
    return match is not None and match["arch"] == arch_name(arch or match["arch"])


def ended(folder: Path, of_any_seed: re.Pattern, typed: Mapping[str, Any]) -> str | None:
    """The name of a run that has ended and was made with the options that were typed, the shortest
    of several; None where there is none.
    """
    fit = []
    for file in folder.glob("*_epoch_*.json"):
        stem = snapshots.stem_of(file)
        with contextlib.suppress(UserError):  # what cannot be read is not meant
            description = snapshots.read_description(file) or {}
            recipe = description.get("recipe") or {}
            if is_of(of_any_seed, stem, description.get("arch")) and all(
                recipe.get(key, value) == value for key, value in typed.items()
            ):
                fit.append(stem)
    return min(fit, key=lambda stem: (len(stem), stem), default=None)


def typed_options(args: Namespace) -> dict[str, Any]:
    """{option: value} of what was typed and changes a run; paths that exist as absolute ones."""
    return {
        key: absolute(value)
        for key, value in vars(args).items()
        if value is not None and value is not False and key not in NOT_COMPARED
    }


def has(state: Mapping[str, Any], typed: Mapping[str, Any]) -> bool:
    """Whether an interrupted run has these options. A recipe's option that is younger than the run
    is in no state; one that no recipe has is in the state of every run that was given it.
    """
    made = {**BESIDE, **(state.get("given") or {}), **state["recipe"]}
    return all(absolute(made.get(key, value)) == value for key, value in typed.items())


def departing(state: Mapping[str, Any], args: Namespace, stage: str) -> set[str]:
    """The options of an interrupted run that depart from the recipe, seed and preset among them."""
    recipe, given = {"arch": args.arch or "wrn", **state["recipe"]}, state.get("given") or {}
    found = set(departures(Made(stage, args.dataset, args.loss, recipe, given)))
    if stage == "tune" or given.get("load"):
        found -= {"image_size", *SHAPE}  # as the network had it that the run began with
    others = {
        "seed": recipe.get("seed", 1) != 1,
        "preset": recipe.get("preset", "paper") != "paper",
        "load": bool(given.get("load")),
        # else it may be that of the network that was given
        "arch": recipe["arch"] != (args.arch or "wrn") and not given.get("load"),
    }
    return found | {key for key, departs in others.items() if departs}
