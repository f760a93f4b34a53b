"""From an anomaly map to what people look at: a predicted mask, its regions, numbers with 1 at the limit.

Shapes: H W the anomaly map, h w the picture, N good images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nfbmr.scoring.maps import upsampled

Floats = NDArray[np.float32]
"""Real numbers, float32."""
Bools = NDArray[np.bool_]
"""Yes or no at each position."""


class Limit(NamedTuple):
    """What values of one kind (image scores, or positions of a map) are compared with.

    Attributes:
        typical: The median of the good images that pass.
        threshold: Values above it count as anomalous.
    """

    typical: float
    threshold: float

    def relative(self, value: float, threshold: float | None = None) -> float:
        """A value as people read it: 1 at the threshold, 0 at a typical good image.

        ``relative(s) = 1 + (s - t) / (T - c)``, with t the threshold that counts, T the model's own and c the
        typical value, so ``(s - c) / (T - c)`` where both are the same. It rises with s, may be negative and
        has no upper end; it is NaN where the typical value is not known. The unit stays the model's where
        `threshold` is another, so that numbers compare.

        Args:
            value: Score or map value.
            threshold: That counts; by default the model's own.

        Example:
            >>> limit = Limit(typical=-4.0, threshold=-2.0)
            >>> limit.relative(-2.0), limit.relative(-4.0), limit.relative(2.0)
            (1.0, 0.0, 3.0)
            >>> limit.relative(2.0, threshold=2.0)
            1.0
        """
        unit = self.threshold - self.typical
        if unit <= 0:  # good images that are all alike: any step above them is a long way
            unit = max(1e-3 * abs(self.threshold), 1e-6)
        return 1.0 + (value - (self.threshold if threshold is None else threshold)) / unit


@dataclass(frozen=True)
class Peak:
    """The highest place of a map, in the picture's pixels.

    Attributes:
        x: From the left.
        y: From the top.
        value: As :meth:`Limit.relative` gives it: 1 at the threshold of positions.
    """

    x: int
    y: int
    value: float


@dataclass(frozen=True)
class Region:
    """A connected piece of the predicted mask, in the picture's pixels.

    Attributes:
        x: Left edge of its box.
        y: Upper edge.
        width: Width of the box.
        height: Height of the box.
        area: Pixels of the region itself.
        share: Share of the whole picture, from 0 to 1.
        peak: Its highest value, 1 at the threshold of positions.
        peak_x: Column of that place, in pixels of the picture.
        peak_y: Row of that place, in pixels of the picture.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    share: float
    peak: float
    peak_x: int
    peak_y: int


class _Piece(NamedTuple):
    """A connected piece: where it is, which pixels of its box are its own, its highest value and place."""

    box: tuple[slice, slice]
    inside_hw: Bools
    value: float
    place: tuple[int, int]


def predicted_mask(map_HW: Floats, size: tuple[int, int], threshold: float) -> Bools:
    """Where a map says that a picture is defective, (h, w): the union of its regions.

    The map is upsampled bilinearly to the picture's own size and compared with the threshold of positions.
    Connected pieces (diagonals included) smaller than one position of the map are left out, but the highest
    piece always stays: there is a region exactly where the map's own maximum exceeds the threshold. That is
    what the threshold's false-reject rate is stated for, whatever the picture's size.

    Args:
        map_HW: Anomaly map, at any resolution.
        size: (h, w).
        threshold: Threshold of positions.

    Example:
        >>> predicted_mask(np.float32([[0, 9], [0, 0]]), (4, 4), 5.0).astype(int).tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    mask_hw = np.zeros(size, dtype=np.bool_)
    for piece in _pieces(map_HW, size, threshold):
        mask_hw[piece.box] |= piece.inside_hw
    return mask_hw


def regions_of(map_HW: Floats, size: tuple[int, int], limit: Limit) -> tuple[Region, ...]:
    """The regions of :func:`predicted_mask`, those with the highest peak first.

    Args:
        map_HW: Anomaly map, at any resolution.
        size: (h, w) of the picture.
        limit: Limit of positions.

    Example:
        >>> (region,) = regions_of(np.float32([[0, 0, 0], [0, 0, 8]]), (20, 30), Limit(0.0, 4.0))
        >>> (region.x, region.y, region.width, region.height, region.peak)
        (20, 10, 10, 10, 2.0)
    """
    return tuple(
        Region(
            x=piece.box[1].start,
            y=piece.box[0].start,
            width=piece.box[1].stop - piece.box[1].start,
            height=piece.box[0].stop - piece.box[0].start,
            area=(area := int(piece.inside_hw.sum())),
            share=area / (size[0] * size[1]),
            peak=limit.relative(piece.value),
            peak_x=piece.place[1],
            peak_y=piece.place[0],
        )
        for piece in _pieces(map_HW, size, limit.threshold)
    )


def peak_of(map_HW: Floats, size: tuple[int, int], limit: Limit) -> Peak | None:
    """The middle of a map's highest position; None where the map holds no finite number.

    A part may be rejected by a score that no single position accounts for (a mean, say). It has no region
    then, and this is where to look first.

    Example:
        >>> peak_of(np.float32([[0, 0, 0], [0, 0, 2]]), (20, 30), Limit(0.0, 4.0))
        Peak(x=25, y=15, value=0.5)
    """
    finite_HW = np.where(np.isfinite(map_HW), map_HW, -np.inf)
    row, column = np.unravel_index(int(finite_HW.argmax()), map_HW.shape)
    value = float(finite_HW[row, column])
    if not np.isfinite(value):
        return None
    (h, w), (H, W) = size, map_HW.shape
    return Peak(int((column + 0.5) * w / W), int((row + 0.5) * h / H), limit.relative(value))


def _pieces(map_HW: Floats, size: tuple[int, int], threshold: float) -> list[_Piece]:
    """Connected pieces above the threshold, the highest first; specks only where there is nothing else."""
    if not map_HW.size or not map_HW.max() > threshold:
        return []
    up_hw = upsampled(map_HW, size)
    on_hw = up_hw > threshold
    if not on_hw.any():  # the maximum lies between pixels, which are all a little lower
        on_hw[np.unravel_index(int(up_hw.argmax()), size)] = True
    pieces = sorted(_connected(up_hw, on_hw), key=lambda piece: -piece.value)
    smallest = size[0] * size[1] / map_HW.size
    return [piece for i, piece in enumerate(pieces) if i == 0 or piece.inside_hw.sum() >= smallest]


def _connected(up_hw: Floats, on_hw: Bools) -> Iterator[_Piece]:
    from scipy import ndimage

    rows, columns = np.flatnonzero(on_hw.any(1)), np.flatnonzero(on_hw.any(0))
    top, left = int(rows[0]), int(columns[0])
    # Numbers take four times the memory of the mask: only where there is something to number.
    part_hw = on_hw[top : rows[-1] + 1, left : columns[-1] + 1]
    label_hw, _ = ndimage.label(part_hw, structure=np.ones((3, 3), dtype=int))
    for label, (down, across) in enumerate(ndimage.find_objects(label_hw), start=1):
        inside_hw = label_hw[down, across] == label
        box = slice(down.start + top, down.stop + top), slice(across.start + left, across.stop + left)
        values_hw = np.where(inside_hw, up_hw[box], -np.inf)
        y, x = np.unravel_index(int(values_hw.argmax()), values_hw.shape)
        place = int(y) + box[0].start, int(x) + box[1].start
        yield _Piece(box, inside_hw, float(values_hw[y, x]), place)
