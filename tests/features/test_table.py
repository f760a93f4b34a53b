"""Tables: rows by number, in memory or mapped, single or joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nfbmr.errors import StoreError
from nfbmr.features.store import FeatureStore, SpaceSpec
from nfbmr.features.table import FeatureTable, TensorTable, join

N = 10


@pytest.fixture(params=["mapped", "memory", "joined", "part"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FeatureTable, torch.Tensor]:
    """A table of each kind and the rows it should give."""
    x = torch.randn(N, 4, 6, 6, generator=torch.Generator().manual_seed(0)).half()
    keys = [str(i) for i in range(N)]
    if request.param == "memory":
        return TensorTable(x, keys), x
    if request.param == "joined":
        coarse = torch.nn.functional.adaptive_avg_pool2d(x.float(), 3).half()
        joined = join([TensorTable(x, keys), TensorTable(coarse[:, :2], keys)])
        return joined, torch.cat([coarse, coarse[:, :2]], dim=1)
    space = FeatureStore(tmp_path).space(SpaceSpec("features"))
    for i in range(0, N, 3):
        space.append(keys[i : i + 3], x[i : i + 3])
    if request.param == "part":
        return space.table([*keys, *keys[:3]]).part(range(N)), x
    return space.table(keys), x


def test_rows_by_number(table: tuple[FeatureTable, torch.Tensor]) -> None:
    table_, expected = table
    assert len(table_) == N == len(table_.keys)
    assert table_.shape == tuple(expected.shape[1:])
    for rows in ([3, 1, 1], np.array([9, 0]), torch.tensor([5]), range(N)):
        got = table_.gather(rows)
        assert got.dtype == table_.dtype == torch.float16
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(got, expected[list(map(int, rows))])
    assert table_.gather([]).shape == (0, *table_.shape)


def test_a_batch_is_the_callers_own(table: tuple[FeatureTable, torch.Tensor]) -> None:
    table_, expected = table
    table_.gather([0]).zero_()
    assert torch.equal(table_.gather([0]), expected[:1])


@pytest.mark.parametrize(("at", "side"), [("coarsest", 2), ("middle", 4), ("finest", 8)])
def test_joined_maps_have_the_size_asked_for_and_keep_what_each_position_says(at: str, side: int) -> None:
    # A ramp from left to right, seen three times: whatever the size, it rises by the same amount all along.
    tables = [
        TensorTable(torch.linspace(0.5 / n, 1 - 0.5 / n, n).expand(3, 1, n, n).contiguous())
        for n in (8, 4, 2)
    ]
    joined = join(tables, at)
    y_BCHW = joined.gather([2, 0])
    assert joined.shape == (3, side, side)
    assert y_BCHW.shape == (2, 3, side, side)
    middle_HW = y_BCHW[0].mean(1)
    assert (middle_HW.diff(dim=1) >= 0).all()
    assert middle_HW.mean(1) == pytest.approx([0.5, 0.5, 0.5], abs=1e-6)
    assert torch.equal(join(tables[1:], "middle").gather([0]), join(tables[1:], "finest").gather([0]))


def test_tables_joined_at_another_size_are_other_features() -> None:
    tables = [TensorTable(torch.zeros(1, 1, n, n)) for n in (4, 2)]
    assert join(tables, "finest").space_key != join(tables, "coarsest").space_key


@pytest.mark.parametrize("size", [1, 4, N, 100])
def test_batches_give_every_row_once_and_in_order(
    table: tuple[FeatureTable, torch.Tensor], size: int
) -> None:
    table_, expected = table
    batches = list(table_.batches(size))
    assert all(len(batch) <= size for batch in batches)
    assert torch.equal(torch.cat(batches), expected)


def test_a_row_that_is_not_there_is_an_error(table: tuple[FeatureTable, torch.Tensor]) -> None:
    with pytest.raises(IndexError):
        table[0].gather([N])


def test_joining_wants_the_same_rows() -> None:
    one = TensorTable(torch.zeros(2, 1, 2, 2), ["a", "b"])
    with pytest.raises(StoreError):
        join([one, TensorTable(torch.zeros(2, 1, 2, 2), ["b", "a"])])
    with pytest.raises(StoreError):
        join([])
    assert join([one]) is one
