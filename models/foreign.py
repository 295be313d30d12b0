"""Networks of others: a function of your own, and what the names and shapes of a
file tell of its network.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable

import torch
from torch import nn

import models

from .plain import PACKAGES, adapt, package_function, trace

# what published files call the head (ResNet and AllConvNet) -> what every network here calls it
HEAD_ALIASES = {"linear.": "fc.", "classifier.": "fc."}


def load_function(arch: str) -> Callable:
    """The function that ``module:function`` names; ValueError when there is none.

    Only then is the current folder on Python's path: a package that is not installed is not taken
    from there because a file names it.
    """
    module_name, _, function_name = arch.partition(":")
    if module_name in PACKAGES:
        return package_function(arch)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(
            f"'{arch}': module '{module_name}' cannot be imported from the current folder "
            f"or Python's path ({type(error).__name__}: {error})"
        ) from error
    if function is None:
        raise ValueError(f"'{arch}': module '{module_name}' has no function '{function_name}'")
    return function


def check_contract(
    model: nn.Module, arch: str, num_classes: int, image_size: int | None = None
) -> nn.Module:
    """The user's own network as one that ``build`` promises, else TypeError or ValueError with what
    is amiss.

    One that returns a pair and has its head as .fc is taken at its word, and must keep it; any
    other is adapted (plain.py). ``image_size``: the side of the images it is tried with.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"'{arch}' returned a {type(model).__name__}, not a torch.nn.Module")
    found, head = trace(model, arch, image_size), getattr(model, "fc", None)
    if not (isinstance(head, nn.Linear) and is_pair(found.result)):
        found = trace(model, arch, image_size, blank=False)
        model = adapt(model, arch, num_classes, found)
        if type(model.plain.head) is nn.Linear:
            model.plain.head.__class__ = FullPrecisionLinear
        return model
    for name, value in (("feature_dim", head.in_features), ("num_classes", head.out_features)):
        if not hasattr(model, name):
            setattr(model, name, value)
        elif getattr(model, name) != value:
            raise ValueError(
                f"'{arch}' returned a network with {name} {getattr(model, name)} "
                f"but a head for {value}"
            )
    if head.out_features != num_classes:
        raise ValueError(
            f"'{arch}' returned a network with {head.out_features} classes, asked for {num_classes}"
        )
    logits, features = found.result
    if features.shape != (2, head.in_features) or logits.shape != (2, num_classes):
        raise ValueError(
            f"'{arch}': forward must return logits (N,{num_classes}) and features "
            f"(N,{head.in_features}); for N = 2 it returned {tuple(logits.shape)} and "
            f"{tuple(features.shape)}"
        )
    with torch.no_grad():
        if not torch.allclose(head(features), logits, rtol=1e-3, atol=1e-4):
            raise ValueError(
                f"'{arch}': forward must return the input of .fc as features; "
                "fc(features) is not logits"
            )
    if type(head) is nn.Linear:
        head.__class__ = FullPrecisionLinear
    model.register_forward_hook(in_weights_precision)
    return model


def is_pair(result: object) -> bool:
    """Whether a forward returned two tensors."""
    return (
        isinstance(result, (tuple, list))
        and len(result) == 2
        and all(torch.is_tensor(r) for r in result)
    )


def in_weights_precision(model: nn.Module, inputs: tuple, outputs: tuple) -> tuple:
    """A hook: logits and features in the precision of the head's weights."""
    return tuple(part.to(model.fc.weight.dtype) for part in outputs)


class FullPrecisionLinear(nn.Linear):
    """A linear head computed in its weights' own precision under bf16 autocast too, as the
    project's networks compute theirs.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device_type=x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


def strip_prefix(name: str) -> str:
    """A parameter's name without what DataParallel and torch.compile put before it."""
    return re.sub(r"^((module|_orig_mod)\.)+", "", name)


def clean_name(name: str) -> str:
    """A parameter's own name: without what DataParallel and torch.compile put before it, a
    published head as ``fc``.
    """
    name = strip_prefix(name)
    alias = next((alias for alias in HEAD_ALIASES if name.startswith(alias)), None)
    return HEAD_ALIASES[alias] + name[len(alias) :] if alias else name


def clean_names(state: dict) -> dict:
    """The weights of a file under their own names; where two would get one name, as in a network
    with a ``linear`` and an ``fc``, heads keep theirs.
    """
    cleaned = {clean_name(name): value for name, value in state.items()}
    if len(cleaned) == len(state):
        return cleaned
    return {strip_prefix(name): value for name, value in state.items()}


def count_classes(state: dict) -> int:
    """Rows of the head of a file: of ``fc`` where nothing else in it is called as heads are, else
    of its last matrix; 10 where it has none.
    """
    matrices = [name for name, value in state.items() if value.ndim == 2]
    heads = [name for name in matrices if clean_name(name) == "fc.weight"]
    name = heads[0] if len(heads) == 1 else (matrices or [None])[-1]
    return 10 if name is None else len(state[name])


def infer(state_dict: dict) -> dict | None:
    """dict(arch, num_classes, layers, widen_factor) of a file without description,
    or None when no network here fits.

    Reads names and shapes only, with or without the prefixes of DataParallel and torch.compile and
    under any name of the head. ``layers`` and ``widen_factor`` are None where the network has none.
    What is returned fits: every parameter and statistic of it is in the file with its shape, and
    nothing else is (counters apart: num_batches_tracked and other single numbers, () or (1,)).
    """
    shapes = {}
    for name, value in state_dict.items():
        shapes[clean_name(name)] = tuple(getattr(value, "shape", ()))
    description = guess(shapes)
    if description is None:
        return None
    given = {key: value for key, value in description.items() if value is not None}
    try:
        with torch.device("meta"):
            expected = {
                name: tuple(value.shape)
                for name, value in models.build(**given).state_dict().items()
            }
    except ValueError:
        return None

    def counted(named):
        return {
            name: shape
            for name, shape in named.items()
            if shape not in ((), (1,))  # counters
        }

    return description if counted(shapes) == counted(expected) else None


def guess(shapes: dict[str, tuple]) -> dict | None:
    """The only description that {name: shape} could have, read off a few telling names;
    None when these are missing.
    """
    if len(shapes.get("fc.weight", ())) != 2:
        return None
    description = {
        "arch": None,
        "num_classes": shapes["fc.weight"][0],
        "layers": None,
        "widen_factor": None,
    }
    if "features.0.weight" in shapes:
        return {**description, "arch": "allconv"}
    if "trans1.conv1.weight" in shapes:
        return {**description, "arch": "densenet"}
    if "layer1.0.conv1.weight" in shapes:
        return {
            **description,
            "arch": "resnet34" if "layer1.2.conv1.weight" in shapes else "resnet18",
        }
    if "block1.layer.0.conv1.weight" in shapes:
        blocks = sum(
            bool(re.fullmatch(r"block1\.layer\.\d+\.conv1\.weight", name)) for name in shapes
        )
        widen_factor = shapes["block1.layer.0.conv1.weight"][0] // 16
        return {
            **description,
            "arch": "wrn",
            "layers": 6 * blocks + 4,
            "widen_factor": widen_factor,
        }
    return None
