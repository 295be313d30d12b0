"""What the files of a run may hold: types, ranges and shapes, looked at once when one is read.

Whoever reads a value afterwards may rely on it. Keys that are not named here are let through: a
later version's, a user's own notes.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from utils.runtime import UserError

DEPTH = 50  # of lists and dictionaries inside one another


def whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Callable[[Any], bool]:
    """A finite number of the range."""
    return lambda value: type(value) in (int, float) and low <= value <= high < math.inf


def text(value: Any) -> bool:
    """A text that may be a path too, which no NUL is in."""
    return isinstance(value, str) and len(value) < 10_000 and "\0" not in value


def statistics(value: Any) -> bool:
    """One number for each of red, green and blue."""
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(number(0, 1e6), value))


def one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in words


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) <= 100_000 and all(map(text, value))


def record(value: Any) -> bool:
    """A dictionary by text of plain values, as deep as any that is written."""
    return isinstance(value, dict) and is_plain(value)


def records(value: Any) -> bool:
    return isinstance(value, list) and len(value) < 1000 and all(map(record, value))


def is_plain(value: Any, depth: int = 0) -> bool:
    if depth > DEPTH:
        return False
    if isinstance(value, dict):
        return all(isinstance(k, str) and is_plain(v, depth + 1) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(is_plain(part, depth + 1) for part in value)
    return value is None or isinstance(value, (bool, int, float, str))


RECIPE = {
    "arch": text,
    "epochs": whole(1, 10**6),
    "batch_size": whole(1, 10**6),
    "test_bs": whole(1, 10**6),
    "oe_batch_size": whole(1, 10**6),
    "learning_rate": number(0, 1e6),
    "momentum": number(0, 1),
    "decay": number(0, 1e6),
    "droprate": number(0, 1),
    "layers": whole(1, 1500),  # more take too long to be made
    "widen_factor": whole(1, 10**4),
    "padding": whole(0, 10**4),
    "outlier_padding": whole(0, 10**4),
    "outlier_norm": text,
    "preset": text,
    "precision": one_of("auto", "fp32", "bf16"),
    "loss": text,
    "auto_margins": flag,
    "balance": flag,
    "accumulate": whole(1, 10**6),
    "streams": whole(1, 1000),
    "seed": whole(0, 2**63),
}
# key -> what its value must be; all but "arch" may be missing or null
DESCRIPTION = {
    "num_classes": whole(1, 10**6),
    "layers": RECIPE["layers"],
    "widen_factor": RECIPE["widen_factor"],
    "droprate": RECIPE["droprate"],
    "image_size": whole(1, 10**4),
    "mean": statistics,
    "std": lambda value: statistics(value) and min(value) > 0,
    "split": number(0, 1),
    "dataset": text,
    "data": text,
    "data_fingerprint": text,
    "train_images": whole(0, 2**40),
    "classes": names,
    "classifier": flag,
    "loss": text,
    "score": text,
    "stage": one_of("pretrain", "tune"),
    "parent": text,
    "parent_sha256": text,
    "sha256": text,
    "seed": RECIPE["seed"],
    "epoch": whole(-1, 10**6),
    "id_accuracy": number(0, 100),
    "id_accuracy_before": number(0, 100),
    "recipe": record,
    "outliers": record,
    "validation_ood": records,
    "computed": record,
    "versions": record,
}
# what is said of a set of images
IMAGES = {"name": text, "fingerprint": text} | dict.fromkeys(("images", "skipped"), whole(0, 2**40))
STATE = {
    "epoch": whole(-1, 10**6),
    "best": lambda value: type(value) in (int, float) and value >= 0,  # infinite before the first
    "best_epoch": whole(0, 10**6),
    "recipe": record,
    "given": record,
    "computed": record,
    "data": text,
    "parent": text,
    "outliers": text,
}
GIVEN = {"image_size": whole(1, 10**4), "split": number(0, 1), "accumulate": whole(1, 10**6)}
GIVEN |= dict.fromkeys(("skip_bad", "deterministic", "balance", "new_head"), flag)
GIVEN |= dict.fromkeys(("id", "data", "outliers", "load", "preset", "validation_ood"), text)
GIVEN |= {"device": one_of("auto", "cpu", "cuda", "mps"), "mean": text, "std": text}
GIVEN |= {"precision": one_of("auto", "fp32", "bf16")}
GIVEN |= dict.fromkeys(("compile", "stream"), one_of("auto", "on", "off"))
COMPUTED = {"fused": flag, "deterministic": flag} | dict.fromkeys(
    ("threads", "ranks"), whole(1, 10**6)
)
COMPUTED |= dict.fromkeys(("device", "precision", "torch", "cpu"), text)


def check(content: dict, schema: dict, where: str | Path, advice: str) -> None:
    """UserError that names the first value which is not what its key says."""
    for key, fits in schema.items():
        if content.get(key) is not None and not fits(content[key]):
            shown = repr(content[key])[:60] if is_plain(content[key]) else "no such value"
            raise UserError(f"{where}: '{key}' is {shown}, which it cannot be. {advice}")


def check_made(content: dict, where: str | Path, advice: str) -> None:
    """UserError unless what is said of a snapshot, here or in a result, is of the right kinds."""
    check(content, DESCRIPTION, where, advice)
    check(content.get("recipe") or {}, RECIPE, where, advice)
    for part in (content.get("outliers") or {}, *(content.get("validation_ood") or ())):
        check(part, IMAGES, where, advice)


def check_description(content: Any, where: str | Path) -> dict:
    """The description of a snapshot, as read from its .json; UserError where it is none."""
    advice = "Remove that file, and names and shapes are read off the weights instead"
    if not isinstance(content, dict):
        raise UserError(f"{where} does not describe a snapshot. {advice}")
    check_made(content, where, advice)
    classes, count = content.get("classes"), content.get("num_classes")
    if classes and count is not None and len(classes) > count:
        raise UserError(f"{where} names {len(classes)} classes of {count}. {advice}")
    return content


def check_state(state: Any, where: str | Path) -> dict:
    """The state of an interrupted run; UserError where it is none."""
    advice = "Remove it and run the same command without --resume"
    needed = {"epoch", "model", "optimizer", "recipe", "rows", "best", "data"}
    if not (isinstance(state, dict) and needed <= set(state) and state["recipe"] is not None):
        raise UserError(f"{where} is not the state of an interrupted run. {advice}")
    check(state, STATE, where, advice)
    recipe, given = state["recipe"], state.get("given", {})
    missing = given is None or None in given.values()
    if missing or any(recipe.get(key, 0) is None for key in RECIPE):
        raise UserError(f"{where}: a value of 'given' or 'recipe' is missing. {advice}")
    check(state["recipe"], RECIPE, where, advice)
    check(state.get("given") or {}, GIVEN, where, advice)
    check(state.get("computed") or {}, COMPUTED, where, advice)
    numbers = (state["epoch"], state["best"])
    rows, columns = state["rows"], {"epoch", "time(s)", "train_loss", "test_loss", "test_error(%)"}
    if (
        None in numbers
        or not isinstance(rows, list)
        or len(rows) != state["epoch"] + 1
        or not all(record(row) and columns <= set(row) == set(rows[0]) for row in rows)
        or not all(number(-1e30, 1e30)(value) for row in rows for value in row.values())
    ):
        raise UserError(f"{where}: its epoch and its log do not agree. {advice}")
    for key in ("model", "head"):
        if key in state or key == "model":
            check_weights(state.get(key), f"{where} ({key})")
    check_optimizer(state["optimizer"], where, advice)
    return state


def check_weights(state: Any, where: str | Path) -> None:
    """UserError unless it is {name: tensor}, of tensors whose numbers lie in the file."""
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in state.items()
    ):
        raise UserError(f"{where} holds no state_dict")
    for name, value in state.items():
        wrong = wrong_tensor(value)
        if wrong:
            raise UserError(f"{where}: '{name}' is {wrong}, which no weight is")


def wrong_tensor(value: torch.Tensor) -> str:
    """What is wrong with a tensor that a file gave, "" where nothing is."""
    if value.is_nested:  # it has no shape
        return "a nested tensor"
    if value.layout != torch.strided or value.is_quantized:
        return f"a {str(value.layout).removeprefix('torch.')} tensor"
    if value.device.type != "cpu":
        return f"a tensor of the device {value.device.type}"
    if value.is_complex():
        return f"of {str(value.dtype).removeprefix('torch.')}"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"of shape {tuple(value.shape)} out of fewer numbers"
    return ""


def check_optimizer(content: Any, where: str | Path, advice: str) -> None:
    groups = content.get("param_groups") if isinstance(content, dict) else None
    buffers = content.get("state") if isinstance(content, dict) else None
    good = (
        isinstance(groups, list)
        and isinstance(buffers, dict)
        and all(record(group) and isinstance(group.get("params"), list) for group in groups)
        and all(number(0, 1e6)(g.get(k)) for g in groups for k in ("lr", "momentum"))
        and all(number(0, 1e6)(g.get("weight_decay")) for g in groups)
        and all(isinstance(value, dict) for value in buffers.values())
    )
    if good:
        values = [v for value in buffers.values() for v in value.values() if v is not None]
        good = all(torch.is_tensor(v) and not wrong_tensor(v) for v in values)
    if not good:
        raise UserError(f"{where}: what it keeps of the optimiser is none. {advice}")
