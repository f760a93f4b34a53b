"""Names beside points of a picture, placed so that they cover neither each other nor the points.

Every label may stand at several distances and angles from its point; each takes the place that covers least
of all else, over and over until nobody moves. A label that had to go far is tied to its point by a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.evaluation.style import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = NDArray[np.float64]
"""Left, lower, right and upper edge, in pixels."""
Segment = tuple[tuple[float, float], tuple[float, float]]
"""Two ends of a line in a figure, (x, y) each."""

_ANGLES = tuple(range(0, 360, 30))
_RADII = (5.0, 11.0, 19.0, 30.0, 44.0, 62.0)
_TIED = 12.0
_SWEEPS = 6
_MARGIN = 1.5
_POINT = 5.0
_LINE = 2.0


@dataclass(frozen=True)
class Label:
    """A point that is to have a name.

    Attributes:
        x: In the axes' own units, as `y`.
        text: The name.
        range_x: Where its interval across begins and ends: it is in the way of labels, and so is `range_y`.
        colour: Colour of the name.
        bold: Whether it stands out.
    """

    x: float
    y: float
    text: str
    range_x: tuple[float, float]
    range_y: tuple[float, float]
    colour: str = INK
    bold: bool = False


def write_labels(
    axes: Axes, labels: Sequence[Label], *, lines: Sequence[Segment] = (), size: float = 8.5
) -> list[Box]:
    """Write names beside their points. The axes keep their limits from here on.

    Args:
        axes: Everything else is drawn on them already.
        labels: The points.
        lines: Ends (x, y) of level or upright lines that are in the way as well.
        size: Size of the letters.

    Returns:
        The box of each name, in pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.patheffects import withStroke

    figure: Any = axes.figure
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # the layout is settled before anything is measured
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
    extent: Any = axes.get_window_extent(renderer)
    frame = np.asarray([extent.x0, extent.y0, extent.x1, extent.y1])
    pixels_a_point = figure.dpi / 72
    at = [np.asarray(axes.transData.transform((label.x, label.y))) for label in labels]
    sizes = []
    for label in labels:
        weight = "bold" if label.bold else "normal"
        text = axes.text(label.x, label.y, label.text, fontsize=size, fontweight=weight)
        lettered = text.get_window_extent(renderer)
        sizes.append((lettered.width + 2 * _MARGIN, lettered.height + 2 * _MARGIN))
        text.remove()
    half = _POINT * pixels_a_point
    points = [np.asarray([p[0] - half, p[1] - half, p[0] + half, p[1] + half]) for p in at]
    obstacles = [*points, *_intervals(axes, labels), *_segments(axes, lines)]
    chosen = _placed(at, sizes, obstacles, frame, pixels_a_point)
    boxes = []
    for label, point, extent, (radius, angle) in zip(labels, at, sizes, chosen, strict=True):
        box = _box(point, extent, radius * pixels_a_point, angle)
        boxes.append(box)
        x, y = axes.transData.inverted().transform(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
        tie = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        name = axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(float(x), float(y)),
            ha="center",
            va="center",
            fontsize=size,
            fontweight="bold" if label.bold else "normal",
            color=label.colour,
            arrowprops=tie if radius >= _TIED else None,
            zorder=6,
            annotation_clip=False,
        )
        name.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    return boxes


def _placed(
    at: Sequence[NDArray[np.float64]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    frame: Box,
    scale: float,
) -> list[tuple[float, int]]:
    """Radius (in points) and angle of each label."""
    places = [(radius, angle) for radius in _RADII for angle in _ANGLES]
    chosen = [places[0]] * len(at)
    boxes = [_box(p, s, places[0][0] * scale, places[0][1]) for p, s in zip(at, sizes, strict=True)]
    for _ in range(_SWEEPS):
        before = list(chosen)
        for i, (point, extent) in enumerate(zip(at, sizes, strict=True)):
            others = [*obstacles, *(box for j, box in enumerate(boxes) if j != i)]
            blocks = np.stack(others) if others else np.zeros((0, 4))
            box_at = {place: _box(point, extent, place[0] * scale, place[1]) for place in places}
            costs = [_cost(box_at[place], blocks, frame, place[0]) for place in places]
            chosen[i] = places[int(np.argmin(costs))]
            boxes[i] = box_at[chosen[i]]
        if chosen == before:
            break
    return chosen


def _cost(box: Box, blocks: NDArray[np.float64], frame: Box, radius: float) -> float:
    """What a place covers, in square pixels; that it is far counts a little, outside the axes a lot."""
    width = np.minimum(blocks[:, 2], box[2]) - np.maximum(blocks[:, 0], box[0])
    height = np.minimum(blocks[:, 3], box[3]) - np.maximum(blocks[:, 1], box[1])
    covered = float((np.clip(width, 0, None) * np.clip(height, 0, None)).sum())
    outside = np.clip([frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3]], 0, None)
    return covered + 50 * float(np.sum(outside)) + radius


def _box(point: NDArray[np.float64], extent: tuple[float, float], radius: float, angle: int) -> Box:
    """The box of a label whose nearest edge is a radius away, in a direction."""
    width, height = extent
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y = point[0] + c * (radius + width / 2), point[1] + s * (radius + height / 2)
    return np.asarray([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def _intervals(axes: Axes, labels: Sequence[Label]) -> list[Box]:
    boxes = []
    for label in labels:
        left, right = axes.transData.transform([(x, label.y) for x in label.range_x])
        low, high = axes.transData.transform([(label.x, y) for y in label.range_y])
        boxes.append(np.asarray([low[0] - _LINE, low[1], high[0] + _LINE, high[1]]))
        boxes.append(np.asarray([left[0], left[1] - _LINE, right[0], right[1] + _LINE]))
    return boxes


def _segments(axes: Axes, lines: Sequence[Segment]) -> list[Box]:
    boxes = []
    for ends in lines:
        corners = axes.transData.transform(ends)
        boxes.append(np.concatenate([corners.min(axis=0) - _LINE, corners.max(axis=0) + _LINE]))
    return boxes
