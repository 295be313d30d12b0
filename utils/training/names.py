"""The name of a run: data set, network, seed and stage as the papers' code has them, then what
departs from the recipe, so that no run of a loop takes another one's place.

    cifar10_wrn_pretrained                     the recipe, seed 1
    cifar10_wrn_s2_pretrained                  seed 2
    cifar10_wrn_s1_tune_alpha0.05_epochs3      two options otherwise than in the recipe
    cifar10_wrn_s2_tune_from-s1                fine-tuned from the network of another seed
    cifar10_wrn_s1_tune_5-changes-8d3a0b1c     more than LONGEST characters; the .json has them all

Devices, workers and places of images change no weights and are not in it.
"""

import os
import re
import zlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from utils import snapshots
from utils.losses import losses_of

from . import recipes
from .network import arch_name

LONGEST = 40  # characters of what departs, and of a parent
SHORT = {"learning_rate": "lr", "batch_size": "b", "oe_batch_size": "oe", "widen_factor": "widen"}
APART = {"arch", "seed", "test_bs"}  # in every name already, or without effect on the weights
SHAPE = {"layers", "widen_factor"}  # of a fine-tuned network: its parent's
OF_IMAGES = ("image_size", "split", "mean", "std")  # a fine-tuning has its parent's


class Made(NamedTuple):
    """What a run is made of, which its name tells."""

    stage: str
    dataset: str
    loss: str
    recipe: Mapping[str, Any]
    given: Mapping[str, Any]  # its options that no recipe has, and its folder ``save``
    parent: Path | None = None  # the snapshot that it begins with


def usual_stem(stage: str, dataset: str, arch: str, seed: int = 1) -> str:
    """The name of a run of the recipe's own values."""
    of_seed = f"_s{seed}" if stage == "tune" or seed != 1 else ""
    return f"{dataset}_{arch_name(arch)}{of_seed}_{'tune' if stage == 'tune' else 'pretrained'}"


def former_stem(stage: str, dataset: str, arch: str, seed: int = 1) -> str:
    """The name that former versions gave to every run: of a pre-training without the seed."""
    return usual_stem(stage, dataset, arch, seed if stage == "tune" else 1)


def named(args: Namespace, stem: str | None = None, parent: Path | None = None) -> Namespace:
    """Settled options with the name of their run; ``stem``: that of an interrupted one."""
    made = Made(args.stage, args.dataset, args.loss, args.recipe, vars(args), parent)
    changes = sorted(departures(made).values())
    if stem is None and "_".join(changes) != (short := short_word(changes)):
        print(f"in this run's name {short} stands for {', '.join(changes)}")
    return Namespace(**vars(args), stem=stem or stem_of(made))


def stem_of(made: Made) -> str:
    """The name of a run."""
    stage, dataset, loss, recipe, given, parent = made
    changes = sorted(departures(made).values())
    folder, preset = Path(given.get("save") or "").name, recipe.get("preset", "paper")
    words = [] if is_named_by(folder, stage, loss) else [loss]
    words += preset_words(stage, dataset, loss, recipe["arch"], preset, folder)
    words += [short_word(changes)] if changes else []
    if stage == "tune" and parent is not None:
        words += parent_words(parent, dataset, recipe["arch"], recipe["seed"], suffix(folder))
    return "_".join([usual_stem(stage, dataset, recipe["arch"], recipe["seed"]), *words])


def short_word(changes: list[str]) -> str:
    """What departs from the recipe as part of a name, a hash of it where it is long."""
    return bounded(changes, f"{len(changes)}-changes-")


def changes_of(made: Made) -> dict[str, Any]:
    """{option: value} of what a run's recipe has otherwise than that of its preset."""
    stage, dataset, loss, recipe, given, parent = made
    arch, preset = recipe["arch"], recipe.get("preset", "paper")
    divisors = recipes.divisors_of(parent, given.get("new_head"))
    table = recipes.origins(stage, dataset, loss, preset, arch, divisors)
    usual = recipes.follow({key: entry.value for key, entry in table.items()}, recipe)
    if recipe.get("padding", usual["padding"]) != usual["padding"] and "outlier_padding" in usual:
        usual["outlier_padding"] = recipe["padding"]
    apart = APART | (SHAPE if stage == "tune" or parent is not None else set())
    changed = {
        key: recipe[key]
        for key, value in usual.items()
        if key not in apart and recipe.get(key, value) != value
    }
    margins = {key: recipe.get(key) for key in ("m_in", "m_out")} if "m_in" in usual else {}
    if recipe.get("auto_margins"):  # known once they have been measured, after the run has its name
        return {key: value for key, value in changed.items() if key not in margins}
    if stage == "tune" and given.get("id"):  # measuring is the default there
        changed |= {key: value for key, value in margins.items() if value is not None}
    return changed


