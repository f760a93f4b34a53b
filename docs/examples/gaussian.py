r"""A method of one's own in one file: one Gaussian for all positions, and the distance to it.

.. math:: \mathrm{map}(i, j) = (y_{ij} - \mu)^\top (\Sigma + \lambda \bar\sigma^2 I)^{-1} (y_{ij} - \mu)

Shapes: B batch, C channels, H W the feature map, N = B H W vectors.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from nfbmr.config import Config, MethodConfig
from nfbmr.features.table import Shape, ViewedFeatures
from nfbmr.methods.method import Method
from nfbmr.methods.networks import AnomalyModel, only
from nfbmr.methods.statistics import ClosedFormStage, MemoryBank, batches_of
from nfbmr.stopping import StopRequest


class GaussianConfig(MethodConfig):
    """The section ``gaussian`` of the configuration."""

    section: ClassVar[str] = "gaussian"

    shrinkage: float = Field(0.05, gt=0, description="share of the mean variance that the diagonal gains")


class Gaussian(AnomalyModel):
    """One stage; several taps are joined to one map before it sees them."""

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        self.stages = (GaussianStage(only(shapes, config.method)[0], config),)


class GaussianStage(ClosedFormStage):
    """Mean and whitening matrix of all positions of all training images."""

    components = ("distance",)
    paper_weights = (1.0,)

    def __init__(self, channels: int, config: Config) -> None:
        self.bank = MemoryBank(mean_C=torch.zeros(channels), whitening_CC=torch.zeros(channels, channels))
        settings = GaussianConfig.of(config)
        super().__init__(self.bank, settings)
        self.shrinkage = settings.shrinkage

    def prepare(self, seen: ViewedFeatures, stop: StopRequest | None = None) -> None:
        """Measure both in one pass."""
        y_NC = torch.cat(
            [y.permute(0, 2, 3, 1).flatten(0, 2) for (y,) in batches_of(seen, stop, what="Gaussian")]
        )
        mean_C, covariance_CC = y_NC.mean(0), torch.cov(y_NC.T)
        covariance_CC.diagonal().add_(self.shrinkage * covariance_CC.diagonal().mean())
        factor_CC = torch.linalg.cholesky(covariance_CC)
        identity = torch.eye(len(mean_C))
        whitening_CC = torch.linalg.solve_triangular(factor_CC, identity, upper=False)
        self.bank.put(mean_C=mean_C, whitening_CC=whitening_CC)

    def maps(self, *batch: Tensor) -> Tensor:
        """The squared distance at each position, (B, 1, H, W)."""
        centred_BHWC = batch[0].permute(0, 2, 3, 1) - self.bank.tensor("mean_C")
        white_BHWC = centred_BHWC @ self.bank.tensor("whitening_CC").T
        return white_BHWC.square().sum(-1).unsqueeze(1)


METHOD = Method(
    title="one Gaussian for all positions",
    source="an example",
    networks=f"{__name__}:Gaussian",
    stages=("statistics",),
    settings=GaussianConfig,
    defaults={"features": {"size": 256}},
)
