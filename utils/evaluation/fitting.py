"""Whether a score fits a network, and what it gave the images."""

import numpy as np
import torch

import models
from utils import scores
from utils.loaders import ImageSet
from utils.runtime import UserError


def check_needs(model: torch.nn.Module, score: scores.Score) -> None:
    """UserError where a score needs features or a head that a network does not have."""
    if getattr(score, "own", False):  # a function of the user's own may do without
        return
    lacks = "features" in score.needs and not models.feature_width(model)
    if lacks or ("head" in score.needs and models.linear_head(model) is None):
        others = [name for name, one in scores.SCORES.items() if set(one.needs) == {"logits"}]
        what = "no linear layer" if lacks else "no linear layer whose output is its logits"
        raise UserError(
            f"score '{score.label}' needs {', '.join(score.needs)}, and this network has {what}. "
            f"By its logits alone it is scored with: {', '.join(others)}"
        )


def checked_values(score: scores.Score, outputs: scores.Outputs, images: ImageSet) -> np.ndarray:
    """(N,) float64 scores of a set's outputs; UserError where one is NaN, or they are not N."""
    values = np.asarray(score.score(outputs), dtype=np.float64)
    if values.shape != (len(images),):
        raise UserError(
            f"score '{score.label}' gave an array of shape {values.shape} for {len(images)} "
            f"images of '{images.name}'"
        )
    if np.isnan(values).any():
        raise UserError(
            f"score '{score.label}' of image {int(np.argmax(np.isnan(values)))} "
            f"of '{images.name}' is NaN"
        )
    return values
