r"""NF: the normalizing flow alone (Zhang et al. 2024, Table 5, last row).

.. math:: z = \mathrm{TNF}(y), \qquad \mathrm{map}(i, j) = \|z(i, j)\|^2 / 2

Where ``features.detail`` has taps, a finer map is looked at as well (:mod:`nfbmr.methods.detail`), and
several levels make the image's score (:mod:`nfbmr.scoring.levels`). ``docs/methods/nf.md``.

Shapes: B batch, C channels, h w the main map, H W the detail map, P score components.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nfbmr.config import Config, FeatureConfig
from nfbmr.features.table import Features, Shape
from nfbmr.flows.flow import Flow
from nfbmr.methods.detail import detail_stages, with_detail
from nfbmr.methods.networks import AnomalyModel, only
from nfbmr.scoring.levels import Level
from nfbmr.training.stages import FlowStage, Stage


class NF(AnomalyModel):
    """The TNF, whose latents are stored; after it the flow of the detail level, where there is one."""

    caches_latents = True
    has_memory = False

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        detailed = bool(config.features.detail.taps)
        self.flow = Flow(
            only(shapes[: 1 if detailed else None], config.method), config.flow, seed=config.seed
        )
        self._first = FlowStage(self.flow, config.scoring.pool)
        self._first.tables = (0,)
        self._detail: tuple[Stage, ...] = (
            detail_stages(shapes[1], config, memory=self.has_memory) if detailed else ()
        )
        self.stages = (self._first, *self._detail)

    @classmethod
    def arranged(cls, features: Features, config: FeatureConfig) -> Features:
        """The main tables as one, and the detail look's as another."""
        return with_detail(features, config)

    @property
    def context(self) -> Stage:
        """The stage that judges the main map."""
        return self._first

    @property
    def components(self) -> tuple[str, ...]:
        """Those of the main map, then those of the detail level."""
        return (
            *self.context.components,
            *(component for stage in self._detail for component in stage.components),
        )

    @property
    def paper_weights(self) -> tuple[float, ...]:
        """The paper's weights; it has no detail level."""
        return (*self.context.paper_weights, *(0.0 for _ in self._detail))

    @property
    def levels(self) -> tuple[tuple[Level, ...], ...]:
        """The main map as a whole, and the worst place of each detail map; none without a detail level.

        Density and distance find different defects, at different places: each makes a score of its own.
        A mapping has to earn its place: the main map's score is of the flow's norm and both errors alike, or
        of the norm alone where validation says that it separates better.
        """
        if not self._detail:
            return ()
        main = self.context.components
        alike = tuple(1 / len(main) for _ in main)
        norm = tuple(float(component == "norm") for component in main)
        rest = tuple(0.0 for _ in self._detail)
        context = tuple(
            Level("context", (*weights, *rest), "mean") for weights in dict.fromkeys((alike, norm))
        )
        worst = (
            (
                Level(
                    stage.name, tuple(float(component == stage.name) for component in self.components), "max"
                ),
            )
            for stage in self._detail
        )
        return context, *worst

    @property
    def map_weights(self) -> tuple[float, ...]:
        """The heat map is the last component's: the memory bank's distances, or the flow's norms without one.

        A flow's norms are a haze around a defect and over whatever training hardly saw, where distances to
        good positions are not (LOG.md, 2026-12-01); its worst position counts in the image's score.
        """
        if not self._detail:
            return self.paper_weights
        return (*(0.0 for _ in self.components[1:]), 1.0)

    def latents(self, *y: Tensor) -> Tensor:
        """``z = TNF(y)``, (B, C, h, w)."""
        return self._first.latents(y[0])

    def maps(self, *batch: Tensor) -> Tensor:
        """Score components of (y, z), (B, P, h, w); of (y, y of the detail look, z), (B, P, H, W).

        With a detail level all components are distances, not squares: components of both are added up.
        """
        if not self._detail:
            return self.context.maps(*batch)
        y_BChw, y_BCHW, z_BChw = batch
        context_BPhw = self.context.maps(y_BChw, z_BChw).float().sqrt()
        context_BPHW = interpolate(context_BPhw, size=y_BCHW.shape[2:], mode="bilinear", align_corners=False)
        with torch.autocast(y_BCHW.device.type, enabled=False):  # distances need float32
            return torch.cat([context_BPHW, *(stage.maps(y_BCHW) for stage in self._detail)], dim=1)

    def embeddings(self, *batch: Tensor) -> dict[str, Tensor]:
        """S source features, NF latents."""
        return {**super().embeddings(*batch), "NF": batch[-1].float().mean((2, 3))}
