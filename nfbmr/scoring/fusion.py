"""From score parts to one score an image and a decision.

Shapes: N images, P score parts, H W the feature map.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nfbmr.config import ScoringConfig
from nfbmr.errors import ConfigError
from nfbmr.scoring.levels import Level, fitted
from nfbmr.scoring.maps import smoothed
from nfbmr.scoring.ranking import auroc, auroc_error, effective
from nfbmr.scoring.regions import Limit
from nfbmr.scoring.thresholds import colours_of, limit_of

REDUCTIONS = ("max", "mean", "topk")
"""How a map becomes one number: its maximum, its mean, or the mean of its highest share of positions."""

IMAGE = "image"
"""A score part that says one thing of the whole image: constant over its map, never mixed with the others.
It is a reduction as well: the score is then this part, whatever the map is."""

FOLDS = 10
"""Into how many folds validation units are dealt, each judged by the others."""

SHRINKAGE = 10
"""Images that the whole map's statistics count for beside a position's own."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """How score parts become a map, a score and a decision.

    ``map = sum_p weights[p] * (parts[p] - center[p]) / scale[p]``, smoothed; ``score = reduction(map)``;
    an image is rejected where ``score > threshold``.

    Attributes:
        parts: Names of the score parts.
        weights: Of each of them.
        center_PHW: What good images show, for each part and position; (P, 1, 1) for the same everywhere.
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

    parts: tuple[str, ...]
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
        # A part without weight may be anything, even not a number.
        used = [p for p, weight in enumerate(self.weights) if weight != 0]
        parts_NPHW = self._normalised(maps_NPHW, used)
        map_NHW = torch.einsum("p,nphw->nhw", torch.tensor(self.weights)[used], parts_NPHW)
        return smoothed(map_NHW, self.smooth)

    def score(self, maps_NPHW: Tensor, map_NHW: Tensor | None = None) -> Tensor:
        """One score an image, (N,) float64.

        Args:
            maps_NPHW: Score parts.
            map_NHW: What :meth:`fuse` makes of them, where that is known already.
        """
        if self.levels:
            scored = [
                level.share * (self.level_score(level, maps_NPHW, map_NHW) - level.center) / level.scale
                for level in self.levels
            ]
            return torch.stack(scored).sum(0)
        if self.reduction == IMAGE:
            own_N1HW = self._normalised(maps_NPHW, [self.parts.index(IMAGE)])
            return own_N1HW[:, 0, 0, 0].double()
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
            one if len(one) == 1 else one[used] for one in (self.center_PHW, self.scale_PHW)
        )
        return (maps_NPHW[:, used].float() - center_PHW) / scale_PHW

    def as_json(self) -> dict[str, Any]:
        """For the model's folder; tensors as nested lists."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["levels"] = [level.as_json() for level in self.levels]
        return {name: v.tolist() if isinstance(v, Tensor) else v for name, v in values.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scorer:
        """The inverse of :meth:`as_json`."""
        tensors = {name: torch.tensor(value[name]) for name in ("center_PHW", "scale_PHW")}
        pairs = {name: tuple(value[name]) for name in ("parts", "weights", "colours")}
        levels = tuple(map(Level.from_json, value.get("levels", ())))
        return cls(**{**value, **tensors, **pairs, "levels": levels})


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


@dataclass(frozen=True)
class Selection:
    """What was chosen on validation data, and everything it was chosen from.

    Attributes:
        scorer: The choice, threshold included.
        auroc: Image AUROC of the choice, good against synthetic (or, where asked for, test) defects.
        good_N: Scores of the good images by the choice, each unit judged by the others.
        defective_M: Scores of the defective images, likewise.
        candidates: Every candidate's weights, reduction and AUROC, best first.
    """

    scorer: Scorer
    auroc: float
    good_N: Tensor
    defective_M: Tensor
    candidates: tuple[Mapping[str, Any], ...]


class UnitMaps(NamedTuple):
    """Score parts of images, the unit (the part photographed) that each shows, and what it counts for.

    Weights are those of an AUROC; None for all alike.
    """

    maps_NPHW: Tensor
    units: tuple[str, ...]
    weights: tuple[float, ...] | None = None


def select_scorer(
    good: UnitMaps,
    defective: UnitMaps,
    config: ScoringConfig,
    *,
    parts: tuple[str, ...],
    published: tuple[float, ...],
    false_reject_rate: float,
    levels: tuple[tuple[Level, ...], ...] = (),
    map_weights: tuple[float, ...] = (),
    pixel_false_reject_rate: float = 0.05,
) -> Selection:
    """Choose weights, reduction and threshold on validation data, by the rule of one standard error.

    Synthetic defects rank fusions only roughly, so the highest image AUROC is not taken for the best. Among
    all candidates within one standard error of it (Hanley & McNeil 1982), the one that averages over most
    evidence is chosen: the largest share of positions, then most parts. (Breiman et al. 1984 prune trees so.)

    A unit is judged by statistics of the other units (:func:`cross_normalised`). Judged by its own as well it
    would look more normal than any new one, and the threshold would reject more good parts than it states.

    Args:
        good: Held-out good images.
        defective: Their synthetic defects, and known ones.
        config: Fixes what is not ``auto``.
        parts: The parts that the method yields.
        published: The source's own weights of them.
        false_reject_rate: Share of good images that the threshold may reject.
        levels: What the method's parts are grouped to, each level in the ways there are to make its score;
            where weights and reduction are both ``auto``, levels make the score.
        map_weights: Of the parts in the map, where levels make the score.
        pixel_false_reject_rate: Share of good images that may have any position above the threshold for
            positions.
    """
    normalise = "none" if config.weights == "paper" else config.normalise
    rates = (false_reject_rate, pixel_false_reject_rate)
    good_NPHW, defective_MPHW = (cross_normalised(images, good, normalise) for images in (good, defective))
    if levels and config.weights == "auto" and config.reduction == "auto":
        base = Scorer(parts, map_weights, smooth=config.smooth)
        scored = [
            [(way, base.level_score(way, good_NPHW), base.level_score(way, defective_MPHW)) for way in ways]
            for ways in levels
        ]
        scorer = replace(base, levels=fitted(scored, defective.weights))
        return _finished(scorer, good, defective, (good_NPHW, defective_MPHW), normalise, rates)
    options = []
    for weights in _weight_options(config, parts, published):
        base = Scorer(parts, weights, smooth=config.smooth)
        good_NHW, defective_MHW = base.fuse(good_NPHW), base.fuse(defective_MPHW)
        for reduction, share in _reduction_options(config, parts):
            scorer = replace(base, reduction=reduction, topk=share)
            scores = scorer.score(good_NPHW, good_NHW), scorer.score(defective_MPHW, defective_MHW)
            options.append((auroc(*scores, defective.weights), scorer))
    # Python's sort is stable: among equals the earlier option stays first.
    options.sort(key=lambda option: -option[0])
    highest = options[0][0]
    counted = effective(len(defective_MPHW), defective.weights)
    near = highest - auroc_error(highest, len(good_NPHW), counted)
    _, best = max((o for o in options if o[0] >= near), key=lambda option: _evidence(option[1]))
    rows = tuple(
        {"weights": list(s.weights), "reduction": reduction_name(s), "auroc": value} for value, s in options
    )
    return _finished(best, good, defective, (good_NPHW, defective_MPHW), normalise, rates, rows)


def _finished(
    scorer: Scorer,
    good: UnitMaps,
    defective: UnitMaps,
    normalised: tuple[Tensor, Tensor],
    normalise: str,
    rates: tuple[float, float],
    candidates: tuple[Mapping[str, Any], ...] = (),
) -> Selection:
    """A chosen fusion with the statistics of all good images, its thresholds and its colours."""
    good_NPHW, defective_MPHW = normalised
    good_NHW = scorer.fuse(good_NPHW)
    good_N, defective_M = scorer.score(good_NPHW, good_NHW), scorer.score(defective_MPHW)
    center_PHW, scale_PHW = normal_statistics(good.maps_NPHW, normalise)
    images = limit_of(good_N, rates[0])
    positions = limit_of(good_NHW.flatten(1).amax(1).double(), rates[1])
    chosen = replace(
        scorer,
        center_PHW=center_PHW,
        scale_PHW=scale_PHW,
        threshold=images.threshold,
        colours=colours_of(good_NHW),
        typical=images.typical,
        pixel_typical=positions.typical,
        pixel_threshold=positions.threshold,
    )
    return Selection(chosen, auroc(good_N, defective_M, defective.weights), good_N, defective_M, candidates)


def check_scoring(config: ScoringConfig, parts: tuple[str, ...]) -> None:
    """Refuse what a method of these parts cannot do, before anything is trained for it.

    Raises:
        ConfigError: Weights of other parts, or a score that the method does not have.
    """
    _weight_options(config, parts, tuple(1.0 for _ in parts))
    _reduction_options(config, parts)


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
    """Center and scale that make score parts comparable: (P, H, W) or (P, 1, 1), from good images.

    ``part`` takes each score part's mean and standard deviation over images and positions: a part that varies
    on good images counts for less. ``position`` takes them at each position, since an edge may vary more than
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


