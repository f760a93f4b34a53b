"""From score components to one score an image and a decision.

Shapes: N images, P score components, H W the feature map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from nfbmr.scoring.levels import Level
from nfbmr.scoring.maps import smoothed
from nfbmr.scoring.regions import Limit

REDUCTIONS = ("max", "mean", "topk")
"""How a map becomes one number: its maximum, its mean, or the mean of its highest share of positions."""

IMAGE = "image"
"""A score component that says one thing of the whole image: constant over its map, never mixed with others.
It is a reduction as well: the score is then this component, whatever the map is."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """How score components become a map, a score and a decision.

    ``map = sum_p weights[p] * (components[p] - center[p]) / scale[p]``, smoothed; ``score = reduction(map)``;
    an image is rejected where ``score > threshold``.

    Attributes:
        components: Names of the score components.
        weights: Weights of each of them.
        center_PHW: What good images show, for each component and position; (P, 1, 1) for the same everywhere.
        scale_PHW: By how much they differ in it, likewise. The papers' own score has 0 and 1.
        reduction: One of :data:`REDUCTIONS`, or :data:`IMAGE`.
        topk: Share of the positions that ``topk`` averages.
        smooth: Sigma of the Gaussian smoothing, in feature positions.
        threshold: Scores above it are rejected; NaN until it is chosen.
        colours: Map values where a heat map's colours begin and end
            (:func:`~nfbmr.scoring.thresholds.colours_of`).
        levels: Where there are any, they make the score (:mod:`nfbmr.scoring.levels`); the map is made by
            `weights` all the same.
        typical: Median score of good images that pass; NaN where it is not known (models before format 3).
        pixel_typical: Median of the map's maximum on good images without a region; NaN likewise.
        pixel_threshold: Positions of the map above it belong to the predicted mask; NaN likewise.
    """

    components: tuple[str, ...]
    weights: tuple[float, ...]
    center_PHW: Tensor = field(default_factory=lambda: torch.zeros(1, 1, 1))
    scale_PHW: Tensor = field(default_factory=lambda: torch.ones(1, 1, 1))
    reduction: str = "max"
    topk: float = 0.02
    smooth: float = 0.0
    threshold: float = math.nan
    colours: tuple[float, float] = (0.0, 1.0)
    levels: tuple[Level, ...] = ()
    typical: float = math.nan
    pixel_typical: float = math.nan
    pixel_threshold: float = math.nan

    def fuse(self, maps_NPHW: Tensor) -> Tensor:
        """The fused anomaly map, (N, H, W) float32.

        Example:
            >>> Scorer(("source", "target"), (0.5, 0.5)).fuse(torch.ones(1, 2, 2, 2))[0, 0].tolist()
            [1.0, 1.0]
        """
        # A component without weight may be anything, even not a number.
        used = [p for p, weight in enumerate(self.weights) if weight != 0]
        shown_NPHW = self._normalised(maps_NPHW, used)
        map_NHW = torch.einsum("p,nphw->nhw", torch.tensor(self.weights)[used], shown_NPHW)
        return smoothed(map_NHW, self.smooth)

    def score(self, maps_NPHW: Tensor, map_NHW: Tensor | None = None) -> Tensor:
        """One score an image, (N,) float64.

        Args:
            maps_NPHW: Score components.
            map_NHW: What :meth:`fuse` makes of them, where that is known already.
        """
        if self.levels:
            scored = [
                level.share * (self.level_score(level, maps_NPHW, map_NHW) - level.center) / level.scale
                for level in self.levels
            ]
            return torch.stack(scored).sum(0)
        if self.reduction == IMAGE:
            image_N1HW = self._normalised(maps_NPHW, [self.components.index(IMAGE)])
            return image_N1HW[:, 0, 0, 0].double()
        return reduced(self.fuse(maps_NPHW) if map_NHW is None else map_NHW, self.reduction, self.topk)

    def level_score(self, level: Level, maps_NPHW: Tensor, map_NHW: Tensor | None = None) -> Tensor:
        """A level's own score, (N,) float64, before it is brought to the levels' common scale."""
        if map_NHW is None or level.weights != self.weights:
            map_NHW = replace(self, weights=level.weights).fuse(maps_NPHW)
        return reduced(map_NHW, level.reduction, self.topk)

    @property
    def limit(self) -> Limit:
        """What image scores are compared with."""
        return Limit(self.typical, self.threshold)

    @property
    def pixel_limit(self) -> Limit | None:
        """What positions of the map are compared with; None where there is no threshold for them."""
        if math.isnan(self.pixel_threshold):
            return None
        return Limit(self.pixel_typical, self.pixel_threshold)

    def _normalised(self, maps_NPHW: Tensor, used: list[int]) -> Tensor:
        center_PHW, scale_PHW = (
            values if len(values) == 1 else values[used] for values in (self.center_PHW, self.scale_PHW)
        )
        return (maps_NPHW[:, used].float() - center_PHW) / scale_PHW

    def as_json(self) -> dict[str, Any]:
        """For the model's folder; tensors as nested lists."""
        names = {"components": "parts"}  # as they are called in models that people have
        values = {names.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        values["levels"] = [level.as_json() for level in self.levels]
        return {name: v.tolist() if isinstance(v, Tensor) else v for name, v in values.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scorer:
        """The inverse of :meth:`as_json`."""
        tensors = {name: torch.tensor(value[name]) for name in ("center_PHW", "scale_PHW")}
        pairs = {name: tuple(value[name]) for name in ("weights", "colours")}
        levels = tuple(map(Level.from_json, value.get("levels", ())))
        known = {name: known for name, known in value.items() if name != "parts"}
        return cls(tuple(value["parts"]), **{**known, **tensors, **pairs, "levels": levels})


def reduced(map_NHW: Tensor, reduction: str, topk: float) -> Tensor:
    """One number an image, (N,) float64.

    Example:
        >>> reduced(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]]), "topk", 0.5).tolist()
        [4.5]
    """
    flat_ND = map_NHW.flatten(1).double()
    if reduction == "max":
        return flat_ND.amax(1)
    if reduction == "mean":
        return flat_ND.mean(1)
    count = max(1, round(topk * flat_ND.shape[1]))
    return flat_ND.topk(count, dim=1).values.mean(1)


def reduction_name(scorer: Scorer) -> str:
    """For people: ``max``, ``mean``, ``topk 7 %``; of levels each one's, ``context: mean, detail: max``."""
    if scorer.levels:
        return ", ".join(f"{level.name}: {level.reduction}" for level in scorer.levels)
    return f"topk {scorer.topk:.0%}" if scorer.reduction == "topk" else scorer.reduction
