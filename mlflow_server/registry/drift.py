"""Do new good parts still look as they did when the threshold was set?

Two questions, and they are not the same one. Have the scores moved: the two-sample test of Kolmogorov and
Smirnov, with how far they moved (Cliff's delta: how much oftener a new part scores higher than an old one
than lower, from -1 to 1). Does the threshold still keep its word: the share of new good parts that it
rejects, with its exact interval, against the share that was stated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nfbmr.evaluation.intervals import Estimate, proportion
from nfbmr.scoring.thresholds import realised_rates
from nfbmr.text import count

_Verdict = Literal["holds", "rejects too much", "scores fell", "too few images"]

SIGNIFICANT = 0.01
"""Probability below which a shift is not chance; small, since such checks are made again and again."""

LARGE = 0.474
"""Cliff's delta from which a shift is called large (Romano et al. 2006)."""

_ENOUGH = 20


@dataclass(frozen=True)
class Drift:
    """What a check of new good parts found.

    Attributes:
        verdict: In two words.
        sentence: The same in one sentence.
        statistic: Statistic of Kolmogorov and Smirnov: the largest distance between both distributions.
        probability: Probability of a distance as large by chance.
        delta: Cliff's: above 0 new parts score higher.
        rejects: Share of the new parts above the threshold.
        stated: Share that the threshold was set for.
        threshold: The model's.
        known: Good validation images.
        new: New images that could be scored.
        medians: Medians of the scores, then and now.
        unreadable: What was wrong with the others, by name.
    """

    verdict: _Verdict
    sentence: str
    statistic: float
    probability: float
    delta: float
    rejects: Estimate
    stated: float
    threshold: float
    known: int
    new: int
    medians: tuple[float, float]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the threshold."""
        return self.verdict == "holds"

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "verdict": self.verdict,
            "holds": self.holds,
            "sentence": self.sentence,
            "kolmogorov_smirnov": {"statistic": self.statistic, "probability": self.probability},
            "cliffs_delta": self.delta,
            "false_reject_rate": self.rejects.as_json(),
            "stated_false_reject_rate": self.stated,
            "threshold": self.threshold,
            "validation": {"images": self.known, "median": self.medians[0]},
            "new": {"images": self.new, "median": self.medians[1]},
            "unreadable": dict(self.unreadable),
        }


def drift(
    known: Sequence[float] | NDArray[np.float64],
    new: Sequence[float] | NDArray[np.float64],
    *,
    threshold: float,
    stated: float,
    confidence: float = 0.95,
    unreadable: Mapping[str, str] | None = None,
) -> Drift:
    """Compare scores of new good parts with those that the threshold was set on.

    A threshold from few images may reject more than it states of parts that have not changed
    (:func:`~nfbmr.scoring.thresholds.realised_rates`): that is no drift.

    Args:
        known: Scores of good validation images.
        new: Scores of new good images.
        threshold: The model's.
        stated: The share of good parts that it was set to reject.
        confidence: Confidence of the interval.
        unreadable: What was wrong with new images that could not be scored.

    Example:
        >>> old = np.linspace(0, 1, 100)
        >>> drift(old, old + 0.001, threshold=0.95, stated=0.05).verdict
        'holds'
        >>> drift(old, old + 0.5, threshold=0.95, stated=0.05).verdict
        'rejects too much'
    """
    from scipy.stats import ks_2samp

    old_N, new_M = np.asarray(known, dtype=np.float64), np.asarray(new, dtype=np.float64)
    test = ks_2samp(old_N, new_M)
    delta = cliffs_delta(old_N, new_M)
    rejects = proportion(float((new_M > threshold).sum()), len(new_M), confidence)
    verdict: _Verdict = "holds"
    if rejects.low > max(stated, realised_rates(len(old_N), stated, confidence)[1]):
        verdict = "rejects too much"
    elif test.pvalue < SIGNIFICANT and delta <= -LARGE:
        verdict = "scores fell"
    elif len(new_M) < _ENOUGH:
        verdict = "too few images"
    return Drift(
        verdict,
        _sentence(verdict, float(test.pvalue), delta, rejects, stated, len(new_M)),
        float(test.statistic),
        float(test.pvalue),
        delta,
        rejects,
        stated,
        threshold,
        len(old_N),
        len(new_M),
        (float(np.median(old_N)), float(np.median(new_M))),
        dict(unreadable or {}),
    )


def cliffs_delta(old_N: NDArray[np.float64], new_M: NDArray[np.float64]) -> float:
    """P(new > old) - P(new < old).

    Example:
        >>> cliffs_delta(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
        0.75
    """
    ordered_N = np.sort(old_N)
    below = np.searchsorted(ordered_N, new_M, side="left")
    not_above = np.searchsorted(ordered_N, new_M, side="right")
    return float((below + not_above - len(ordered_N)).mean() / len(ordered_N))


def _sentence(
    verdict: _Verdict, probability: float, delta: float, rejects: Estimate, stated: float, images: int
) -> str:
    share = f"it rejects {rejects:.1%} of {count(images, 'new good image')}, where {stated:.0%} were stated"
    moved = "the scores have not moved noticeably"
    if probability < SIGNIFICANT:
        how = "far " if abs(delta) >= LARGE else ""
        moved = f"the scores have moved {how}{'up' if delta > 0 else 'down'}"
    if verdict == "holds":
        return f"The threshold still holds: {share}; {moved}."
    if verdict == "rejects too much":
        return f"The threshold no longer holds: {share}; {moved}. Train again with the new images."
    if verdict == "scores fell":
        return (
            f"The threshold no longer holds: {share}, but {moved}, so that defects may pass which it used "
            "to stop. Train again with the new images."
        )
    return f"Too few images to tell whether the threshold holds: {share}; give {_ENOUGH} or more."
