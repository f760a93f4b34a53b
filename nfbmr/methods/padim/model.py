r"""PaDiM: a Gaussian at each position (Defard et al. 2021).

Of all taps' channels, brought to the finest map, d are drawn at random. At each position their mean and
covariance are measured on good images, and the map is the Mahalanobis distance:

.. math::
    \Sigma_{ij} = \mathrm{cov}(y_{ij}) + \epsilon I, \qquad
    \mathrm{map}(i, j) = \sqrt{(y_{ij} - \mu_{ij})^\top \Sigma_{ij}^{-1} (y_{ij} - \mu_{ij})}

``docs/methods/padim.md``.

Shapes: B batch, d drawn channels (D), H W the finest map, P = H W positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nfbmr.config import Config
from nfbmr.features.table import Shape, ViewedFeatures
from nfbmr.methods.networks import AnomalyModel
from nfbmr.methods.padim import PaDiMConfig
from nfbmr.methods.statistics import ClosedFormStage, MemoryBank, at_finest, batches_of
from nfbmr.stopping import StopRequest


class PaDiM(AnomalyModel):
    """One stage: means and covariances."""

    input_layout = "apart"

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        self.stages = (PaDiMStage(shapes, config),)


class PaDiMStage(ClosedFormStage):
    """A Gaussian a position, kept as mean and whitening matrix.

    Args:
        shapes: (C, H, W) of each tap.
        config: Its ``padim`` section; the seed draws the channels.
    """

    components = ("distance",)
    paper_weights = (1.0,)

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        section = PaDiMConfig.of(config)
        channels = sum(shape[0] for shape in shapes)
        height, width = max((shape[1:] for shape in shapes), key=lambda size: size[0] * size[1])
        chosen = torch.randperm(channels, generator=torch.Generator().manual_seed(config.seed))
        chosen = chosen[: min(section.channels, channels)].sort().values
        self._drawn, self._positions = len(chosen), height * width
        self.bank = MemoryBank(
            chosen=chosen,
            mean_PD=torch.zeros(self._positions, self._drawn),
            whitening_PDD=torch.zeros(self._positions, self._drawn, self._drawn),
        )
        super().__init__(self.bank, section)
        self._epsilon = section.epsilon

    def prepare(self, seen: ViewedFeatures, stop: StopRequest | None = None) -> None:
        """Measure the means in one pass, and the covariances about them in another."""
        count = seen.rows_NV.numel()
        mean_PD = torch.zeros(self._positions, self._drawn)
        for y in batches_of(seen, stop, what="means"):
            mean_PD += self._vectors(y).sum(1) / count
        covariance_PDD = torch.zeros(self._positions, self._drawn, self._drawn)
        for y in batches_of(seen, stop, what="covariances"):
            y_PBD = self._vectors(y) - mean_PD[:, None]
            covariance_PDD.baddbmm_(y_PBD.transpose(1, 2), y_PBD, alpha=1 / max(1, count - 1))
        covariance_PDD.diagonal(dim1=1, dim2=2).add_(self._epsilon)
        # Inverting the Cholesky factor keeps the distance a norm, whatever rounding does.
        factor_PDD = torch.linalg.cholesky(covariance_PDD)
        identity = torch.eye(covariance_PDD.shape[-1]).expand_as(factor_PDD)
        whitening_PDD = torch.linalg.solve_triangular(factor_PDD, identity, upper=False)
        self.bank.put(mean_PD=mean_PD, whitening_PDD=whitening_PDD)

    def maps(self, *batch: Tensor) -> Tensor:
        """The distance at each position, (B, 1, H, W)."""
        finest = max((y.shape[2:] for y in batch), key=lambda size: size[0] * size[1])
        y_PBD = self._vectors(batch) - self.bank.tensor("mean_PD")[:, None]
        whitening_PDD = self.bank.tensor("whitening_PDD")
        # The matrices, most of what is read, as they lie. Each image by itself, so that its score is the same
        # to the last bit whatever else is in the batch; in a graph the batch is open.
        vectors = [y_PBD] if torch.compiler.is_exporting() else torch.split(y_PBD, 1, dim=1)
        white = [whitening_PDD @ y.contiguous().transpose(1, 2) for y in vectors]
        distance_PB = torch.cat([w.square().sum(1) for w in white], 1).sqrt()
        return distance_PB.T.reshape(-1, 1, *finest)

    def _vectors(self, y: tuple[Tensor, ...]) -> Tensor:
        """The drawn channels at each position, (P, B, D)."""
        chosen = self.bank.tensor("chosen").to(y[0].device)
        if torch.compiler.is_exporting():
            y_BDHW = at_finest(y).index_select(1, chosen)
        else:  # what is not drawn need not be brought to the finest map; a graph cannot part the taps
            drawn, first = [], 0
            for y_BCHW in y:  # the drawn channels are in order
                inside = (chosen >= first) & (chosen < first + y_BCHW.shape[1])
                drawn.append(y_BCHW.index_select(1, chosen[inside] - first))
                first += y_BCHW.shape[1]
            y_BDHW = at_finest(tuple(drawn))
        return y_BDHW.flatten(2).permute(2, 0, 1)
