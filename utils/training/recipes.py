"""Training recipes: what each option is by default and where that comes from.

    python -m utils.training.recipes cifar10               # the recipe of baseline.py
    python -m utils.training.recipes cifar10 sroe          # the recipe of tune.py --loss sroe
    python -m utils.training.recipes cifar10 sroe --preset code
    python -m utils.training.recipes cifar10 greg+ --stage pretrain    # of a loss that
                                                                       # both scripts have

What a loss owns (its hyper-parameters, and what it trains otherwise than its stage) is in its
record, utils/losses. Here is the rest: a dictionary for each stage, data set and network. Later
lines of ``LAYERS`` in ``layers`` win.
"""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from utils import runtime
from utils.losses import LOSSES, Loss, losses_of
from utils.runtime import UserError

from .parser import Parser


class From(NamedTuple):
    """A value of a recipe and where it comes from: [Paper],
    "published code of [Paper]" or "this project".
    """

    value: Any
    origin: str


PRESETS = {
    "paper": "the papers' recipes",
    "code": (
        "SR and SROE with what their published code does otherwise (outliers' crop and statistics, "
        "L1 norm on outliers)"
    ),
    "quick": "the papers' recipes with a short, complete schedule, to try things out",
}

STAGES = {
    "pretrain": {
        "[Energy], [SR]": dict(
            arch="wrn",
            layers=40,
            widen_factor=2,
            droprate=0.3,
            epochs=100,
            learning_rate=0.1,
            batch_size=128,
            momentum=0.9,
            decay=5e-4,
            padding=4,
            seed=1,
            test_bs=200,
        )
    },
    "tune": {
        "[Energy], [SR]": dict(
            arch="wrn",
            layers=40,
            widen_factor=2,
            droprate=0.3,
            epochs=10,
            learning_rate=1e-3,
            batch_size=128,
            momentum=0.9,
            decay=5e-4,
            seed=1,
            test_bs=200,
        ),
        "[OE], [Energy]": dict(padding=4),
    },
}

# Of a loss with outliers. One normalisation for all: a second one would tell outliers from ID
# images by their contrast.
OUTLIERS = {"[Energy], [SR]": dict(oe_batch_size=256), "this project": dict(outlier_norm="id")}

# The digits are 758 small images: a small network, and batches that still give a few hundred steps.
# Their fine-tuning rate is the one of 0.01 and 0.03 with the lower training objective; the OOD
# tables of both were seen.
DATASETS = {
    ("pretrain", "digits"): dict(
        layers=10, widen_factor=1, droprate=0.0, padding=2, epochs=30, batch_size=64
    ),
    ("tune", "digits"): dict(
        layers=10,
        widen_factor=1,
        droprate=0.0,
        epochs=10,
        batch_size=64,
        oe_batch_size=128,
        learning_rate=3e-2,
    ),
}
NETWORKS = {"densenet": {"published code of [SR]": dict(droprate=0.0)}}
QUICK = {"pretrain": dict(epochs=5), "tune": dict(epochs=2)}
# Of a training that begins with given weights: the recipe's value is divided by this, as [Energy]'s
# fine-tuning has a hundredth of its pre-training's learning rate and a tenth of its epochs.
GIVEN = {"learning_rate": 100, "epochs": 10}
# A new last layer has everything to learn, and a hundredth of the rate leaves it nearly as it was.
NEW_HEAD = {**GIVEN, "learning_rate": 10}


def layers(stage: str, loss: type[Loss]) -> list[tuple[str, dict[str, From]]]:
    """(when, {option: From}) in the order in which they are laid over one another.

    when: "" for always, else words out of a data set, a network and a preset,
    each with its kind: "dataset digits".
    """
    found = [
        (
            "",
            {k: From(v, origin) for origin, part in STAGES[stage].items() for k, v in part.items()},
        )
    ]
    if loss.outliers:
        found.append(
            ("", {k: From(v, origin) for origin, part in OUTLIERS.items() for k, v in part.items()})
        )
    recipe = loss.scratch if stage == "pretrain" and "tune" in loss.stages else loss.recipe
    own = {**recipe, **loss.defaults}
    found.append(("", {k: From(v, loss.origins.get(k, loss.origin)) for k, v in own.items()}))
    for (of, dataset), part in DATASETS.items():
        if of == stage:
            part = {k: v for k, v in part.items() if loss.outliers or k != "oe_batch_size"}
            found.append(
                (f"dataset {dataset}", {k: From(v, "this project") for k, v in part.items()})
            )
    for dataset, part in loss.per_dataset.items():
        origin = loss.origins.get(dataset, loss.origin)
        found.append((f"dataset {dataset}", {k: From(v, origin) for k, v in part.items()}))
    for arch, parts in NETWORKS.items():
        found.append(
            (
                f"arch {arch}",
                {k: From(v, origin) for origin, part in parts.items() for k, v in part.items()},
            )
        )
    for preset, part in loss.presets.items():
        origin = loss.origins.get(preset, loss.origin)
        found.append((f"preset {preset}", {k: From(v, origin) for k, v in part.items()}))
    found.append(("preset quick", {k: From(v, "this project") for k, v in QUICK[stage].items()}))
    return found


