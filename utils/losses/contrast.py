"""What losses of pairs of images share: two views, a projection head, unit vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.runtime import UserError

from .base import Batch, Loss


class Contrast(Loss):
    """A loss of pairs of images: it sees the head's unit vectors of both views, and no logits.

    The head D-D-ReLU-128 is trained beside the network and is no part of the snapshot. The
    schedule warms up over the first tenth of the epochs and ends at a thousandth of the learning
    rate. Recipe: [ReweightOOD], for both losses alike, so that they may be compared.
    """

    stages = ("pretrain",)
    score = "mahalanobis++"
    views = 2
    head = True
    features = True
    warmup = 0.1
    final = 1e-3
    help = {"tau": "temperature of the cosines"}
    defaults = {"tau": 0.1}
    recipe = {"batch_size": 512, "decay": 1e-4}
    per_dataset = {"digits": {"batch_size": 128}}
    origin = "[ReweightOOD]"
    origins = {"digits": "this project"}

    def check(self) -> None:
        if not 0 < self.tau < float("inf"):
            raise ValueError(f"tau {self.tau:g} is not a number above 0")

    def make_head(self, feature_dim: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(feature_dim, feature_dim), nn.ReLU(), nn.Linear(feature_dim, 128)
        )

    def similarities(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cosines s (n,n) float32 of the projected rows and whether two rows are of one class
        (n,n) bool; UserError where all are.
        """
        if (batch.y == batch.y[0]).all():
            raise UserError(
                f"--loss {self.name} compares images of different classes; a batch of "
                f"{len(batch.y) // self.views} has one class only. Train with a larger --batch_size"
            )
        # half precision would round cosines, which tau makes ten times as large
        with torch.autocast(device_type=batch.features.device.type, enabled=False):
            z = F.normalize(self.projection(batch.features.float()), dim=1)
            return z @ z.T, batch.y[:, None] == batch.y
