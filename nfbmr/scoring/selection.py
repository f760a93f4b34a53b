"""Weights, reduction and thresholds chosen on validation data.

Shapes: N good and M defective images, P score components, H W the feature map.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from nfbmr.config import ScoringConfig
from nfbmr.errors import ConfigError
from nfbmr.scoring.fusion import IMAGE, REDUCTIONS, Scorer, reduction_name
from nfbmr.scoring.levels import Level, fitted
from nfbmr.scoring.normalisation import UnitMaps, cross_normalised, normal_statistics
from nfbmr.scoring.ranking import auroc, auroc_error, effective
from nfbmr.scoring.thresholds import colours_of, limit_of


@dataclass(frozen=True)
class Selection:
    """What was chosen on validation data, and everything it was chosen from.

    Attributes:
        scorer: The choice, threshold included.
        auroc: Image AUROC of the choice, good against synthetic (or, where asked for, test) defects.
        good_N: Scores of the good images by the choice, each unit judged by the others.
        defective_M: Scores of the defective images by the choice.
        candidates: Every candidate's weights, reduction and AUROC, best first.
    """

    scorer: Scorer
    auroc: float
    good_N: Tensor
    defective_M: Tensor
    candidates: tuple[Mapping[str, Any], ...]


def select_scorer(
    good: UnitMaps,
    defective: UnitMaps,
    config: ScoringConfig,
    *,
    components: tuple[str, ...],
    published: tuple[float, ...],
    false_reject_rate: float,
    levels: tuple[tuple[Level, ...], ...] = (),
    map_weights: tuple[float, ...] = (),
    pixel_false_reject_rate: float = 0.05,
) -> Selection:
    """Choose weights, reduction and threshold on validation data, by the rule of one standard error.

    Synthetic defects rank fusions only roughly, so the highest image AUROC is not taken for the best. Among
    all candidates within one standard error of it (Hanley & McNeil 1982), the one that averages over most
    evidence is chosen: the largest share of positions, then most components. (Breiman et al. 1984 prune trees
    so.)

    A unit is judged by statistics of the other units (:func:`cross_normalised`). Judged by its own as well it
    would look more normal than any new one, and the threshold would reject more good parts than it states.

    Args:
        good: Held-out good images.
        defective: Their synthetic defects, and known ones.
        config: Fixes what is not ``auto``.
        components: The components that the method yields.
        published: The source's own weights of them.
        false_reject_rate: Share of good images that the threshold may reject.
        levels: What the method's components are grouped to, each level in the ways there are to make its
            score; where weights and reduction are both ``auto``, levels make the score.
        map_weights: Weights of the components in the map, where levels make the score.
        pixel_false_reject_rate: Share of good images that may have any position above the threshold for
            positions.
    """
    normalise = "none" if config.weights == "paper" else config.normalise
    rates = (false_reject_rate, pixel_false_reject_rate)
    good_NPHW, defective_MPHW = (cross_normalised(images, good, normalise) for images in (good, defective))
    if levels and config.weights == "auto" and config.reduction == "auto":
        base = Scorer(components, map_weights, smooth=config.smooth)
        scored = [
            [(way, base.level_score(way, good_NPHW), base.level_score(way, defective_MPHW)) for way in ways]
            for ways in levels
        ]
        scorer = replace(base, levels=fitted(scored, defective.weights))
        return _finished(scorer, good, defective, (good_NPHW, defective_MPHW), normalise, rates)
    options = []
    for weights in _weight_options(config, components, published):
        base = Scorer(components, weights, smooth=config.smooth)
        good_NHW, defective_MHW = base.fuse(good_NPHW), base.fuse(defective_MPHW)
        for reduction, share in _reduction_options(config, components):
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


def check_scoring(config: ScoringConfig, components: tuple[str, ...]) -> None:
    """Refuse what a method of these components cannot do, before anything is trained for it.

    Raises:
        ConfigError: Weights of other components, or a score that the method does not have.
    """
    _weight_options(config, components, tuple(1.0 for _ in components))
    _reduction_options(config, components)


def _reduction_options(config: ScoringConfig, components: Sequence[str]) -> list[tuple[str, float]]:
    if config.reduction == IMAGE and IMAGE not in components:
        raise ConfigError(
            "the method has no score of its own for the image",
            where="scoring.reduction = image",
            fix=f"use one of auto, {', '.join(REDUCTIONS)}",
        )
    image_score = (IMAGE,) if IMAGE in components else ()
    names = (*REDUCTIONS, *image_score) if config.reduction == "auto" else (config.reduction,)
    plain = [(name, config.topk[0]) for name in names if name != "topk"]
    return plain + ([("topk", share) for share in config.topk] if "topk" in names else [])


def _evidence(scorer: Scorer) -> tuple[float, int]:
    """How much a score averages over: the share of positions, then components."""
    share = {"max": 0.0, "mean": 1.0, IMAGE: 1.0}.get(scorer.reduction, scorer.topk)
    return share, sum(weight != 0 for weight in scorer.weights)


def _weight_options(
    config: ScoringConfig, components: Sequence[str], published: tuple[float, ...]
) -> list[tuple[float, ...]]:
    if config.weights == "paper":
        return [published]
    if config.weights != "auto":
        _check_weights(config.weights, components)
        return [config.weights]
    mixed = [component != IMAGE for component in components]
    total = sum(published)
    of_source = tuple(weight / total for weight in published)
    # Every non-empty subset of the components, equally weighted: coarse on purpose, as a fine grid only fits
    # the synthetic defects' noise.
    subsets = itertools.product(*((0, 1) if may else (0,) for may in mixed))
    equal = [tuple(chosen / sum(on) for chosen in on) for on in subsets if any(on)]
    return list(dict.fromkeys([of_source, *equal]))


def _check_weights(weights: tuple[float, ...], components: Sequence[str]) -> None:
    where = f"scoring.weights = {list(weights)}"
    if len(weights) != len(components):
        raise ConfigError(
            f"{len(weights)} weights for {len(components)} score components",
            where=where,
            fix=f"give a weight to each of {', '.join(components)}, in this order",
        )
    if IMAGE in components and weights[components.index(IMAGE)] != 0:
        raise ConfigError(
            "the score component image is of the whole image and has no place in a map",
            where=where,
            fix="weigh it 0; scoring.reduction=image takes it for the score",
        )
