"""Validation OOD images are kept apart from what is tested on: no image may be in both."""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from utils.runtime import UserError

from .leaks import find_exact, pixel_numbers
from .sets import ImageSet


def in_both(test: ImageSet, images: ImageSet) -> np.ndarray:
    """bool (N,): which of the images are, pixel by pixel, in the test set."""
    return find_exact(test, images, (pixel_numbers(test), pixel_numbers(images))) >= 0


def check_apart(
    validation: list, tests: list, shared: Callable[[Any, Any], np.ndarray] = in_both
) -> None:
    """UserError where a set of --validation-ood has an image in common with a test set;
    ``shared`` says which of the images of the second set are in the first.
    """
    for images in validation:
        for test in tests:
            common = np.flatnonzero(shared(test, images))
            if len(common):
                names = images.names
                first = names[common[0]] if names else f"number {common[0]}"
                raise UserError(
                    f"--validation-ood '{images.name}' ({images.source}) has {len(common)} of its "
                    f"{len(images)} images in common with the test set '{test.name}', the first is "
                    f"{first}: what is chosen on them cannot be tested on them. Give others"
                )


KEPT = 10_000  # numbers of a set's images that a description has at most


def describe_used(images: ImageSet) -> dict[str, Any]:
    """What a snapshot records of a set that its hyper-parameters were chosen on: what a result file
    says of it, and ``pixels``, the KEPT smallest numbers of its images' bytes (uint64, base64), by
    which a part of the set is known later.
    """
    numbers = np.unique(pixel_numbers(images))[:KEPT]
    packed = base64.b64encode(numbers.astype("<u8").tobytes()).decode()
    return {**images.describe(), "size": images.images.shape[-1], "pixels": packed}


def count_used(test: ImageSet, used: Mapping[str, Any]) -> int:
    """How many images of a test set are in a set that ``describe_used`` has described: all of one
    with its fingerprint; else those with the number of one of its images, 0 where these had another
    size.
    """
    if test.fingerprint == used.get("fingerprint"):
        return len(test)
    try:
        packed = base64.b64decode(used.get("pixels", ""), validate=True)
        known = np.frombuffer(packed, "<u8")
    except (binascii.Error, ValueError, TypeError):  # none that was written here
        return 0
    if not len(known) or used.get("size") != test.images.shape[-1]:
        return 0
    return int(np.isin(pixel_numbers(test), known).sum())
