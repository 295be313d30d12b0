"""Plain networks: those of torchvision, timm or a user's own file that were written for another
purpose. Logits alone, a head of any name, the number of classes under any name or under none.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

PACKAGES = {"timm": "timm.models", "torchvision": "torchvision.models"}
# what functions call the number of classes
CLASS_NAMES = (
    *("num_classes", "n_classes", "nclasses", "nb_classes", "number_of_classes", "numclasses"),
    *("num_class", "n_class", "nclass", "class_num", "classes", "num_labels", "n_labels"),
    *("num_outputs", "n_outputs", "out_features", "output_dim", "out_dim", "num_out", "n_out"),
)
SIZES = (32, 224, 28, 64, 96, 128, 299)  # sides that are tried where none is known


def package_function(arch: str) -> Callable:
    """The function of ``timm:NAME`` or ``torchvision:NAME``, one of the package's own list of image
    classifiers; ValueError where the package is not installed or has no such network.
    """
    package, _, name = arch.partition(":")
    try:
        module = importlib.import_module(PACKAGES[package])
    except ImportError as error:
        raise ValueError(
            f"'{arch}' needs the package {package} ({error}). Run: pip install {package}"
        ) from None
    known = module.list_models(**({"module": module} if package == "torchvision" else {}))
    if name not in known:
        close = ", ".join(difflib.get_close_matches(name, known, 5))
        advice = f"Near to it: {close}" if close else f"It has {', '.join(known[:5])}, ..."
        raise ValueError(f"{package} has no network '{name}'. {advice}")
    return getattr(module, name)


def count_numbers(arch: str, num_classes: int) -> int:
    """How many numbers a network of ``timm:NAME`` or ``torchvision:NAME`` has; none of them takes
    memory. 0 where it cannot be made without.
    """
    function = package_function(arch)
    try:
        with torch.device("meta"):
            model = call_builder(function, num_classes)
        return sum(value.numel() for value in model.state_dict().values())
    except Exception:  # it computes with what it has just made
        return 0


def call_builder(function: Callable, num_classes: int) -> Any:
    """What a function returns when it is told the number of classes in the way it takes it: by one
    of CLASS_NAMES, among its ``**keywords``, as its first argument, or not at all.

    The first argument is only taken for it where it has no default or a whole number.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C
        return function(num_classes)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    name = next((name for name in CLASS_NAMES if name in named), None)
    if name:
        return function(**{name: num_classes})
    if parameters and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    ):
        default = parameters[0].default
        if default is inspect.Parameter.empty or type(default) is int:
            return function(num_classes)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return function(num_classes=num_classes)
    return function()


class Trace(NamedTuple):
    """One pass in evaluation: what forward returned, and of each linear layer in the order in which
    they were called the layer, its input and its output.
    """

    result: Any
    linear: list[tuple[nn.Linear, torch.Tensor, torch.Tensor]]


def trace(model: nn.Module, arch: str, image_size: int | None = None, blank: bool = True) -> Trace:
    """The Trace of two images of ``image_size``, else of the first of SIZES that runs; ValueError
    when none does. Blank images, or a pattern: a new network may answer a blank one with zeros
    everywhere.
    """
    sizes = dict.fromkeys(([image_size] if image_size else []) + list(SIZES))
    training, reasons = model.training, []
    model.eval()
    try:
        for size in sizes:
            seen = []

            def note(layer, inputs, output, seen=seen):
                if inputs and torch.is_tensor(inputs[0]):
                    seen.append((layer, inputs[0], output))

            layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
            hooks = [layer.register_forward_hook(note) for layer in layers]
            try:
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    pixels = torch.arange(2 * 3 * size * size).reshape(2, 3, size, size)
                    return Trace(model((0.0 if blank else 0.37) * pixels.float().sin()), seen)
            except Exception as error:  # whatever the user's forward raises
                reasons.append(f"{type(error).__name__}: {error}".partition("\n")[0])
            finally:
                for hook in hooks:
                    hook.remove()
    finally:
        model.train(training)
    raise ValueError(
        f"'{arch}' runs on images of neither 32x32 nor 224x224 pixels, nor of other usual sizes "
        f"({reasons[0]})"
    )


