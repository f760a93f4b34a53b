r"""NF: the normalizing flow alone (Zhang et al. 2024, Table 5, last row).

.. math:: z = \mathrm{TNF}(y), \qquad \mathrm{map}(i, j) = \|z(i, j)\|^2 / 2

``docs/methods/nf.md``.
"""

from __future__ import annotations

from torch import Tensor

from nfbmr.config import Config
from nfbmr.features.table import Shape
from nfbmr.flows.flow import Flow
from nfbmr.methods.networks import Networks, only
from nfbmr.training.stages import FlowStage


class NF(Networks):
    """One stage: the TNF, whose latents are stored."""

    keeps_latents = True

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        self.flow = Flow(only(shapes, config.method), config.flow, seed=config.seed)
        self._first = FlowStage(self.flow, config.scoring.pool)
        self.stages = (self._first,)

    def latents(self, *y: Tensor) -> Tensor:
        """``z = TNF(y)``, (B, C, H, W)."""
        return self._first.latents(*y)

    def embeddings(self, *batch: Tensor) -> dict[str, Tensor]:
        """S source features, NF latents."""
        return {**super().embeddings(*batch), "NF": batch[1].float().mean((2, 3))}
