"""The options of a training run with nothing left open: typed, recorded, inherited or the recipe's."""

import argparse
import os

from utils import loaders, snapshots
from utils.losses import Loss, losses_of, sampling
from utils.runtime import DATA, STREAMS, UserError, only_read

from . import recipes
from .margins import note_borrowed, wants_margins

# where nothing was typed
USUAL = {
    "data": str(DATA),
    "device": "auto",
    "precision": "auto",
    "compile": "auto",
    "stream": "auto",
    "deterministic": False,
    "preset": "paper",
    "balance": False,
    "accumulate": 1,
    "new_head": False,
}
# options that no recipe has
OF_A_RUN = (
    *(*USUAL, "id", "split", "mean", "std", "image_size", "skip_bad", "outliers", "load"),
    "validation_ood",
)
# options beside the recipe that the weights depend on
OF_MAKING = ("balance", "accumulate")
OF_SHAPE = ("arch", "layers", "widen_factor")
OF_OUTLIERS = ("outliers", "oe_batch_size", "outlier_norm", "outlier_padding")


def settle(
    args: argparse.Namespace, stage: str, parent: dict | None = None, state: dict | None = None
) -> argparse.Namespace:
    """The options of a run in a new Namespace with nothing left open,
    which nobody changes afterwards.

    What was typed counts first; then what an interrupted run's ``state`` recorded; then the shape
    of the ``parent``, the description of the network that is fine-tuned; then the recipe. Two
    dictionaries come with it: ``recipe``, which the run records, and ``given``, options beside the
    recipe that --resume is to find again. UserError: an option that the loss does not have, one
    that contradicts parent or state, a value out of its range.
    """
    typed = {
        key: value for key, value in vars(args).items() if value is not None and value is not False
    }
    parent, state = parent or {}, state or {}
    recorded = state.get("recipe", {})
    if "arch" in recorded and "arch" not in typed:
        snapshots.check_arch(recorded["arch"], "the state of the interrupted run")
    run = beside_recipe(typed, parent, state)
    statistics = choose_statistics(run, parent)
    shape = {key: parent[key] for key in OF_SHAPE if parent.get(key) is not None}
    arch = typed.get("arch") or recorded.get("arch") or shape.get("arch", "wrn")
    divisors = recipes.divisors_of(run.get("load"), run.get("new_head"))
    table = recipes.origins(stage, args.dataset, args.loss, run["preset"], arch, divisors)
    recipe = recipes.follow({key: entry.value for key, entry in table.items()}, typed)
    recipe.update(shape)
    recipe.update({key: value for key, value in recorded.items() if key in recipe})
    refuse_other_shape(typed, shape, run, args.dataset)
    if state:  # options that are younger than the run: it was made with what there was before
        loss = losses_of(stage)[args.loss]
        recipe.update({key: value for key, value in loss.before.items() if key not in recorded})
        refuse_changes(typed, recorded, recipe)
    recipe.update({key: typed[key] for key in recipe if key in typed})
    if "padding" in typed and "outlier_padding" in recipe and "outlier_padding" not in typed:
        recipe["outlier_padding"] = recipe["padding"]
    check_loss(args.loss, stage, recipe, run["accumulate"])
    auto = recorded.get("auto_margins", False)
    if not state and stage == "tune":
        auto = wants_margins(typed, recipe, args.loss, own=bool(run.get("id")))
    if not (auto or state):
        note_borrowed(typed, recipe, stage, own=bool(run.get("id")))
    if run.get("validation_ood") and not auto:
        raise UserError(
            "--validation-ood is what --auto-margins measures energy margins on"
            + (": add --auto-margins" if "m_in" in recipe else f"; --loss {args.loss} has none")
        )
    made = {key: value for key, value in recipe.items() if key != "test_bs"}
    made |= {"preset": run["preset"], "streams": recorded.get("streams", 1) if state else STREAMS}
    made |= {"loss": args.loss} if args.loss != "ce" else {}
    made |= {"auto_margins": True} if auto else {}
    made |= {key: run[key] for key in ("precision", *OF_MAKING) if run[key] != USUAL[key]}
    given = {key: absolute(run[key]) for key in OF_A_RUN if run.get(key) != USUAL.get(key)}
    return argparse.Namespace(
        **{
            **vars(args),
            **run,
            **recipe,
            "stage": stage,
            "auto_margins": auto,
            "statistics": statistics,
            "streams": made["streams"],
            "recipe": made,
            "given": given,
            "origins": origins_of(recipe, table, typed, recorded, shape)
            | origins_beside(made, recipe, typed, recorded),
        }
    )


def beside_recipe(typed: dict, parent: dict, state: dict) -> dict:
    """The options of a run that no recipe has: typed, as the interrupted run had them, or usual."""
    recorded = state.get("recipe", {})
    run = {**USUAL, **{key: recorded[key] for key in USUAL if key in recorded}}
    given = state.get("given") or {}
    run |= {key: given[key] for key in OF_A_RUN if key in given}
    if "data" in given and "data" not in typed:
        only_read(given["data"])
    run |= {key: typed[key] for key in OF_A_RUN if key in typed}
    # own images: the size the network was trained at
    if parent and run.get("id") and run.get("image_size") is None:
        run["image_size"] = parent.get("image_size")
    if run.get("id"):
        run["id"] = loaders.id_place(run["id"], run["data"])
    return run


