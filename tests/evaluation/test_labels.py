"""Names beside points: they cover neither each other nor the points where there is room."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from nfbmr.evaluation.labels import Label, write_labels


def covered(a, b):
    """Square pixels that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_a_dozen_points_overlap_nowhere_and_stay_inside(seed):
    rng = np.random.default_rng(seed)
    figure = Figure(figsize=(6.6, 5.2), dpi=100)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set(xlim=(1, 1000), ylim=(60, 100))
    points = [(10 ** rng.uniform(0.3, 2.6), rng.normal(88, 4)) for _ in range(12)]
    points += [(points[0][0] * 1.02, points[0][1] + 0.2)]  # all but on top of each other
    labels = [
        Label(x, y, f"method-{n}", (x / 1.1, x * 1.1), (y - 1, y + 1)) for n, (x, y) in enumerate(points)
    ]
    boxes = write_labels(axes, labels)
    for a, b in itertools.combinations(boxes, 2):
        assert covered(a, b) == 0
    at = axes.transData.transform(points)
    for box in boxes:
        assert not any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in at)
    frame = axes.get_window_extent()
    for left, lower, right, upper in boxes:
        assert left >= frame.x0 - 1
        assert right <= frame.x1 + 1
        assert lower >= frame.y0 - 1
        assert upper <= frame.y1 + 1
    assert {text.get_text() for text in axes.texts} == {label.text for label in labels}


def test_no_points_and_one_point_are_fine():
    axes = Figure().add_subplot()
    assert write_labels(axes, []) == []
    assert len(write_labels(axes, [Label(0.5, 0.5, "alone", (0.4, 0.6), (0.4, 0.6))])) == 1
