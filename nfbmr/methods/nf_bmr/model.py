r"""NF-BMR: a flow, and two mapping networks between the features and its latents (Zhang et al. 2024).

.. math::
    z &= \mathrm{TNF}(y), \qquad \hat z = \mathrm{TMNN}(y), \qquad \hat y = \mathrm{SMNN}(z) \\
    \mathrm{map}(i, j) &= \left(\|y - \hat y\|^2 + \|z - \hat z\|^2\right) / 2

Its ablation NF + B-PFM has B-PFM's 1x1 networks instead of the BMR (Table 5, row 4).
``docs/methods/nf-bmr.md``, ``docs/methods/nf-b-pfm.md``.
"""

from __future__ import annotations

from torch import Tensor

from nfbmr.config import Config
from nfbmr.features.table import Shape
from nfbmr.mapping.bidirectional import BidirectionalMapping
from nfbmr.mapping.bmr import BMR
from nfbmr.mapping.pfm import BPFM
from nfbmr.methods.nf.model import NF
from nfbmr.training.stages import MappingStage, Stage


class NFBMR(NF):
    """The TNF, the detail level where there is one, then both mapping networks on features and latents."""

    has_memory = True

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        self.mapping = self._mapping(self.flow.shape_CHW[0], config)
        second = MappingStage(self.mapping, self.flow.standardise, config.scoring.pool)
        second.tables = (0,)
        self._second = second
        self.stages = (*self.stages, second)

    @property
    def context(self) -> Stage:
        """The mapping: its errors, and the latents' norm."""
        return self._second

    def _mapping(self, channels: int, config: Config) -> BidirectionalMapping:
        return BMR(channels, config.mapping, seed=config.seed + 1)

    def embeddings(self, *batch: Tensor) -> dict[str, Tensor]:
        """S source features, T mapped to the target domain, NF latents."""
        means = super().embeddings(*batch)
        mapped_BCHW = self.mapping.target(self._second.standardised(batch[0]))
        return {"S": means["S"], "T": mapped_BCHW.float().mean((2, 3)), "NF": means["NF"]}


class NFBPFM(NFBMR):
    """The same with B-PFM's 1x1 networks."""

    def _mapping(self, channels: int, config: Config) -> BidirectionalMapping:
        latent = config.mapping.pfm_latent[0]
        return BPFM(channels, channels, latent, config.mapping, seed=config.seed + 1)
