r"""SPADE: nearest images, then nearest positions among theirs (Cohen & Hoshen 2020).

The last tap's means over positions find an image's K nearest good images; their mean distance is its score.
At each other tap the map is a position's distance to the nearest of all positions of those K images:

.. math::
    \mathrm{score} = \frac{1}{K} \sum_{k \in N_K} \|\bar y - \bar y_k\|, \qquad
    \mathrm{map}_l(p) = \min_{k \in N_K,\, q} \|y_l(p) - y_{l,k}(q)\|

and the map is the mean over the taps, each upsampled to the finest. ``docs/methods/spade.md``.

Shapes: B batch, N training images, C channels, H W a tap's map.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nfbmr.config import Config
from nfbmr.errors import BackboneError
from nfbmr.features.table import Shape, ViewedFeatures
from nfbmr.methods.nearest import nearest
from nfbmr.methods.networks import AnomalyModel
from nfbmr.methods.spade import SPADEConfig
from nfbmr.methods.statistics import ClosedFormStage, MemoryBank, batches_of, distances
from nfbmr.stopping import StopRequest

GALLERY_AT_ONCE = 1 << 24
"""Numbers of the near images held as float32: 64 MiB."""


class SPADE(AnomalyModel):
    """One stage: all training features."""

    input_layout = "apart"

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        if len(shapes) < 2:
            raise BackboneError(
                "spade compares positions at all taps but the last, which finds the nearest images",
                where="features.taps",
                fix="name two taps or more",
            )
        self.stages = (SPADEStage(shapes, config),)


class SPADEStage(ClosedFormStage):
    """A gallery of every training image: as large as the training features.

    Args:
        shapes: (C, H, W) of each tap.
        config: Its ``spade`` section.
    """

    components = ("pixel", "image")
    paper_weights = (1.0, 0.0)

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        section = SPADEConfig.of(config)
        self._shapes, self._neighbours = shapes, section.neighbours
        galleries = {
            f"gallery{i}": torch.zeros(0, *shape, dtype=torch.float16) for i, shape in enumerate(shapes[:-1])
        }
        self.bank = MemoryBank(means_NC=torch.zeros(0, shapes[-1][0]), **galleries)
        super().__init__(self.bank, section)

    def prepare(self, seen: ViewedFeatures, stop: StopRequest | None = None) -> None:
        """Keep all features as they are stored."""
        means, galleries = [], [[] for _ in self._shapes[:-1]]  # type: ignore[var-annotated]
        for y in batches_of(seen, stop, what="gallery"):
            means.append(y[-1].mean((2, 3)))
            for gallery, y_BCHW in zip(galleries, y, strict=False):
                gallery.append(y_BCHW.half())
        self.bank.put(
            means_NC=torch.cat(means), **{f"gallery{i}": torch.cat(g) for i, g in enumerate(galleries)}
        )

    def maps(self, *batch: Tensor) -> Tensor:
        """The map and, constant over it, the score: (B, 2, H, W) at the finest tap's H W."""
        means_BC = batch[-1].mean((2, 3))
        count = min(self._neighbours, len(self.bank.tensor("means_NC")))
        near = distances(means_BC, self.bank.tensor("means_NC")).topk(count, dim=1, largest=False)
        finest = max((y.shape[2:] for y in batch[:-1]), key=lambda size: size[0] * size[1])
        levels = []
        for i, y_BCHW in enumerate(batch[:-1]):
            gallery_NCHW = self.bank.tensor(f"gallery{i}")
            if torch.compiler.is_exporting():
                map_BHW = _nearest_positions(y_BCHW, gallery_NCHW, near.indices)
            else:
                rows = zip(y_BCHW, near.indices, strict=True)
                map_BHW = torch.stack([_nearest_position(y, gallery_NCHW[row]) for y, row in rows])
            levels.append(
                interpolate(map_BHW.unsqueeze(1), size=finest, mode="bilinear", align_corners=False)
            )
        pixel_B1HW = torch.stack(levels).mean(0)
        image_B1HW = near.values.mean(1).view(-1, 1, 1, 1).expand_as(pixel_B1HW)
        return torch.cat((pixel_B1HW, image_B1HW), dim=1)


def _nearest_position(y_CHW: Tensor, gallery_KCHW: Tensor) -> Tensor:
    """Distance of each position to the nearest one of the gallery, (H, W)."""
    own_PC = y_CHW.flatten(1).T.contiguous()
    images = max(1, GALLERY_AT_ONCE // y_CHW.numel())
    least_P: Tensor | None = None
    for some_MCHW in torch.split(gallery_KCHW, images):
        # Turned over as float16, which is half of what is moved.
        bank_LC = some_MCHW.flatten(2).transpose(1, 2).contiguous().float().flatten(0, 1)
        distance_P, _ = nearest(own_PC, bank_LC)
        least_P = distance_P if least_P is None else torch.minimum(least_P, distance_P)
    assert least_P is not None  # there is one neighbour at least
    return least_P.view(y_CHW.shape[1:])


def _nearest_positions(y_BCHW: Tensor, gallery_NCHW: Tensor, near_BK: Tensor) -> Tensor:
    """:func:`_nearest_position` of a batch, (B, H, W): for a graph, in which the batch is open."""
    own_BPC = y_BCHW.flatten(2).transpose(1, 2)
    best_BP: Tensor | None = None
    for k in range(near_BK.shape[1]):
        other_BQC = gallery_NCHW[near_BK[:, k]].float().flatten(2).transpose(1, 2)
        distance_BP = distances(own_BPC, other_BQC).amin(2)
        best_BP = distance_BP if best_BP is None else torch.minimum(best_BP, distance_BP)
    assert best_BP is not None  # there is one neighbour at least
    return torch.unflatten(best_BP, 1, y_BCHW.shape[2:])
