r"""PatchCore: distance to the nearest patch of a bank of good ones (Roth et al. 2022).

Each tap's map is averaged over neighbourhoods of 3 x 3, brought to the finest map, and all are joined to
one vector a position, a patch. A greedy coreset of the training images' patches is the bank M. The map is a
patch's distance to the nearest of the bank, and the image's score the largest of these, weighed by how
unusual that nearest patch m* itself is among its b neighbours in the bank:

.. math::
    \mathrm{map}(p) &= \min_{m \in M} \|p - m\|, \qquad s^* = \max_p \mathrm{map}(p) \\
    \mathrm{score} &= \Big(1 - \frac{e^{s^*}}{\sum_{m \in N_b(m^*)} e^{\|p^* - m\|}}\Big)\, s^*

In a large bank the map's smaller distances are those to patches of the nearest cells
(:mod:`nfbmr.methods.cells`); its largest, and the score, are exact. ``docs/methods/patchcore.md``.

Shapes: B batch, C channels of a patch, H W the finest map, K patches of the bank, Q patches asked about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from nfbmr.config import Config
from nfbmr.features.table import Shape, Tensors, ViewedFeatures
from nfbmr.methods.cells import EXACT_SHARE, Cells
from nfbmr.methods.coreset import greedy_coreset
from nfbmr.methods.nearest import closest, nearest
from nfbmr.methods.networks import AnomalyModel
from nfbmr.methods.patchcore import PatchCoreConfig
from nfbmr.methods.statistics import (
    ClosedFormStage,
    MemoryBank,
    at_finest,
    batches_of,
    distances,
    raise_if_stopped,
)
from nfbmr.stopping import StopRequest

LARGE_BANK = 8192
"""Patches from which cells are quicker than the whole bank, and worth their making."""


class PatchCore(AnomalyModel):
    """One stage: the bank."""

    input_layout = "apart"

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        self.stages = (PatchCoreStage(shapes, config),)


class PatchCoreStage(ClosedFormStage):
    """The bank of patches, a coreset of all.

    Args:
        shapes: (C, H, W) of each tap.
        config: Its ``patchcore`` section; the seed draws the projection and the first patch.
    """

    components = ("patch", "image")
    paper_weights = (1.0, 0.0)
    cacheable = True
    trial_specific = True  # 60 kB an image of 256 px with a tenth of the patches

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        self._config = PatchCoreConfig.of(config)
        self._seed = config.seed
        self.bank = MemoryBank(patches_KC=torch.zeros(0, sum(shape[0] for shape in shapes)))
        self._cells: Cells | None = None
        reduction, highest = config.scoring.reduction, max(config.scoring.topk)
        self._scores_largest = reduction in ("image", "max") or (
            reduction == "topk" and highest <= EXACT_SHARE
        )
        super().__init__(self.bank, self._config)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the bank: not how it is searched, nor how many neighbours weigh a score."""
        kept = self._config.model_dump(mode="json", exclude={"neighbours", "search"})
        return {"kind": type(self).__name__, "settings": kept}

    def prepare(self, seen: ViewedFeatures, stop: StopRequest | None = None) -> None:
        """Gather all patches, and choose the bank in a random projection of them."""
        patches_NC = torch.cat([self._asked(y).half() for y in batches_of(seen, stop, what="patches")])
        if self._config.coreset == 1.0:  # nothing to choose
            self.bank.put(patches_KC=patches_NC.float())
            return
        generator = torch.Generator().manual_seed(self._seed)
        x_ND = projected(patches_NC, self._config.projection, generator)
        count = max(1, int(len(x_ND) * self._config.coreset))
        first = int(torch.randint(len(x_ND), (1,), generator=generator))
        rows_K, _ = greedy_coreset(x_ND, count, first=first, check=lambda: raise_if_stopped(stop))
        self.bank.put(patches_KC=patches_NC[rows_K].float())

    def maps(self, *batch: Tensor) -> Tensor:
        """The map and, constant over it, the score: (B, 2, H, W)."""
        height, width = max((y.shape[2:] for y in batch), key=lambda size: size[0] * size[1])
        patches_QC = self._asked(batch)
        distance_Q, nearest_Q = self._nearest(patches_QC, height * width)
        distance_BP = distance_Q.view(-1, height * width)
        patch_B1HW = distance_BP.view(-1, 1, height, width)
        first_B = torch.arange(distance_BP.shape[0], device=distance_BP.device) * (height * width)
        farthest_B = distance_BP.argmax(1) + first_B
        image_B = self._weighed(patches_QC[farthest_B], distance_Q[farthest_B], nearest_Q[farthest_B])
        image_B1HW = image_B.view(-1, 1, 1, 1).expand_as(patch_B1HW)
        if self._config.distance == "cosine":  # of unit vectors 1 - cos is half the squared distance
            return torch.cat((patch_B1HW, image_B1HW), dim=1).square() / 2.0
        return torch.cat((patch_B1HW, image_B1HW), dim=1)

    def _nearest(self, patches_QC: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        """Distance to the nearest of the bank and its number, (Q,) each, of images of so many positions."""
        patches_KC, search = self._patches, self._config.search
        large = len(patches_KC) >= LARGE_BANK and patches_KC.device.type == "cpu"
        pays = large and self._scores_largest
        if search == "exact" or (search == "auto" and not pays) or torch.compiler.is_exporting():
            return nearest(patches_QC, patches_KC, self.bank.squares("patches_KC"))
        if self._cells is None or self._cells.source_KC is not patches_KC:
            self._cells = Cells(patches_KC, self._seed)
        images_BPC = patches_QC.view(-1, positions, patches_QC.shape[1])
        distance_BP, nearest_BP = self._cells.nearest_of_images(images_BPC)
        return distance_BP.flatten(), nearest_BP.flatten()

    def _asked(self, y: Tensors) -> Tensor:
        """Patches as they are compared: (B H W, C)."""
        patches_QC = patches_of(y, self._config.patch)
        return normalize(patches_QC) if self._config.distance == "cosine" else patches_QC

    def _weighed(self, patch_BC: Tensor, distance_B: Tensor, nearest_B: Tensor) -> Tensor:
        count = min(self._config.neighbours, len(self._patches))
        if count == 1:
            return distance_B
        squares_K = self.bank.squares("patches_KC")
        around_BK = closest(self._patches[nearest_B], self._patches, count, squares_K)
        distances_BK = distances(patch_BC[:, None], self._patches[around_BK])[:, 0]
        share_B = torch.exp(distance_B - distances_BK.logsumexp(1))
        return (1.0 - share_B) * distance_B

    @property
    def _patches(self) -> Tensor:
        return self.bank.tensor("patches_KC")


def patches_of(y: Tensors, side: int) -> Tensor:
    """All patches of a batch, position by position: (B H W, C) of the finest map's positions.

    Args:
        y: Maps of each tap, (B, C, H, W).
        side: Side of the neighbourhood that a patch averages.
    """
    averaged = tuple(
        avg_pool2d(y_BCHW, side, stride=1, padding=side // 2, count_include_pad=True) for y_BCHW in y
    )
    return at_finest(averaged, mode="bilinear").permute(0, 2, 3, 1).flatten(0, 2)


def projected(patches_NC: Tensor, dimensions: int, generator: torch.Generator) -> Tensor:
    """Patches in a random projection that about keeps distances; unchanged where C is no larger."""
    channels = patches_NC.shape[1]
    if channels <= dimensions:
        return patches_NC.float()
    projection_CD = torch.randn(channels, dimensions, generator=generator) / math.sqrt(dimensions)
    return torch.cat([part.float() @ projection_CD for part in torch.split(patches_NC, 65536)])
