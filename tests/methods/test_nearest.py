"""The search for the nearest rows of a bank: exact, whatever the sizes, and precise."""

from __future__ import annotations

import pytest
import torch

from nfbmr.methods.nearest import closest, nearest
from nfbmr.methods.statistics import MemoryBank


def vectors(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("queries", [1, 511, 1030])
@pytest.mark.parametrize("rows", [1, 255, 256, 257, 513, 1500])
def test_it_is_the_nearest_whatever_the_blocks(queries: int, rows: int) -> None:
    x, bank = vectors(queries, 5, seed=0), vectors(rows, 5, seed=1)
    distance, numbers = nearest(x, bank)
    exact = torch.cdist(x.double(), bank.double())
    assert torch.equal(numbers, exact.argmin(1))
    torch.testing.assert_close(distance.double(), exact.amin(1), rtol=1e-5, atol=1e-6)


def test_nothing_asked_is_nothing_found() -> None:
    distance, numbers = nearest(torch.zeros(0, 3), vectors(4, 3, seed=0))
    assert distance.shape == numbers.shape == (0,)


def test_a_row_of_the_bank_has_no_distance_even_where_norms_are_large() -> None:
    bank = vectors(900, 16, seed=0) + 100.0
    distance, numbers = nearest(bank, bank)
    assert torch.equal(numbers, torch.arange(900))
    assert distance.max() == 0.0


def test_far_from_the_origin_the_distance_is_off_by_rounding_alone() -> None:
    x, bank = vectors(300, 16, seed=0) + 100.0, vectors(700, 16, seed=1) + 100.0
    exact = torch.cdist(x.double(), bank.double()).amin(1)
    distance, _ = nearest(x, bank)
    bound = 16 * 2.0**-24 * x.square().sum(1) / exact  # sums of 16 terms
    assert ((distance - exact).abs() <= bound).all()


def test_it_passes_gradients_on() -> None:
    x = vectors(3, 4, seed=0).requires_grad_()
    nearest(x, vectors(9, 4, seed=1))[0].sum().backward()
    assert x.grad is not None
    assert x.grad.norm(dim=1).tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_the_closest_come_nearest_first() -> None:
    x, bank = vectors(3, 6, seed=0), vectors(50, 6, seed=1)
    expected = torch.cdist(x, bank).topk(4, largest=False).indices
    assert torch.equal(closest(x, bank, 4), expected)


def test_squares_follow_the_bank() -> None:
    bank = MemoryBank(rows=torch.ones(2, 3))
    assert bank.squares("rows").tolist() == [3.0, 3.0]
    assert bank.squares("rows") is bank.squares("rows")
    bank.put(rows=torch.full((1, 3), 2.0))
    assert bank.squares("rows").tolist() == [12.0]
    bank.load_state_dict({"rows": torch.zeros(1, 3)})
    assert bank.squares("rows").tolist() == [0.0]
    assert bank.to(torch.float64).squares("rows").dtype == torch.float64
