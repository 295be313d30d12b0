"""Validation OOD images are kept apart from what is tested on: no image may be in both."""

from collections.abc import Callable
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