def departures(made: Made) -> dict[str, str]:
    """{option: its word in a name} of what a run has otherwise than the recipe of its preset."""
    recipe, given, parent = made.recipe, made.given, made.parent
    words = {key: word(key, value) for key, value in changes_of(made).items()}
    if recipe.get("auto_margins") and not given.get("id"):
        words["auto_margins"] = "auto-margins"
    if recipe.get("precision", "auto") != "auto":
        words["precision"] = recipe["precision"]
    trained = (snapshots.read_description(parent) or {}) if parent is not None else {}
    for key in OF_IMAGES:
        value = given.get(key)
        inherited = key in ("mean", "std") and key in trained  # another one is refused
        if value is not None and value != trained.get(key) and not inherited:
            words[key] = word(key, value)
    for key in ("outliers", "validation_ood"):
        if given.get(key):
            words[key] = f"{legal(key)}-{place_word(given[key])}"
    if made.stage == "pretrain" and parent is not None:
        stem = parent.stem if is_best(parent) else snapshots.stem_of(parent)
        words["load"] = f"load-{legal(stem)}"
    if recipe.get("accumulate", 1) != 1:
        words["accumulate"] = word("accumulate", recipe["accumulate"])
    for key in ("balance", "new_head"):
        if given.get(key) or recipe.get(key):
            words[key] = legal(key)
    return words


def word(key: str, value: Any) -> str:
    """An option and its value as part of a name: ``lr0.05``, ``m-in-27``, ``l1-on-all``."""
    name = SHORT.get(key, key.replace("_", "-"))
    if isinstance(value, (int, float)):
        return name + repr(value).removesuffix(".0")
    return f"{name}-{legal(value)}"


def legal(text: object) -> str:
    """What of a text may stand in a name, which parts its words by underscores."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", str(text)).strip("-.")


def place_word(text: str) -> str:
    """A name, or the end of a path and a short hash of all of it."""
    if os.sep not in text:
        return legal(text)
    path = os.path.abspath(os.path.expanduser(text))
    return f"{legal(snapshots.stem_of(path))}-{zlib.crc32(path.encode()) & 0xFFFF:04x}"


def is_best(file: Path) -> bool:
    """Whether a snapshot is its run's best one, not its last."""
    return file.stem.endswith("_best")


def bounded(words: list[str], prefix: str) -> str:
    """The words joined, or a hash of them after ``prefix`` where they are too long for a name."""
    text = "_".join(words)
    return text if len(text) <= LONGEST else f"{prefix}{zlib.crc32(text.encode()):08x}"


def is_named_by(folder: str, stage: str, loss: str) -> bool:
    """Whether a run's folder tells its loss; one that names no loss is of the stage's default."""
    prefix, default = ("tune", "sr") if stage == "tune" else ("pretrained", "ce")
    named = [
        name
        for name in losses_of(stage)
        if re.match(re.escape(f"{prefix}_{name}") + r"(_|$)", folder)
    ]
    return loss in named or (loss == default and not named)


def suffix(folder: str) -> str:
    """What the name of a fine-tuning's folder has after its loss: ``quick`` of ``tune_sr_quick``."""
    losses = "|".join(map(re.escape, losses_of("tune")))
    match = re.fullmatch(rf"tune_(?:{losses})_(.+)", folder)
    return match.group(1) if match else ""


def preset_words(
    stage: str, dataset: str, loss: str, arch: str, preset: str, folder: str
) -> list[str]:
    """The preset, unless its recipe is the one that the folder's name says: the papers', or that of
    the preset it ends with.
    """
    there = next((name for name in recipes.PRESETS if folder.endswith(f"_{name}")), "paper")
    of, named = (recipes.resolve(stage, dataset, loss, p, arch) for p in (preset, there))
    return [] if of == named else [preset]


def parent_words(parent: Path, dataset: str, arch: str, seed: int, of_folder: str) -> list[str]:
    """[] for the network that a fine-tuning of this seed starts from by its recipe, in the folder
    that goes with its own; else what that one is called otherwise.
    """
    folder, stem = snapshots.folder_of(parent), snapshots.stem_of(parent)
    match = re.fullmatch(
        re.escape(f"{dataset}_{arch_name(arch)}") + r"(?:_s(\d+))?_pretrained(?:_(.+))?", stem
    )
    if match is None:
        words = [legal(stem)]
    else:
        made = int(match.group(1) or 1)
        if match.group(1) is None:  # former versions named no seed
            made = (snapshots.read_description(parent) or {}).get("seed") or made
        words = [f"s{made}"] * (made != seed) + [legal(match.group(2))] * bool(match.group(2))
    place = folder.name.removeprefix("pretrained").removeprefix("_")
    words += [legal(place)] * (place not in ("", of_folder))
    words += ["best"] * is_best(parent)
    words = [w for w in words if w]
    of_seed = [w for w in words[:1] if match and re.fullmatch(r"s\d+", w)]
    rest = "-".join(words[len(of_seed) :])
    return ["-".join(["from", *of_seed, *([bounded([rest], "")] if rest else [])])] * bool(words)
