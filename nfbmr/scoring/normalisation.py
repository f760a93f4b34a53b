"""Score components brought to one scale, by good images that are not the ones judged.

Shapes: N images, P score components, H W the feature map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FOLDS = 10
"""Into how many folds validation units are dealt, each judged by the others."""

SHRINKAGE = 10
"""Images that the whole map's statistics count for beside a position's own."""


class UnitMaps(NamedTuple):
    """Score components of images, the unit (the part photographed) that each shows, and what it counts for.

    Weights are those of an AUROC; None for all alike.
    """

    maps_NPHW: Tensor
    units: tuple[str, ...]
    weights: tuple[float, ...] | None = None


def cross_normalised(images: UnitMaps, good: UnitMaps, normalise: str) -> Tensor:
    """``(maps - center) / scale``, each unit by the statistics of good images of other units.

    Units are dealt into :data:`FOLDS` folds, and a fold is judged by all the others.
    """
    number = {unit: i % FOLDS for i, unit in enumerate(sorted(set(good.units)))}
    fold_N = torch.tensor([number.get(unit, FOLDS) for unit in images.units])
    good_fold_N = torch.tensor([number[unit] for unit in good.units])
    normalised_NPHW = torch.empty_like(images.maps_NPHW, dtype=torch.float32)
    for fold in sorted(set(fold_N.tolist())):
        others = good.maps_NPHW[good_fold_N != fold]
        center_PHW, scale_PHW = normal_statistics(others if len(others) else good.maps_NPHW, normalise)
        rows = fold_N == fold
        normalised_NPHW[rows] = (images.maps_NPHW[rows].float() - center_PHW) / scale_PHW
    return normalised_NPHW


def normal_statistics(good_NPHW: Tensor, normalise: str) -> tuple[Tensor, Tensor]:
    """Center and scale that make score components comparable: (P, H, W) or (P, 1, 1), from good images.

    ``part`` takes each component's mean and standard deviation over images and positions: one that varies on
    good images counts for less. ``position`` takes them at each position, since an edge may vary more than
    the middle; both are then shrunk towards those of the whole map, as if :data:`SHRINKAGE` images had been
    added, so that few images do not make a position look certain. ``none`` is 0 and 1.

    Example:
        >>> center, scale = normal_statistics(torch.rand(50, 3, 4, 4), "part")
        >>> center.shape, scale.shape
        (torch.Size([3, 1, 1]), torch.Size([3, 1, 1]))
    """
    maps = good_NPHW.double()
    count = len(maps)
    mean_P11 = maps.mean((0, 2, 3)).view(-1, 1, 1)
    if normalise == "none" or not count:
        return torch.zeros_like(mean_P11).float(), torch.ones_like(mean_P11).float()
    if normalise == "part":
        deviation_P = (maps - mean_P11).square().mean((0, 2, 3)).sqrt()
        return mean_P11.float(), _positive(deviation_P.view(-1, 1, 1))
    keep = count / (count + SHRINKAGE)
    center_PHW = keep * maps.mean(0) + (1 - keep) * mean_P11
    own_PHW = (maps - center_PHW).square().mean(0).sqrt()
    all_P11 = own_PHW.square().mean((1, 2), keepdim=True).sqrt()
    # Shrunk as a ratio: a quiet position among loud ones stays quiet.
    return center_PHW.float(), _positive(own_PHW**keep * all_P11 ** (1 - keep))


def _positive(scale: Tensor) -> Tensor:
    """A scale to divide by; one where there is nothing to measure."""
    return torch.where(scale > 0, scale, 1.0).float()
