from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfbmr.features.table import TensorTable
from nfbmr.training.batches import Batches


def numbered(rows: int, offset: int = 0) -> TensorTable:
    """Rows that say which one they are."""
    return TensorTable((torch.arange(rows) + offset).half().view(rows, 1, 1, 1).expand(rows, 3, 2, 2).clone())


def rows_of(batch: Tensor) -> list[int]:
    return [int(row) for row in batch[:, 0, 0, 0]]


@settings(max_examples=50)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99), st.integers(0, 5))
def test_an_epoch_holds_every_image_once_in_one_of_its_views(
    images: int, views: int, size: int, seed: int, epoch: int
) -> None:
    rows_NV = torch.arange(images * views).view(images, views)
    batches = Batches((numbered(images * views),), rows_NV, size, seed)
    sizes, seen = [], []
    for (batch,) in batches.epoch(epoch):
        sizes.append(len(batch))
        seen += [row // views for row in rows_of(batch)]
    assert sorted(seen) == list(range(images))
    assert len(sizes) == len(batches) == -(-images // size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(0, 9), st.integers(0, 5), st.integers(0, 20))
def test_an_epoch_begun_in_the_middle_goes_on_as_it_would_have(
    images: int, seed: int, epoch: int, start: int
) -> None:
    rows_NV = torch.arange(images * 2).view(images, 2)
    held = Batches((numbered(images * 2),), rows_NV, 3, seed)
    read = Batches((numbered(images * 2),), rows_NV, 3, seed, memory=0)
    whole = [rows_of(batch) for (batch,) in held.epoch(epoch)]
    assert [rows_of(batch) for (batch,) in read.epoch(epoch, start)] == whole[start:]


def test_epochs_and_seeds_differ_and_views_change() -> None:
    rows_NV = torch.arange(60).view(20, 3)

    def order(seed: int, epoch: int) -> list[int]:
        return [r for (b,) in Batches((numbered(60),), rows_NV, 8, seed).epoch(epoch) for r in rows_of(b)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert order(0, 1) != order(1, 0)
    assert {row % 3 for epoch in range(5) for row in order(0, epoch)} == {0, 1, 2}


@pytest.mark.parametrize("memory", [0, 2**30])
def test_tables_stay_aligned_and_batches_are_channels_last_as_stored(memory: int) -> None:
    tables = (numbered(12), numbered(12, offset=100))
    batches = Batches(tables, torch.arange(12).view(12, 1), 5, 0, memory=memory)
    for y, z in batches.epoch(0):
        assert torch.equal(y + 100, z)
        for batch in (y, z):
            assert batch.dtype == torch.float16
            assert batch.is_contiguous(memory_format=torch.channels_last)


def test_only_the_rows_asked_for_are_given() -> None:
    batches = Batches((numbered(10),), torch.tensor([[7], [2]]), 1, 0)
    assert sorted(row for (batch,) in batches.epoch(0) for row in rows_of(batch)) == [2, 7]


def test_no_images_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no images"):
        Batches((numbered(1),), torch.zeros(0, 1, dtype=torch.long), 1, 0)


def placed(rows: int, side: int = 4) -> TensorTable:
    """Maps whose positions say which row and which position they are: row in channel 0, position in 1."""
    row_N1HW = torch.arange(rows).view(rows, 1, 1, 1).expand(rows, 1, side, side)
    position_N1HW = torch.arange(side * side).view(1, 1, side, side).expand(rows, 1, side, side)
    return TensorTable(torch.cat((row_N1HW, position_N1HW), 1).half())


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_positions_are_drawn_anew_in_each_step_and_the_same_wherever_rows_are_kept(memory: int) -> None:
    rows_NV = torch.arange(10).view(10, 1)
    batches = Batches((placed(10), placed(10)), rows_NV, 4, seed=3, positions=5, memory=memory)
    reference = Batches((placed(10),), rows_NV, 4, seed=3, positions=5)
    drawn = []
    for (y, again), (expected,) in zip(batches.epoch(1), reference.epoch(1), strict=True):
        assert y.shape[1:] == (2, 5, 1)
        assert torch.equal(y, again)  # aligned tables are read at the same positions
        assert torch.equal(y, expected)
        assert all(len(set(rows.flatten().tolist())) == 1 for rows in y[:, 0])  # of one image each
        drawn.append(y[:, 1].flatten().tolist())
    assert drawn[0] != drawn[1]
    assert sorted(int(r) for (y,) in reference.epoch(1) for r in y[:, 0, 0, 0]) == list(range(10))


def test_an_epoch_of_positions_begun_in_the_middle_goes_on_as_it_would_have() -> None:
    batches = Batches((placed(9),), torch.arange(9).view(9, 1), 2, seed=0, positions=3)
    whole = [y for (y,) in batches.epoch(4)]
    rest = [y for (y,) in batches.epoch(4, 2)]
    assert len(rest) == len(whole) - 2
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))
