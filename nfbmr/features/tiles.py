"""A large picture in overlapping tiles, whose maps are joined to the map of the whole.

Tiles begin at multiples of :data:`GRID` pixels, so that every tap's positions lie where they lie in the
whole. Neighbours overlap; what lies nearer to a cut edge than the margin is taken from the tile that sees
what is around it. Where a network looks no further than the margin, the joined map is that of the whole. What
it averages over all positions (squeeze and excitation) it averages over a tile.

Legend: H W the picture, h w a tap's map, T a tile's side, all but maps in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from nfbmr.data.pictures import Size
from nfbmr.errors import BackboneError
from nfbmr.features.table import Shape

GRID = 32
"""Pixels: the stride of the deepest taps of usual networks."""
_SHARE = 4
"""A margin is this part of a tile."""


class Tapped(Protocol):
    """What is asked of a :class:`~nfbmr.features.backbone.Backbone`."""

    def shapes(self, size: Size) -> dict[str, Shape]:
        """(C, H, W) of every tap."""
        ...


class Span(NamedTuple):
    """A tile along one side: where it begins, and from where to where its positions are kept, in pixels."""

    start: int
    first: int
    end: int


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Args:
        picture: (H, W), multiples of :data:`GRID`.
        tile: Side T of a tile at most; rounded down to a multiple of :data:`GRID`.

    Example:
        >>> tiling = Tiling((128, 256), 128)
        >>> tiling.seen, tiling.margin, len(tiling.rows), len(tiling.columns)
        ((128, 128), 32, 1, 3)
    """

    picture: tuple[int, int]
    tile: int

    @property
    def seen(self) -> tuple[int, int]:
        """(H, W) of a tile: the network sees no more at once."""
        side = self.tile // GRID * GRID
        return min(side, self.picture[0]), min(side, self.picture[1])

    @property
    def margin(self) -> int:
        """Pixels at a cut edge that are seen and not kept, at least."""
        return max(GRID, self.tile // _SHARE // GRID * GRID)

    @property
    def rows(self) -> tuple[Span, ...]:
        """Tiles from top to bottom."""
        return _spans(self.picture[0], self.seen[0], self.margin)

    @property
    def columns(self) -> tuple[Span, ...]:
        """Tiles from left to right."""
        return _spans(self.picture[1], self.seen[1], self.margin)

    def joined(
        self,
        forward: Callable[[Tensor], Sequence[Tensor]],
        x_B3HW: Tensor,
        backbone: Tapped,
    ) -> tuple[Tensor, ...]:
        """Maps of the whole, a (B, C, h, w) a tap, one tile after the other.

        Args:
            forward: Gives the maps of a tile.
            x_B3HW: Pictures.
            backbone: Tells the shapes of the whole maps; :meth:`check` has seen it.
        """
        shapes = backbone.shapes(self.picture).values()
        strides = [self.picture[0] // height for _, height, _ in shapes]
        whole: list[Tensor] = []
        for row in self.rows:
            for column in self.columns:
                top, left = row.start, column.start
                x = x_B3HW[:, :, top : top + self.seen[0], left : left + self.seen[1]]
                maps = forward(x)
                whole = whole or [  # x.shape[0], not len(x): the batch may be open, in a graph
                    torch.empty(x.shape[0], *shape, dtype=y.dtype).contiguous(
                        memory_format=torch.channels_last
                    )
                    for y, shape in zip(maps, shapes, strict=True)
                ]
                for into, y_BCHW, stride in zip(whole, maps, strides, strict=True):
                    into[_cut(row, column, stride)] = y_BCHW[_cut(_moved(row), _moved(column), stride)]
        return tuple(whole)

    def check(self, backbone: Tapped) -> None:
        """See that every tap's positions lie on the tiles' grid, in the whole and in a tile.

        Raises:
            BackboneError: One's do not, or the backbone cannot work at this size.
        """
        for picture in (self.picture, self.seen):
            for tap, (_, height, width) in backbone.shapes(picture).items():
                stride = picture[0] // height
                if GRID % stride or (height * stride, width * stride) != picture:
                    raise BackboneError(
                        f"{tap} gives a map of {height} x {width} of {picture[0]} x {picture[1]} px, "
                        f"which cannot be joined from tiles: its positions do not divide {GRID} px",
                        where="features.tile",
                        fix="set features.tile=null, or tap blocks with a stride of 32 at most",
                    )


def whole_maps(
    tiling: Tiling | None,
    forward: Callable[[Tensor], tuple[Tensor, ...]],
    x_B3HW: Tensor,
    backbone: Tapped,
) -> tuple[Tensor, ...]:
    """Maps of whole pictures, (B, C, h, w) a tap: in one pass, or tile by tile (:meth:`Tiling.joined`)."""
    return forward(x_B3HW) if tiling is None else tiling.joined(forward, x_B3HW, backbone)


def tiling_of(picture: tuple[int, int], tile: int | None) -> Tiling | None:
    """How a picture of (H, W) is cut; None where it is no larger than a tile."""
    if tile is None or max(picture) <= tile:
        return None
    return Tiling(picture, tile)


def _spans(side: int, tile: int, margin: int) -> tuple[Span, ...]:
    """Tiles evenly along a side; each cut in the middle of the overlap of two."""
    count = max(1, -(-(side - 2 * margin) // (tile - 2 * margin))) if tile < side else 1
    starts = [(side - tile) * i // max(1, count - 1) // GRID * GRID for i in range(count)]
    cuts = [(before + tile + after) // 2 // GRID * GRID for before, after in pairwise(starts)]
    return tuple(Span(*span) for span in zip(starts, [0, *cuts], [*cuts, side], strict=True))


def _moved(span: Span) -> Span:
    """What is kept, counted from the tile's own beginning."""
    return Span(0, span.first - span.start, span.end - span.start)


def _cut(row: Span, column: Span, stride: int) -> tuple[slice, ...]:
    rows, columns = (slice(span.first // stride, span.end // stride) for span in (row, column))
    return slice(None), slice(None), rows, columns