def tensors_of(result: Any) -> list[torch.Tensor]:
    """The tensors that a forward returned: alone, in a tuple or in a dict."""
    parts = result.values() if isinstance(result, dict) else result
    parts = parts if isinstance(result, (dict, tuple, list)) else [result]
    return [part for part in parts if torch.is_tensor(part)]


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4)


def adapt(model: nn.Module, arch: str, num_classes: int, found: Trace) -> nn.Module:
    """The network with a forward that returns (logits (N,C), features (N,D)), and nothing else of
    it changed: neither its parameters' names nor what it computes.

    The logits are the output of its last linear layer where forward returns that, or a softmax of
    it; the features are that layer's input. Where forward returns something else of shape (N,C) it
    is the logits, the features are the input of the last linear layer, and there is no head. Where
    there is no linear layer the features are (N,0). TypeError or ValueError: no logits (N,C).
    """
    outputs = tensors_of(found.result)
    flat = [
        (layer, x, y) for layer, x, y in found.linear if x.ndim == 2 and y.ndim == 2 and len(y) == 2
    ]
    heads = [
        (layer, x)
        for layer, x, y in flat
        for output in outputs
        if same(y, output) or same(y.softmax(1), output) or same(y.log_softmax(1), output)
    ]
    logits = [o for o in outputs if o.ndim == 2 and len(o) == 2]
    if heads:
        source, x = heads[-1]
        classes, head = source.out_features, source
    elif logits:
        fits = [o for o in logits if o.shape[1] == num_classes] or logits
        classes, head = fits[0].shape[1], None
        source, x = flat[-1][:2] if flat else (None, None)
    else:
        shapes = ", ".join(str(tuple(o.shape)) for o in outputs) or type(found.result).__name__
        raise TypeError(
            f"'{arch}': forward must return logits (N,{num_classes}), or a pair (logits, features) "
            f"with a linear head as .fc; for N = 2 it returned {shapes}"
        )
    if classes != num_classes:
        raise ValueError(
            f"'{arch}' returned a network with {classes} classes, asked for {num_classes}"
        )
    place = fits_place(outputs, num_classes) if head is None else None
    model.__dict__["plain"] = Plain(head, source, place)
    width = x.shape[1] if source is not None else 0
    for name, value in (("feature_dim", width), ("num_classes", num_classes), ("fc", head)):
        if not hasattr(model, name):
            model.__dict__[name] = value  # not as a part: parameters would have two names
    if source is not None:
        source.register_forward_hook(keep)
    model.register_forward_hook(as_pair)
    return model


class Plain:
    """Which of a plain network's modules is its linear head, or None, and from which its features
    come, or None; ``place`` of the logits among the tensors returned, where there is no head.
    """

    def __init__(self, head: nn.Linear | None, source: nn.Linear | None, place: int | None):
        self.head, self.source, self.place = head, source, place


def fits_place(outputs: list[torch.Tensor], num_classes: int) -> int:
    """The place of the first (N,C) among the tensors returned."""
    return next(i for i, o in enumerate(outputs) if o.ndim == 2 and o.shape[1] == num_classes)


# Hooks use what they are given alone: a copy of the network has the copy's layers.


def keep(layer: nn.Linear, inputs: tuple, output: torch.Tensor) -> None:
    """Leave a layer's input and output on it until ``as_pair`` takes them."""
    layer.seen = (inputs[0], output)


def as_pair(model: nn.Module, inputs: tuple, result: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits, features) in the precision of the weights."""
    plain = model.plain
    if plain.source is None:
        logits = tensors_of(result)[plain.place].float()
        return logits, logits[:, :0]
    features, logits = plain.source.seen
    plain.source.seen = None
    if plain.head is None:
        logits = tensors_of(result)[plain.place]
    dtype = plain.source.weight.dtype
    return logits.to(dtype), features.to(dtype)


def linear_head(model: nn.Module) -> nn.Linear | None:
    """The linear layer that turns a network's features into its logits; None where there is none,
    as in a network that ends in a convolution.
    """
    plain = getattr(model, "plain", None)
    return plain.head if isinstance(plain, Plain) else model.fc


def feature_width(model: nn.Module) -> int:
    """D of a network's features (N,D): 0 for one without a linear layer."""
    plain = getattr(model, "plain", None)
    if not isinstance(plain, Plain):
        return model.fc.in_features
    return plain.source.in_features if plain.source is not None else 0