def reduction_name(scorer: Scorer) -> str:
    """For people: ``max``, ``mean``, ``topk 7 %``; of levels each one's, ``context: mean, detail: max``."""
    if scorer.levels:
        return ", ".join(f"{level.name}: {level.reduction}" for level in scorer.levels)
    return f"topk {scorer.topk:.0%}" if scorer.reduction == "topk" else scorer.reduction


def _reduction_options(config: ScoringConfig, parts: Sequence[str]) -> list[tuple[str, float]]:
    if config.reduction == IMAGE and IMAGE not in parts:
        raise ConfigError(
            "the method has no score of its own for the image",
            where="scoring.reduction = image",
            fix=f"use one of auto, {', '.join(REDUCTIONS)}",
        )
    own = (IMAGE,) if IMAGE in parts else ()
    names = (*REDUCTIONS, *own) if config.reduction == "auto" else (config.reduction,)
    plain = [(name, config.topk[0]) for name in names if name != "topk"]
    return plain + ([("topk", share) for share in config.topk] if "topk" in names else [])


def _evidence(scorer: Scorer) -> tuple[float, int]:
    """How much a score averages over: the share of positions, then parts."""
    share = {"max": 0.0, "mean": 1.0, IMAGE: 1.0}.get(scorer.reduction, scorer.topk)
    return share, sum(weight != 0 for weight in scorer.weights)


