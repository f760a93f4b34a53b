"""Stored rows as tensors: by number, fast, in the stored type, channels_last.

A :class:`FeatureTable` is one map a picture; :class:`Features` are several of them side by side, which is
what a method reads. Nothing here knows where rows came from: a backbone, a flow, or a tensor in memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from nfbmr.data.samples import digest_of
from nfbmr.errors import StoreError

Rows = Sequence[int] | np.ndarray | Tensor
"""Numbers of rows, as whoever asks for them has them."""
Shape = tuple[int, int, int]
"""(C, H, W) of an image's features."""
Tensors = tuple[Tensor, ...]
"""A batch of each table, (B, C, H, W)."""
_JoinedAt = Literal["coarsest", "middle", "finest"]
VALUES_AT_ONCE = 1 << 24
"""Of features: 64 MiB as float32; what networks make of them is several times as much."""


class FeatureTable(ABC):
    """N maps of one shape, each under a key.

    Attributes:
        keys: The rows' keys, in their order.
        shape: (C, H, W) of a row.
        dtype: Type of what :meth:`gather` gives.
        space_key: Key of all that decided the rows but the pictures; "" for rows that were never stored.
    """

    keys: tuple[str, ...]
    shape: Shape
    dtype: torch.dtype
    space_key: str = ""

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def gather(self, rows: Rows) -> Tensor:
        """Rows by number, in the order given.

        Returns:
            (B, C, H, W), channels_last, in the stored type; a fresh tensor.
        """

    def batches(self, size: int) -> Iterator[Tensor]:
        """All rows in order, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.gather(range(start, min(start + size, len(self))))

    def part(self, rows: Rows) -> FeatureTable:
        """Some of the rows, as a table of their own; nothing is copied."""
        return PartTable(self, _as_list(rows))


class ShardTable(FeatureTable):
    """Rows of memory-mapped shards; a row is copied once, into the batch."""

    def __init__(
        self,
        keys: Sequence[str],
        rows_HWC: Sequence[Tensor],
        shape: Shape,
        dtype: torch.dtype,
        space_key: str = "",
        owner: object = None,
    ) -> None:
        self.space_key = space_key
        self._owner = owner  # kept alive as long as the table: an open space is never pruned
        self.keys = tuple(keys)
        self.shape = shape
        self.dtype = dtype
        self._rows = list(rows_HWC)

    def gather(self, rows: Rows) -> Tensor:
        """Rows by number."""
        rows_HWC = self._rows
        picked = [rows_HWC[row] for row in _as_list(rows)]
        if not picked:
            channels, height, width = self.shape
            return torch.empty(0, height, width, channels, dtype=self.dtype).permute(0, 3, 1, 2)
        return torch.stack(picked).permute(0, 3, 1, 2)


class PartTable(FeatureTable):
    """Some rows of another table."""

    def __init__(self, table: FeatureTable, rows: Sequence[int]) -> None:
        self._table, self._chosen = table, list(rows)
        self.keys = tuple(table.keys[row] for row in self._chosen)
        self.shape, self.dtype, self.space_key = table.shape, table.dtype, table.space_key

    def gather(self, rows: Rows) -> Tensor:
        """Rows by number, of this part."""
        return self._table.gather([self._chosen[row] for row in _as_list(rows)])


class TensorTable(FeatureTable):
    """Rows of one tensor in memory, on any device.

    Example:
        >>> table = TensorTable(torch.randn(5, 8, 4, 4))
        >>> table.gather([3, 1]).shape, len(table)
        (torch.Size([2, 8, 4, 4]), 5)
    """

    def __init__(self, rows_NCHW: Tensor, keys: Sequence[str] | None = None, space_key: str = "") -> None:
        self.space_key = space_key
        self._rows_NHWC = rows_NCHW.permute(0, 2, 3, 1).contiguous()
        channels, height, width = rows_NCHW.shape[1:]
        self.shape = (channels, height, width)
        self.dtype = rows_NCHW.dtype
        self.keys = tuple(keys) if keys is not None else tuple(map(str, range(len(rows_NCHW))))

    def gather(self, rows: Rows) -> Tensor:
        """Rows by number."""
        index = torch.as_tensor(_as_list(rows), dtype=torch.long, device=self._rows_NHWC.device)
        return self._rows_NHWC.index_select(0, index).permute(0, 3, 1, 2)


class JoinedTable(FeatureTable):
    r"""Several taps as one map: each brought to one of their heights and widths, then all concatenated.

    :math:`C = \sum_t C_t`. Larger maps are averaged, smaller ones interpolated (bilinearly).

    Args:
        tables: With the same keys in the same order.
        at: Whose height and width: those of the ``coarsest`` map, the ``finest``, or the ``middle`` one of
            the sizes that occur; of an even number, the finer of the two in the middle.
        neighbourhood: Side of the square of positions that each position of a tap averages first; 1 for
            itself alone. Beyond the border are zeros, as in PatchCore's code.
    """

    def __init__(
        self, tables: Sequence[FeatureTable], at: _JoinedAt = "coarsest", neighbourhood: int = 1
    ) -> None:
        self.tables = tuple(tables)
        self.neighbourhood = neighbourhood
        self.keys = self.tables[0].keys
        self.dtype = self.tables[0].dtype
        sizes = sorted({table.shape[1:] for table in tables}, key=math.prod)
        self.size = {"coarsest": sizes[0], "middle": sizes[len(sizes) // 2], "finest": sizes[-1]}[at]
        self.shape = (sum(table.shape[0] for table in tables), *self.size)
        averaged = () if neighbourhood == 1 else (f"neighbourhood {neighbourhood}",)
        self.space_key = digest_of([*(table.space_key for table in tables), *map(str, self.size), *averaged])

    def gather(self, rows: Rows) -> Tensor:
        """Rows by number, brought to one size and concatenated."""
        picked = _as_list(rows)
        maps = [self._resized(table.gather(picked)) for table in self.tables]
        return torch.cat(maps, dim=1).contiguous(memory_format=torch.channels_last)

    def _resized(self, y: Tensor) -> Tensor:
        if y.shape[0] == 0:  # not len(y): the batch may be open, in a graph
            return y.new_empty(0, y.shape[1], *self.size)
        if self.neighbourhood > 1:
            side = self.neighbourhood
            y = avg_pool2d(y.float(), side, stride=1, padding=side // 2).to(self.dtype)
        if y.shape[2:] == self.size:
            return y
        if y.shape[2] >= self.size[0] and y.shape[3] >= self.size[1]:
            return adaptive_avg_pool2d(y.float(), self.size).to(self.dtype)
        return interpolate(y.float(), size=self.size, mode="bilinear", align_corners=False).to(self.dtype)


def join(tables: Sequence[FeatureTable], at: _JoinedAt = "coarsest") -> FeatureTable:
    """Several taps of the same pictures as one table; one table is given back as it is.

    Raises:
        StoreError: The tables have other rows than each other, or there are none.
    """
    if not tables:
        raise StoreError("no tables to join", fix="name at least one tap")
    if any(table.keys != tables[0].keys for table in tables):
        raise StoreError("tables to join have different rows", fix="extract the same pictures for every tap")
    return tables[0] if len(tables) == 1 else JoinedTable(tables, at)


class Features:
    """What a method reads of each picture: aligned rows of one or several tables.

    Args:
        tables: With the same keys in the same order.

    Raises:
        StoreError: The tables have other rows than each other, or there are none.

    Example:
        >>> fine, coarse = TensorTable(torch.randn(5, 8, 4, 4)), TensorTable(torch.randn(5, 16, 2, 2))
        >>> features = Features((fine, coarse))
        >>> features.shapes, [tuple(y.shape) for y in features.gather([3, 1])]
        (((8, 4, 4), (16, 2, 2)), [(2, 8, 4, 4), (2, 16, 2, 2)])
    """

    def __init__(self, tables: Sequence[FeatureTable]) -> None:
        if not tables:
            raise StoreError("no tables", fix="name at least one tap")
        if any(table.keys != tables[0].keys for table in tables):
            raise StoreError("tables have different rows", fix="extract the same pictures for every tap")
        self.tables = tuple(tables)

    def __len__(self) -> int:
        return len(self.tables[0])

    @property
    def keys(self) -> tuple[str, ...]:
        """The rows' keys, in their order."""
        return self.tables[0].keys

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(C, H, W) of each table."""
        return tuple(table.shape for table in self.tables)

    @property
    def space_key(self) -> str:
        """Key of all that decided the rows but the pictures."""
        keys = [table.space_key for table in self.tables]
        return keys[0] if len(keys) == 1 else digest_of(keys)

    def gather(self, rows: Rows) -> Tensors:
        """Rows by number: a (B, C, H, W) a table, channels_last, in the stored type."""
        return tuple(table.gather(rows) for table in self.tables)

    def part(self, rows: Rows) -> Features:
        """Some of the rows; nothing is copied."""
        return Features([table.part(rows) for table in self.tables])

    def at_once(self, most: int) -> int:
        """Rows to be worked off together: `most`, or fewer of large maps, so that memory is bounded."""
        values = sum(math.prod(table.shape) for table in self.tables)
        return max(1, min(most, VALUES_AT_ONCE // values))

    def joined(self, at: _JoinedAt = "coarsest") -> Features:
        """All tables as one, see :class:`JoinedTable`."""
        return Features([join(self.tables, at)])


@dataclass(frozen=True)
class ViewedFeatures:
    """Features of images, each seen in one or several views.

    Attributes:
        features: A row a view.
        rows_NV: Row numbers, an image a line, a view a column; the first column is the image as it is.

    Example:
        >>> seen = ViewedFeatures.of(Features([TensorTable(torch.randn(6, 8, 4, 4))]), views=2)
        >>> len(seen), seen.views, seen.gather([2])[0].shape
        (3, 2, torch.Size([2, 8, 4, 4]))
    """

    features: Features
    rows_NV: Tensor

    @classmethod
    def of(cls, features: Features, views: int = 1) -> ViewedFeatures:
        """Rows in the order of the images, the views of each next to each other."""
        return cls(features, torch.arange(len(features)).view(-1, views))

    def __len__(self) -> int:
        return len(self.rows_NV)

    @property
    def views(self) -> int:
        """How many views each image has."""
        return int(self.rows_NV.shape[1])

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all rows, image by image."""
        return tuple(self.features.keys[row] for row in self.rows_NV.flatten().tolist())

    def gather(self, images: Rows) -> Tensors:
        """All views of some images: (B * V, C, H, W) a table, the views of an image next to each other."""
        return self.features.gather(self.rows_of(images))

    def select(self, tables: Sequence[int] | None) -> ViewedFeatures:
        """The same rows of some of the tables; None for all of them."""
        if tables is None:
            return self
        return ViewedFeatures(Features([self.features.tables[number] for number in tables]), self.rows_NV)

    def rows_of(self, images: Rows) -> Tensor:
        """Row numbers of all views of some images, (B * V,)."""
        return self.rows_NV[list(_as_list(images))].flatten()


def _as_list(rows: Rows) -> Sequence[int]:
    return rows.tolist() if isinstance(rows, np.ndarray | Tensor) else rows
