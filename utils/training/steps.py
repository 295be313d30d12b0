"""The terms of a loss over the steps of an epoch, and what is said where they are no numbers."""

import math
import time

import torch

from utils.losses import Loss
from utils.runtime import UserError

CHECK_EVERY = 25  # steps between looks at the losses: reading a value makes the device wait


class StepLog:
    """The terms of an epoch's steps, kept on the device and read every CHECK_EVERY passes;
    ``seconds`` of the epoch.

    UserError with the number of the first step whose terms do not have a finite sum; it names the
    gradient by the images where that of the ``loss`` is what is not finite.
    """

    def __init__(self, first_step: int, loss: Loss | None = None):
        self.first_step, self.pending, self.sums, self.steps = first_step, [], {}, 0.0
        self.loss = loss
        self.start, self.seconds = time.perf_counter(), math.nan

    def add(self, terms: dict[str, torch.Tensor], share: float = 1.0) -> None:
        """terms: name -> scalar tensor, of this share of a step's images."""
        values = torch.stack([term.detach() for term in terms.values()])
        self.pending.append((share, values, self.loss.finite if self.loss else None))
        self.names = list(terms)
        if len(self.pending) == CHECK_EVERY:
            self.check()

    def check(self) -> None:
        if not self.pending:
            return
        shares, values, finite = zip(*self.pending)
        values = torch.stack(values).cpu().double()
        self.pending = []
        wrong = (~torch.isfinite(values.sum(dim=1))).nonzero()
        if len(wrong):
            first = int(wrong[0])
            # shares of whole steps add up to 1 but for their rounding
            step = self.first_step + int(self.steps + sum(shares[:first]) + 1e-6)
            raise UserError(self.explain(step, values[first].tolist(), finite[first]))
        weights = torch.tensor(shares, dtype=torch.float64)
        for name, value in zip(self.names, (weights @ values).tolist()):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += sum(shares)

    def explain(self, step: int, values: list[float], finite: torch.Tensor | None) -> str:
        """What to say of a step whose terms have these values, and whose images gradients that are
        ``finite``, (N,) bool, where the loss has any.
        """
        parts = ", ".join(f"{name} {value:g}" for name, value in zip(self.names, values))
        others = [v for name, v in zip(self.names, values) if name != "gradient"]
        if finite is not None and not finite.all() and all(map(math.isfinite, others)):
            return (
                "the norm of the energy's gradient by the image is not finite for "
                f"{int((~finite).sum())} of {len(finite)} images at step {step} ({parts}); the "
                "last good snapshot is kept. Try a smaller --learning_rate or --grad_weight"
            )
        return (
            f"the loss is not finite at step {step} ({parts}); the last good snapshot is kept. "
            "Try a smaller --learning_rate"
        )

    def means(self) -> dict[str, float]:
        """Mean of each term over the steps; the epoch's training ends here."""
        self.check()
        self.seconds = time.perf_counter() - self.start
        return {name: value / self.steps for name, value in self.sums.items()}