def _weight_options(
    config: ScoringConfig, parts: Sequence[str], published: tuple[float, ...]
) -> list[tuple[float, ...]]:
    if config.weights == "paper":
        return [published]
    if config.weights != "auto":
        _check_weights(config.weights, parts)
        return [config.weights]
    mixed = [part != IMAGE for part in parts]
    total = sum(published)
    own = tuple(weight / total for weight in published)
    # Every non-empty subset of the parts, equally weighted: coarse on purpose, since a fine grid only fits
    # the synthetic defects' noise.
    subsets = itertools.product(*((0, 1) if may else (0,) for may in mixed))
    equal = [tuple(one / sum(on) for one in on) for on in subsets if any(on)]
    return list(dict.fromkeys([own, *equal]))


def _check_weights(weights: tuple[float, ...], parts: Sequence[str]) -> None:
    where = f"scoring.weights = {list(weights)}"
    if len(weights) != len(parts):
        raise ConfigError(
            f"{len(weights)} weights for {len(parts)} score parts",
            where=where,
            fix=f"give a weight to each of {', '.join(parts)}, in this order",
        )
    if IMAGE in parts and weights[parts.index(IMAGE)] != 0:
        raise ConfigError(
            "the score part image is of the whole image and has no place in a map",
            where=where,
            fix="weigh it 0; scoring.reduction=image takes it for the score",
        )
