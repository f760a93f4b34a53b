"""Batches of stored tensors, in an order that a seed and an epoch's number fix.

Shapes: N images, V views of each, B batch, C H W of a table's rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from nfbmr.features.table import Features, FeatureTable
from nfbmr.workers import SINGLE_PROCESS, ProcessGroup

MEMORY_BUDGET = 4 * 2**30
"""Bytes of tables that are copied into memory once; larger ones are read from disk batch by batch."""


class Batches:
    """Every image once an epoch, in one of its views.

    Order and view of each image depend on ``seed`` and the epoch's number alone, so that an epoch which is
    begun again in the middle goes on as it would have. Batches of an epoch differ in size by one image at
    most; none is dropped and none is a small rest.

    Several workers divide each batch among them, so order and views depend on their number as little as on
    anything else.

    Args:
        tables: Tables of aligned rows, e.g. features and their latents.
        rows_NV: Table rows, an image a line, a view a column.
        batch: Images in a batch, at most.
        seed: Seed of order, views and positions.
        positions: Draw so many positions of each map instead of all, anew in each step: (B, C, positions, 1)
            for networks that see one position at a time. Tables need maps of one size then.
        memory: Bytes that may be held in memory, by all workers together.
        workers: Who takes part.

    Example:
        >>> from nfbmr.features.table import TensorTable
        >>> table = TensorTable(torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1))
        >>> batches = Batches((table,), torch.tensor([[0], [1], [2]]), batch=2, seed=0)
        >>> sorted(y for (y_B111,) in batches.epoch(0) for y in y_B111.flatten().tolist())
        [1.0, 2.0, 3.0]
    """

    def __init__(
        self,
        tables: Sequence[FeatureTable],
        rows_NV: Tensor,
        batch: int,
        seed: int,
        *,
        positions: int | None = None,
        memory: int = MEMORY_BUDGET,
        workers: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        if not len(rows_NV):
            raise ValueError("no images to make batches of")
        self.tables = tuple(tables)
        self.rows_NV = rows_NV.cpu()
        self.seed = seed
        self.positions = positions
        self.steps = -(-len(rows_NV) // batch)
        self.workers = workers
        self._memory = memory // workers.count
        self._held: tuple[Tensor, ...] | None = None  # (N * V, H, W, C) each: a batch is one index_select

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.steps

    def share(self, step: int) -> tuple[int, int]:
        """Images of batch number ``step`` that are this worker's, which may be none, and in all."""
        images = _size(len(self.rows_NV), self.steps, step)
        return _size(images, self.workers.count, self.workers.rank), images

    def plan(self, epoch: int) -> Tensor:
        """The epoch's order: for each image one flat index into ``rows_NV``."""
        images, views = self.rows_NV.shape
        # Mixed to 32 bits, the part of a seed that torch's generator reads.
        mixed = np.random.SeedSequence([self.seed, epoch]).generate_state(1)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        order = torch.randperm(images, generator=generator)
        view = torch.randint(views, (images,), generator=generator)
        return order * views + view

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """The epoch's batches from number ``start`` on: a (B, C, H, W) a table, channels_last, as stored.

        With several workers this worker's share of each. A worker whose share is empty is given one image all
        the same, which does not count: networks are not made for none.
        """
        held = self.preload()
        # The whole plan goes to the device at once, so that no step waits for a copy.
        plan = self.plan(epoch) if held is None else self.plan(epoch).to(held[0].device)
        for step, batch in enumerate(plan.tensor_split(self.steps)[start:], start):
            indices = self._shard(batch)
            if not len(indices):
                indices = batch[:1]
            if self.positions is not None:
                drawn_BP = self._drawn(epoch, step, len(batch))
                own_BP = self._shard(drawn_BP) if len(self._shard(batch)) else drawn_BP[:1]
                yield self._at(own_BP, indices, held)
            elif held is None:
                rows = self.rows_NV.flatten()[indices]
                yield tuple(table.gather(rows) for table in self.tables)
            else:
                yield tuple(rows_NHWC.index_select(0, indices).permute(0, 3, 1, 2) for rows_NHWC in held)

    def _drawn(self, epoch: int, step: int, images: int) -> Tensor:
        """Positions of each image of a batch, drawn with replacement; whoever takes part, the same."""
        mixed = np.random.SeedSequence([self.seed, epoch, step]).generate_state(1)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        _, height, width = self.tables[0].shape
        return torch.randint(height * width, (images, cast(int, self.positions)), generator=generator)

    def _at(
        self, positions_BP: Tensor, indices: Tensor, held: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, ...]:
        """Some positions of some rows: (B, C, P, 1) a table."""
        if held is None:
            rows = self.rows_NV.flatten()[indices]
            maps = [table.gather(rows).permute(0, 2, 3, 1).flatten(1, 2) for table in self.tables]
            indices = torch.arange(len(rows))
        else:
            maps = [rows_NHWC.flatten(1, 2) for rows_NHWC in held]
            positions_BP = positions_BP.to(indices.device)
        picked = [rows_NLC[indices[:, None], positions_BP] for rows_NLC in maps]
        return tuple(rows_BPC.unsqueeze(2).permute(0, 3, 1, 2) for rows_BPC in picked)

    def _shard(self, batch: Tensor) -> Tensor:
        """This worker's part of a batch."""
        return batch.tensor_split(self.workers.count)[self.workers.rank]

    def preload(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...] | None:
        """Copy all rows to a device's memory, once, if they fit: no step then reads from disk."""
        device = torch.device(device)
        if self._held is None:
            rows = self.rows_NV.flatten()
            samples = [table.gather(rows[:1]) for table in self.tables]
            if len(rows) * sum(sample.nbytes for sample in samples) > self._memory:
                return None
            self._held = tuple(
                _all_rows(table, rows, sample) for table, sample in zip(self.tables, samples, strict=True)
            )
        if device.type == "cuda" and self._held[0].device.type != "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if sum(rows_NHWC.nbytes for rows_NHWC in self._held) < free // 4:
                self._held = tuple(rows_NHWC.to(device) for rows_NHWC in self._held)
        return self._held


def _size(count: int, parts: int, number: int) -> int:
    """Length of one part of ``torch.tensor_split``."""
    return count // parts + (number < count % parts)


def _all_rows(table: FeatureTable, rows: Tensor, sample_1CHW: Tensor) -> Tensor:
    _, channels, height, width = sample_1CHW.shape
    out_NHWC = torch.empty((len(rows), height, width, channels), dtype=sample_1CHW.dtype)
    at_once = Features((table,)).at_once(64)  # joining works in float32, on several copies
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        out_NHWC[start : start + len(part)] = table.gather(part).permute(0, 2, 3, 1)
    return out_NHWC
