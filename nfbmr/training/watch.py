"""Watching the loss: its mean over an epoch, and whether it runs away."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nfbmr.errors import DivergenceError
from nfbmr.workers import SINGLE_PROCESS, ProcessGroup

_WINDOW = 16
_RUNAWAY = 100.0


@dataclass
class Tally:
    """What is known of the losses so far; plain numbers, stored with a checkpoint.

    Attributes:
        total: Sum over the epoch's images.
        images: Images of the epoch so far.
        first: Loss of the very first step.
    """

    total: float = 0.0
    images: int = 0
    first: float | None = None

    @property
    def mean(self) -> float:
        """Mean loss of the epoch so far."""
        return self.total / self.images if self.images else math.nan


class LossMonitor:
    """Collects the loss of each step on the device, and reads it back a window at a time.

    Reading a number back makes the host wait for the device, so it is done every ``WINDOW`` steps, at the
    end of an epoch and before a checkpoint. Losses are normalised by C * H * W, so of the order of one
    whatever the features: a median over the window of more than ``RUNAWAY`` above the first loss (times the
    first, where that is larger) counts as running away. A single wild step does not, unless it is not
    finite.

    Args:
        stage: The stage's name, for the error.
        tally: Where to add to.
        device: Where losses are.
        workers: Whose losses these are together: the mean of theirs is the loss.
    """

    def __init__(
        self, stage: str, tally: Tally, device: torch.device, workers: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.stage, self.tally, self.workers = stage, tally, workers
        self._losses = torch.zeros(_WINDOW, device=device)
        self._steps: list[tuple[int, int]] = []  # (step, images) of each loss not yet read back

    def add(self, loss: Tensor, *, epoch: int, step: int, images: int) -> None:
        """Note a step's loss; now and then, look at the last few.

        Raises:
            DivergenceError: See :meth:`read`.
        """
        self._losses[len(self._steps)] = loss.detach()
        self._steps.append((step, images))
        if len(self._steps) == _WINDOW:
            self.read(epoch)

    def read(self, epoch: int) -> None:
        """Add the losses noted so far to the tally.

        Raises:
            DivergenceError: One is not finite, or together they have run away.
        """
        losses = self._losses[: len(self._steps)].tolist()
        if self.workers.count > 1:  # the mean over workers
            by_step = zip(*self.workers.all_gather(losses), strict=True)
            losses = [sum(step) / self.workers.count for step in by_step]
        for loss, (step, images) in zip(losses, self._steps, strict=True):
            if not math.isfinite(loss):
                raise diverged(self.stage, f"the loss is {loss}", epoch, step)
            if self.tally.first is None:
                self.tally.first = loss
            self.tally.total += loss * images
            self.tally.images += images
        if losses and self.tally.first is not None:
            limit = self.tally.first + _RUNAWAY * max(1.0, abs(self.tally.first))
            median = sorted(losses)[len(losses) // 2]
            if median > limit:
                what = f"the loss ran away, from {self.tally.first:.3g} to {median:.3g}"
                raise diverged(self.stage, what, epoch, self._steps[-1][0])
        self._steps.clear()


def diverged(stage: str, what: str, epoch: int, step: int) -> DivergenceError:
    """The error that says what to change; epoch and step count from 0, people from 1."""
    also = ", or a smaller flow.clamp" if stage == "flow" else ""
    return DivergenceError(
        f"training diverged: {what}",
        where=f"stage {stage}, epoch {epoch + 1}, step {step + 1}",
        fix=f"lower train.{stage}.lr (a third of it is a good first try), set train.{stage}.clip=1, "
        f"train.precision=fp32{also}; the last good checkpoint is kept",
    )
