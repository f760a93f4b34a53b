r"""Several levels, each with a score of its own, joined to one score an image.

A method that looks at an image coarsely and finely has score components that mean different things: what is
wrong with a part as a whole, and what is wrong at a place. One map of all of them would let the coarse haze
hide a small place, and one reduction would suit neither. So each level l fuses its own components to a map
and reduces that to a score s_l, and the image's score is

.. math::
    s = \sum_l a_l \, \frac{s_l - \mu_l}{\sigma_l}, \qquad
    a_l = \frac{d_l^3}{\sum_k d_k^3}, \qquad d_l = \Phi^{-1}(\mathrm{AUROC}_l)

with mean and deviation over good validation images. For independent normal scores of unit variance a
weight in proportion to d is the best there is (Su & Liu, JASA 88, 1993); the cube leans further towards the
better levels, since those that judge one map are far from independent. A level that separates nothing has no
weight.

Shapes: N good and M defective images, P score components, H W the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

from torch import Tensor

from nfbmr.scoring.ranking import auroc

PRIOR_IMAGES = 3
"""With few validation images levels count more alike: as if so many images had said that they are alike."""

POWER = 3
"""Of a level's separability in its share (LOG.md, 2026-11-29)."""

_LIMIT = 0.999  # beyond it an AUROC is a matter of one image


@dataclass(frozen=True)
class Level:
    """A group of score components that makes a score of its own.

    Attributes:
        name: For people.
        weights: Weights of all the method's components; those of other levels are 0.
        reduction: Reduction of the level's map to its score.
        center: Mean score of good validation images.
        scale: Its standard deviation.
        share: Share of the image's score, a_l.
        auroc: AUROC of the level alone, on validation data.
    """

    name: str
    weights: tuple[float, ...]
    reduction: str
    center: float = 0.0
    scale: float = 1.0
    share: float = 1.0
    auroc: float = float("nan")

    def as_json(self) -> dict[str, Any]:
        """For the model's folder."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Level:
        """The inverse of :meth:`as_json`."""
        return cls(**{**value, "weights": tuple(value["weights"])})


def separability(value: float) -> float:
    """The distance d in deviations, up to root two, that an AUROC stands for; 0 for a half or less.

    Example:
        >>> round(separability(0.9), 3), separability(0.4)
        (1.282, 0.0)
    """
    return max(0.0, NormalDist().inv_cdf(min(_LIMIT, max(0.5, value))))


def shares(aurocs: Sequence[float], images: int) -> tuple[float, ...]:
    """The levels' shares of the image's score, from their AUROCs on so many good validation images.

    Example:
        >>> [round(share, 2) for share in shares([0.99, 0.6], 100)]
        [0.98, 0.02]
        >>> shares([0.5, 0.5], 100)
        (0.5, 0.5)
    """
    powers = [separability(value) ** POWER for value in aurocs]
    mean = sum(powers) / len(powers)
    if mean == 0:
        return tuple(1.0 / len(powers) for _ in powers)
    shrunk = [(images * power + PRIOR_IMAGES * mean) / (images + PRIOR_IMAGES) for power in powers]
    return tuple(power / sum(shrunk) for power in shrunk)


def fitted(
    scored: Sequence[Sequence[tuple[Level, Tensor, Tensor]]], weights_M: Sequence[float] | None = None
) -> tuple[Level, ...]:
    """Levels with their centers, scales and shares, from their scores of validation images.

    Args:
        scored: For each level the ways to make its score, each with scores of good images, (N,), and of
            defective ones, (M,); the one with the highest AUROC is taken, of equals the first.
        weights_M: What each defective image counts for; None for all alike.
    """
    best = [
        max(
            ((auroc(good_N, defective_M, weights_M), level, good_N) for level, good_N, defective_M in ways),
            key=lambda way: way[0],
        )
        for ways in scored
    ]
    level_shares = shares([value for value, _, _ in best], len(best[0][2]))
    return tuple(
        replace(
            level,
            center=float(good_N.mean()),
            scale=float(good_N.std(correction=0)) or 1.0,
            share=share,
            auroc=value,
        )
        for (value, level, good_N), share in zip(best, level_shares, strict=True)
    )