def origins(
    stage: str,
    dataset: str,
    loss: str | None = None,
    preset: str = "paper",
    arch: str = "wrn",
    divisors: Mapping[str, int] = {},
) -> dict[str, From]:
    """The recipe with origins: {option: From}; ``divisors``: of a pre-training that begins with given
    weights, as by ``divisors_of``. UserError for an unknown preset or a loss of another stage.
    """
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}'. There is: {', '.join(PRESETS)}")
    there = losses_of(stage)
    if (loss or "ce") not in there and loss is not None:
        raise UserError(f"loss '{loss}' is none of this stage's. There is: {', '.join(there)}")
    recipe = {}
    for when, part in layers(stage, there[loss or "ce"] if loss or stage == "pretrain" else Loss):
        if when in ("", f"dataset {dataset}", f"arch {arch}", f"preset {preset}"):
            recipe.update(part)
    if stage == "pretrain":
        for key, divisor in divisors.items():
            value = recipe[key].value / divisor
            value = max(1, round(value)) if key == "epochs" else value
            head = " with a new head" * (divisor != GIVEN[key])
            origin = f"this project: of given weights{head} 1/{divisor} of the recipe's"
            recipe[key] = From(value, origin)
    if "oe_batch_size" in recipe:
        # Outliers are cropped as the ID images are: black borders would tell them apart.
        recipe.setdefault("outlier_padding", From(recipe["padding"].value, "as padding"))
    return recipe


def divisors_of(load: object, new_head: object = None) -> Mapping[str, int]:
    """What values of the recipe are divided by in a pre-training with these options; {} without
    ``load``.
    """
    return (NEW_HEAD if new_head else GIVEN) if load else {}


def resolve(
    stage: str, dataset: str, loss: str | None = None, preset: str = "paper", arch: str = "wrn"
) -> dict[str, Any]:
    """The recipe as a dict option -> value."""
    return {k: given.value for k, given in origins(stage, dataset, loss, preset, arch).items()}


def follow(recipe: dict[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with what follows from ``chosen`` options, where these name no value of it:
    outliers a step keep their ratio to ID images.
    """
    recipe = dict(recipe)
    if "oe_batch_size" in recipe and chosen.get("batch_size"):
        ratio = recipe["oe_batch_size"] / recipe["batch_size"]
        recipe["oe_batch_size"] = max(1, round(chosen["batch_size"] * ratio))
    return recipe


def stage_of(description: dict) -> str:
    """The stage that a snapshot's .json is of, "pretrain" or "tune"; former ones do not name it."""
    return description.get("stage") or ("tune" if description.get("loss") else "pretrain")


def departures(description: dict) -> dict[str, tuple]:
    """{option: (value, usual value)} of what a snapshot's .json has otherwise
    than the papers' recipe.

    Epochs, seed, network and random streams may differ. An option that the .json does not name
    departs too, with the value None: that it was as usual is not known.
    """
    loss, stage = description.get("loss"), stage_of(description)
    if (loss or "ce") not in losses_of(stage):
        return {"loss": (loss, None)}
    made = {**losses_of(stage)[loss or "ce"].before, **(description.get("recipe") or {})}
    usual = resolve(stage, description.get("dataset"), loss, arch=description.get("arch"))
    free = {"epochs", "seed", "arch", "test_bs"}
    return {
        key: (made.get(key), value)
        for key, value in usual.items()
        if key not in free and made.get(key) != value
    }


def describe(option: str, stage: str) -> str:
    """Every default of an option and its origin, for --help and the table of
    utils/training/README.md.
    """
    found = {}
    for name, loss in losses_of(stage).items():
        for when, part in layers(stage, loss):
            if option in part:
                own = any(
                    option in part
                    for part in (
                        loss.defaults,
                        loss.recipe,
                        loss.scratch,
                        *loss.per_dataset.values(),
                    )
                )
                words = [name] * (own and name != "ce") + [when.partition(" ")[2]] * bool(when)
                found[" ".join(words)] = part[option]
    if option == "outlier_padding":
        found = {"": From("that of --padding", "this project"), **found}
    told = [
        f"{entry.value} ({': '.join(filter(None, [when, entry.origin]))})"
        for when, entry in found.items()
    ]
    if stage == "pretrain" and option in GIVEN:
        head = f", 1/{NEW_HEAD[option]} with --new-head too" * (NEW_HEAD[option] != GIVEN[option])
        told.append(f"1/{GIVEN[option]} of it with --load{head} (this project)")
    return "default: " + ", ".join(told) if told else ""


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m utils.training.recipes", description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("loss", nargs="?", help=f"{', '.join(LOSSES)} (default: the pre-training)")
    parser.add("--preset", default="paper", choices=tuple(PRESETS))
    parser.add("--arch", default="wrn")
    parser.add("--stage", choices=tuple(STAGES), help="default: the last one that the loss has")
    args = parser.parse_args(argv)
    if args.loss not in (None, *LOSSES):
        parser.error(f"unknown loss '{args.loss}'. There is: {', '.join(LOSSES)}")
    stage = args.stage or (LOSSES[args.loss].stages[-1] if args.loss else "pretrain")
    for option, given in origins(stage, args.dataset, args.loss, args.preset, args.arch).items():
        print(f"{option:16}{given.value!s:12}{given.origin}")


if __name__ == "__main__":
    sys.exit(runtime.run(main))