def refuse_other_shape(typed: dict, shape: dict, run: dict, dataset: str) -> None:
    """UserError for a typed shape that is not that of the network that is fine-tuned."""
    for key in sorted(set(typed) & set(shape)):
        if typed[key] != shape[key]:
            raise UserError(
                f"{run.get('load', 'the pre-trained snapshot')} is a snapshot of another network: "
                f"its {key} is {shape[key]}, not {typed[key]}. Leave the option out, or run: "
                + snapshots.training_command("baseline.py", dataset, bool(run.get("id")))
            )


def refuse_changes(typed: dict, recorded: dict, recipe: dict) -> None:
    """UserError for a typed option that the interrupted run had otherwise."""
    was = {**USUAL, **recorded, **recipe}
    for key in ("preset", "precision", *OF_MAKING, *recipe):
        if key != "test_bs" and typed.get(key, was[key]) != was[key]:
            raise UserError(
                f"the interrupted run had {key} {was[key]}, not {typed[key]}. "
                "Resume with the same options, or start anew without --resume"
            )


def origins_of(recipe: dict, table: dict, typed: dict, recorded: dict, shape: dict) -> dict:
    """{option: where its value comes from}, in words."""

    def origin(key):
        if key in typed:
            return "typed"
        if key in recorded:
            return "the interrupted run"
        if key in shape:
            return "the network that was given"
        return table[key].origin if table[key].value == recipe[key] else "follows what was typed"

    return {key: origin(key) for key in recipe if key in table}


def origins_beside(made: dict, recipe: dict, typed: dict, recorded: dict) -> dict:
    """{option: where its value comes from} of what a run records beside its ``recipe``."""
    known = {**dict.fromkeys(recorded, "the interrupted run"), **dict.fromkeys(typed, "typed")}
    return {
        key: known.get(key, "this project") for key in made if key not in recipe and key != "loss"
    }


def choose_statistics(run: dict, parent: dict) -> tuple[tuple, tuple]:
    """(mean, std) of a run: as typed, as the network was trained that is fine-tuned, or CIFAR's;
    what is assumed of a file of others is printed.

    UserError where the first two differ: its first layer has learnt the others.
    """
    try:
        typed = loaders.typed_statistics(run.get("mean"), run.get("std"))
    except ValueError as error:
        raise UserError(str(error)) from None
    trained = loaders.described_statistics(parent)
    if typed and trained and typed != trained:
        raise UserError(
            f"the network was trained with {loaders.shown(trained)}, not with "
            f"{loaders.shown(typed)}. Leave --mean and --std out"
        )
    if parent and not (typed or trained or "recipe" in parent):
        assumed = loaders.assumed_statistics(parent["arch"])
        print(
            f"images are normalised with {loaders.shown(assumed)}, assumed: the given network's file "
            "does not say (--mean, --std)"
        )
        return assumed
    return typed or trained or loaders.STATISTICS["cifar"]


def refuse_options_of_others(args: argparse.Namespace, stage: str) -> None:
    """UserError for a typed option that other losses of the stage have, but not ``args.loss``."""
    every, name = losses_of(stage), args.loss
    typed = {key for key, value in vars(args).items() if value is not None}
    owned = {key for loss in every.values() for key in loss.defaults} | set(OF_OUTLIERS)
    own = [*every[name].defaults, *(OF_OUTLIERS if every[name].outliers else ())]
    for key in sorted(typed & owned - set(own)):
        there = ", ".join(f"--{key}" for key in own) or "no option of its own"
        raise UserError(f"--{key} is not an option of --loss {name}, which has {there}")


def check_loss(name: str, stage: str, recipe: dict, accumulate: int = 1) -> None:
    """UserError where a hyper-parameter of the loss is out of its range, there are fewer candidates
    than clusters, or a step of pairs, or of a loss that keeps numbers from step to step, is to be
    made in several passes.
    """
    try:
        loss = make_loss(name, stage, recipe)
    except (ValueError, TypeError) as error:  # TypeError: a state's value that is no number
        raise UserError(f"--loss {name}: {error}") from None
    if loss.views == 2 and accumulate > 1:
        raise UserError(
            f"--loss {name} is made of all pairs of a step's images: in {accumulate} passes most "
            "would be missing. Leave --accumulate out and give a smaller --batch_size"
        )
    if loss.kept is not None and accumulate > 1:
        raise UserError(
            f"--loss {name} keeps numbers that move once a step: in {accumulate} passes they would "
            f"move {accumulate} times. Leave --accumulate out and give a smaller --batch_size"
        )
    candidates = sampling.CANDIDATES * recipe.get("oe_batch_size", 0)
    if loss.chooses_outliers and candidates < recipe["batch_size"]:
        raise UserError(
            f"--sampling clusters: {candidates} candidates are fewer than "
            f"{recipe['batch_size']} clusters, one for each ID image of a step. "
            "Give more outliers (--oe_batch_size) or fewer ID images (--batch_size)"
        )


def make_loss(name: str, stage: str, recipe: dict) -> Loss:
    """The loss with the hyper-parameters of a recipe; ValueError where one is out of its range."""
    loss = losses_of(stage)[name]
    return loss(**{key: recipe[key] for key in loss.defaults})


def absolute(value: object) -> object:
    """A path that exists as an absolute one, so that --resume finds it from any folder;
    anything else as it is.
    """
    path = os.path.expanduser(value) if isinstance(value, str) else ""
    return os.path.abspath(path) if os.path.exists(path) else value
