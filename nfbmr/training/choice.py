"""Which epoch's weights a stage keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from nfbmr.scoring.ranking import difference_error


@dataclass(frozen=True)
class Verdict:
    """What validation says of an epoch.

    Attributes:
        metrics: For the history; ``objective`` is the one that chooses the epoch, the higher the better.
        influence_U: What each independent unit adds to the objective, (U,): two epochs are told apart by the
            standard error of their difference. None: by the objective alone.
    """

    metrics: Mapping[str, float]
    influence_U: Tensor | None = None


@dataclass
class BestEpoch:
    """The latest epoch that is as good as the best one, as far as validation can tell.

    Epochs are judged on the same images, so what tells them apart is the standard error of their
    *difference*, far below that of either where both rank the same images wrongly. Of those within one such
    error of the best, the one trained longest is kept.

    Attributes:
        epoch: The one that is kept, from 0.
        highest: The best objective of all.
        influence_U: Of the epoch with the best objective.
        weights: Of the epoch that is kept.
    """

    epoch: int = 0
    highest: float = -math.inf
    influence_U: Tensor | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, epoch: int, verdict: Verdict, module: nn.Module) -> None:
        """Keep an epoch's weights, unless an earlier one is better by more than chance explains."""
        objective, influence_U = verdict.metrics["objective"], verdict.influence_U
        tolerance = 0.0
        if influence_U is not None and self.influence_U is not None:
            tolerance = difference_error(influence_U, self.influence_U)
        if objective < self.highest - tolerance:
            return
        self.epoch = epoch
        self.weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        if objective >= self.highest:
            self.highest, self.influence_U = objective, influence_U
