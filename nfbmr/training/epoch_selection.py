"""Which epoch's weights a stage keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from nfbmr.scoring.ranking import difference_error


@dataclass(frozen=True)
class ValidationResult:
    """What validation says of an epoch.

    Attributes:
        metrics: For the history. ``objective``, the higher the better, chooses the epoch; ``validation_loss``
            decides between epochs that it cannot tell apart.
        influence_U: What each independent unit adds to the objective, (U,): two epochs are told apart by the
            standard error of their difference. None: by the objective alone.
    """

    metrics: Mapping[str, float]
    influence_U: Tensor | None = None


@dataclass
class _Judged:
    """An epoch and what validation said of it."""

    epoch: int = -1
    objective: float = -math.inf
    loss: float | None = None
    influence_U: Tensor | None = None


@dataclass
class BestEpoch:
    """The epoch that is kept: as good as the best one as far as validation can tell, and most plausible.

    Epochs are judged on the same images, so what tells them apart is the standard error of their
    *difference*, far below that of either where both rank the same images wrongly. Among those within one
    such error of the best objective the one with the lowest loss on held-out good images is kept (of equals,
    or where the loss is not known, the latest): training longer than held-out parts bear is memorising.
    """

    best: _Judged = field(default_factory=_Judged)
    kept: _Judged = field(default_factory=_Judged)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def epoch(self) -> int | None:
        """The one that is kept, from 0; None before the first verdict."""
        return self.kept.epoch if self.kept.epoch >= 0 else None

    def update(self, epoch: int, verdict: ValidationResult, module: nn.Module) -> None:
        """Look at an epoch's weights, which `module` has now."""
        metrics = verdict.metrics
        new = _Judged(epoch, metrics["objective"], metrics.get("validation_loss"), verdict.influence_U)
        if new.objective >= self.best.objective:
            self.best = new
        if not self._as_good_as_best(new):
            return
        likelier = new.loss is None or self.kept.loss is None or new.loss <= self.kept.loss
        if likelier or not self._as_good_as_best(self.kept):
            self.kept = new
            self.weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def _as_good_as_best(self, judged: _Judged) -> bool:
        tolerance = 0.0
        if judged.influence_U is not None and self.best.influence_U is not None:
            tolerance = difference_error(judged.influence_U, self.best.influence_U)
        return judged.objective >= self.best.objective - tolerance

    # -- in checkpoints

    def state_dict(self) -> dict[str, Any] | None:
        """All but tensors, as JSON holds it; None before the first verdict."""
        if self.epoch is None:
            return None
        return {
            name: {"epoch": judged.epoch, "objective": judged.objective, "loss": judged.loss}
            for name, judged in (("best", self.best), ("kept", self.kept))
        }

    def influences(self) -> dict[str, Tensor]:
        """The tensors but weights."""
        both = {"best": self.best.influence_U, "kept": self.kept.influence_U}
        # Copies: often both are one tensor, which safetensors does not write twice.
        return {name: tensor.clone() for name, tensor in both.items() if tensor is not None}

    @classmethod
    def restored(
        cls,
        state: Mapping[str, Any] | None,
        influences: Mapping[str, Tensor],
        weights: dict[str, Tensor],
    ) -> BestEpoch:
        """What :meth:`state_dict` and :meth:`influences` gave, and the weights."""
        if state is None:
            return cls()
        best, kept = (_Judged(**state[name], influence_U=influences.get(name)) for name in ("best", "kept"))
        return cls(best, kept, weights)
