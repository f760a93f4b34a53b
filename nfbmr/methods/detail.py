r"""The detail level: a flow of single positions, and a memory bank, on a finer map of earlier taps.

A defect of ten pixels is gone in the map that the main flow reads. The detail level reads earlier taps at a
larger size, averages each position over its neighbourhood (as PatchCore does), and gives two distances:

.. math::
    \mathrm{detail}(i, j) &= \|\mathrm{TNF}_d(y(i, j))\|, \qquad
    \mathrm{memory}(i, j) = \min_{m \in M} \|\tilde y(i, j) - m\|

with :math:`\mathrm{TNF}_d` a flow whose subnets see one position each, trained on positions drawn at random,
:math:`\tilde y` the standardised features, and M a greedy coreset of good ones. A density and a distance fail
on different parts: together they find more than either (LOG.md, 2026-11-29). The papers have no such level.

Shapes: B batch, C channels, H W the detail map, K positions of the bank, Q positions asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nfbmr.config import Config, FeatureConfig, FlowConfig
from nfbmr.features.table import Features, JoinedTable, Shape, ViewedFeatures, join
from nfbmr.flows.flow import Flow
from nfbmr.flows.standardise import Standardise
from nfbmr.methods.coreset import greedy_coreset
from nfbmr.methods.nearest import nearest
from nfbmr.methods.patchcore.model import projected
from nfbmr.methods.statistics import ClosedFormStage, MemoryBank, batches_of, raise_if_stopped
from nfbmr.stopping import StopRequest
from nfbmr.training.stages import FlowStage, Stage

DETAIL, MEMORY = "detail", "memory"
"""Names of the stages, and of the score components that they give."""
PROJECTION = 128
"""Dimensions of the random projection that the bank is chosen in, as PatchCore's."""
_SEED_OFFSET = 2  # the flow and the mapping have the seeds before


def with_detail(features: Features, config: FeatureConfig) -> Features:
    """The main tables joined as ``features.joined`` says, then the detail look's at their finest map."""
    taps = len(config.detail.taps)
    if not taps:
        return features.joined(config.joined)
    main, detail = features.tables[:-taps], features.tables[-taps:]
    fine = JoinedTable(detail, "finest", config.detail.neighbourhood)
    return Features([join(main, config.joined), fine])


def detail_stages(shape_CHW: Shape, config: Config, *, memory: bool) -> tuple[Stage, ...]:
    """The flow of positions, and the memory bank where it is asked for and ``detail.bank`` is not 0."""
    flow = DetailStage(shape_CHW, config)
    if not memory or not config.detail.bank:
        return (flow,)
    return flow, MemoryStage(flow.flow.standardise, shape_CHW[0], config)


class DetailStage(FlowStage):
    """Maximum likelihood of single positions: :class:`~nfbmr.training.stages.FlowStage` with 1x1 subnets.

    Args:
        shape_CHW: Shape of the detail map.
        config: Its ``detail`` section; the seed draws the first weights.
    """

    name = DETAIL
    components = (DETAIL,)
    paper_weights = (1.0,)
    tables = (1,)
    reads_latents = False
    validated = False

    def __init__(self, shape_CHW: Shape, config: Config) -> None:
        section = config.detail
        how = FlowConfig(
            blocks=section.blocks, hidden=section.hidden, kernels=(1,), clamp=section.clamp, standardize=True
        )
        super().__init__(Flow(shape_CHW, how, seed=config.seed + _SEED_OFFSET))

    def maps(self, *batch: Tensor) -> Tensor:
        """``||z||`` at each position of (y_BCHW,): (B, 1, H, W)."""
        (y_BCHW,) = batch
        z_BCHW: Tensor = self.flow(y_BCHW)[0]
        return z_BCHW.float().square().sum(1, keepdim=True).sqrt()


class MemoryStage(ClosedFormStage):
    """A bank of good positions, a greedy coreset of some drawn at random, and the distance to the nearest.

    Args:
        standardise: What brings the features' channels to one scale, the detail flow's.
        channels: C.
        config: Its ``detail`` section; the seed draws candidates, projection and the first one chosen.
    """

    name = MEMORY
    components = (MEMORY,)
    paper_weights = (1.0,)
    tables = (1,)
    reads_latents = False
    cacheable = True

    def __init__(self, standardise: Standardise, channels: int, config: Config) -> None:
        self.bank = MemoryBank(positions_KC=torch.zeros(0, channels))
        super().__init__(self.bank, config.detail)
        self._config, self._seed, self._standardise = config.detail, config.seed, standardise

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the bank, without the flow beside it."""
        kept = {"bank": self._config.bank, "candidates": self._config.candidates}
        return {"kind": type(self).__name__, "settings": kept}

    def prepare(self, seen: ViewedFeatures, stop: StopRequest | None = None) -> None:
        """Draw candidates from every image alike, and choose the bank among them."""
        generator = torch.Generator().manual_seed(self._seed)
        rows = seen.rows_NV.numel()
        ((channels, height, width),) = seen.features.shapes
        count = min(max(1, -(-self._config.candidates // rows)), height * width)
        # In one piece: small ones that stay between large maps that go would leave a gigabyte of gaps.
        candidates_NC = torch.empty(rows * count, channels, dtype=torch.float16)
        places = iter(torch.split(candidates_NC, count))
        for (y_BCHW,) in batches_of(seen, stop, what="positions", size=8):
            flat_BLC = self._standardise(y_BCHW).permute(0, 2, 3, 1).flatten(1, 2)
            for y_LC in flat_BLC:
                chosen = torch.randperm(len(y_LC), generator=generator)[:count]
                next(places).copy_(y_LC[chosen])
        x_ND = projected(candidates_NC, PROJECTION, generator)
        first = int(torch.randint(len(x_ND), (1,), generator=generator))
        chosen_K, _ = greedy_coreset(
            x_ND, self._config.bank, first=first, check=lambda: raise_if_stopped(stop)
        )
        self.bank.put(positions_KC=candidates_NC[chosen_K].float())

    def maps(self, *batch: Tensor) -> Tensor:
        """The distance to the nearest of the bank at each position of (y_BCHW,): (B, 1, H, W)."""
        (y_BCHW,) = batch
        batch_size, _, height, width = y_BCHW.shape
        y_QC = self._standardise(y_BCHW.float()).permute(0, 2, 3, 1).flatten(0, 2)
        distance_Q, _ = nearest(y_QC, self.bank.tensor("positions_KC"), self.bank.squares("positions_KC"))
        return distance_Q.view(batch_size, 1, height, width)
