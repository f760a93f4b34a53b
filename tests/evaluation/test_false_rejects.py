"""Sentences on a threshold that few images set."""

from __future__ import annotations

import numpy as np

from nfbmr.evaluation.false_rejects import note_on_missed, note_on_outlier
from nfbmr.evaluation.intervals import UNDEFINED, Estimate

PARTS = [f"good/{number:03}.png" for number in range(14)]


def test_one_part_that_makes_the_threshold_is_named() -> None:
    scores = [*np.linspace(-0.5, 0.3, 13), 1.93]
    (note,) = note_on_outlier(PARTS, scores)
    assert "good/013.png scores 1.93, the next one 0.3" in note
    assert note_on_outlier(PARTS, [*scores[:13], 1.2]) == []
    assert note_on_outlier(PARTS[:7], [0.0] * 6 + [9.0]) == []  # of so few nothing can be said


def test_a_part_that_several_images_show_is_one() -> None:
    """Two images of one odd part do not hide each other."""
    scores = [*np.linspace(-0.5, 0.3, 13), 1.93]
    assert note_on_outlier([*PARTS, PARTS[13]], [*scores, 1.9])


def test_a_threshold_that_finds_few_of_the_pasted_defects_is_told() -> None:
    (note,) = note_on_missed({"image_recall": Estimate(0.29, 0.1, 0.5)})
    assert "29% score above the threshold" in note
    assert note_on_missed({"image_recall": Estimate(0.5, 0.3, 0.7)}) == []
    assert note_on_missed({"image_recall": UNDEFINED}) == []
