"""What is told of a network from outside: its work, its code, its head."""

import hashlib
import importlib
import inspect
from pathlib import Path

import numpy as np
import torch

import models
from utils.loaders import ImageSet, check_fits


def multiply_adds(model: torch.nn.Module, images: ImageSet) -> float:
    """Multiplications of one image's forward pass in convolutions and linear layers."""
    counts = []

    def count(module, inputs, output):
        outputs = output.numel() / len(output)
        counts.append(outputs * module.weight.numel() / module.weight.shape[0])

    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        check_fits(model, images)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counts)


def digest(*parts: object) -> str:
    """Short sha256 of bytes and of other values as text."""
    return hashlib.sha256(
        b"\0".join(p if isinstance(p, bytes) else str(p).encode() for p in parts)
    ).hexdigest()[:16]


def own_code(model: torch.nn.Module, arch: str) -> list[bytes]:
    """What tells a user's own network from others with the same weights:
    its name, its modules, their source files.

    Files count because nobody raises FORWARD when they change: those of all its modules, which may
    lie in several, and the one that ``module:function`` names.
    """
    if arch in models.MODELS:
        return []
    ours = (Path(models.__file__).parent, Path(torch.__file__).parent)
    parts = {type(module) for module in model.modules()}
    if ":" in arch:
        parts.add(importlib.import_module(arch.partition(":")[0]))
    files = set()
    for part in parts:
        try:
            files.add(Path(inspect.getfile(part)))
        except (TypeError, OSError):  # made without a file
            continue
    own = [
        file.read_bytes()
        for file in sorted(files)
        if not any(file.is_relative_to(place) for place in ours)
    ]
    return [f"{arch} {model}".encode(), *own]


def head_arrays(model: torch.nn.Module) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Copies of the head's weight (C,D) and bias (C,) float32; None of a network without one."""
    head = models.linear_head(model)
    if head is None:
        return None, None
    weight = head.weight.detach().float().cpu().numpy().copy()
    if head.bias is None:
        return weight, np.zeros(len(weight), np.float32)
    return weight, head.bias.detach().float().cpu().numpy().copy()
