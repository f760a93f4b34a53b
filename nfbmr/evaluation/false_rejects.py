"""Sentences on a threshold that few images set: what it rejects, and what it lets pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nfbmr.evaluation.intervals import Estimate
from nfbmr.evaluation.summary import SelectionFacts
from nfbmr.scoring.thresholds import FEWEST_IN_TAIL
from nfbmr.text import count, percentage

FAR_OFF = 3.5
"""Times the stated false-reject rate: a threshold that may reject more is worth a word."""
FEWEST_FOR_OUTLIERS = 8
"""Good parts among which one may be told to be an outlier."""
FAR_AHEAD = 1.5
"""A good part that leads the next one by as many times of what this leads the lowest by is an outlier."""


def note_on_threshold(parts: int, stated: float, expected: tuple[float, float]) -> list[str]:
    """A word where so few good parts set a threshold that it may reject several times what is stated.

    Args:
        parts: Good validation parts.
        stated: The false-reject rate that it was set at.
        expected: Between which shares of new good parts it rejects.
    """
    low, high = expected
    if parts > FEWEST_IN_TAIL and high <= FAR_OFF * stated:
        return []
    return [
        f"The threshold comes from {count(parts, 'good validation part')}: it rejects {percentage(low)} to "
        f"{percentage(high)} of new good parts (95% confidence), where {percentage(stated)} are stated. "
        "More good images make it surer."
    ]


def note_on_outlier(units: Sequence[str], scores: Sequence[float]) -> list[str]:
    """A word where one good validation part scores so far above all others that it makes the threshold.

    That is where it leads the next one by :data:`FAR_AHEAD` times of what this leads the lowest by. With 14
    parts chance does that hardly ever where scores are normally distributed, and six times in a hundred where
    they are exponentially; of fewer than 8 nothing is said.

    Args:
        units: The part that each good validation image shows.
        scores: Of the images.
    """
    by_part: dict[str, float] = {}
    for unit, score in zip(units, scores, strict=True):
        by_part[unit] = max(score, by_part.get(unit, score))
    ordered = sorted(by_part, key=lambda part: -by_part[part])
    if len(ordered) < FEWEST_FOR_OUTLIERS:
        return []
    highest, second, lowest = (by_part[part] for part in (ordered[0], ordered[1], ordered[-1]))
    if highest - second <= FAR_AHEAD * (second - lowest):
        return []
    return [
        f"The good validation part {ordered[0]} scores {highest:.3g}, the next one {second:.3g}: it alone "
        "makes the threshold so high. Look at it; if it is no good part, take it out and train again."
    ]


def note_on_missed(estimates: Mapping[str, Estimate]) -> list[str]:
    """A word where more than half of the defects on validation images score below the threshold.

    They are pasted ones, and known defects where there are some.

    Args:
        estimates: Of the validation images.
    """
    found = estimates["image_recall"]
    if not found.defined or found.value >= 0.5:
        return []
    return [
        f"Of the defects on validation images {percentage(found.value)} score above the threshold: "
        "faint defects will pass. A higher selection.false_reject_rate finds more of them, and rejects more "
        "good parts."
    ]


def note_on_false_rejects(estimates: Mapping[str, Estimate], selection: SelectionFacts) -> list[str]:
    """A word where more good test images are rejected than chance and a threshold from few images explain.

    Args:
        estimates: Of the test images.
        selection: With the stated rate and the expected ones.
    """
    rejected, stated = estimates["image_false_reject_rate"], selection.false_reject_rate
    expected = selection.false_reject_interval
    if expected is None or not rejected.low > max(expected[1], stated):
        return []
    return [
        f"{percentage(rejected.value)} of the good test images are rejected, where {percentage(stated)} are "
        f"stated and up to {percentage(expected[1])} are to be expected, given how many images set the "
        "threshold: they do not look like those trained on. Were they taken with the same camera, light and "
        "parts?"
    ]
