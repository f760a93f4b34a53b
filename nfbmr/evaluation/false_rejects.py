"""Sentences on the false rejects of a threshold that few images set."""

from __future__ import annotations

from collections.abc import Mapping

from nfbmr.evaluation.intervals import Estimate
from nfbmr.evaluation.summary import SelectionFacts
from nfbmr.scoring.thresholds import FEWEST_IN_TAIL
from nfbmr.text import count, percentage

FAR_OFF = 3.5
"""Times the stated false-reject rate: a threshold that may reject more is worth a word."""


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
