"""Cells find nearly every nearest row, none nearer than there is, and the largest distances exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import nfbmr
from nfbmr.methods.cells import EXACT_SHARE, REFINED, Cells
from nfbmr.methods.nearest import nearest
from nfbmr.methods.patchcore.model import LARGE_BANK, PatchCoreStage


def patches(*shape: int, seed: int, channels: int = 24) -> Tensor:
    """Vectors near a curved surface of few dimensions, as patches of a network are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(4, channels, generator=torch.Generator().manual_seed(99))
    curved = torch.tanh(torch.randn((*shape, 4), generator=generator) @ mixing)
    return curved + 0.05 * torch.randn((*shape, channels), generator=generator)


def test_nearly_all_get_their_nearest_row_and_none_a_nearer_one() -> None:
    x, bank = patches(2000, seed=0), patches(9000, seed=1)
    distance, rows = Cells(bank).nearest(x)
    exact, exact_rows = nearest(x, bank)
    torch.testing.assert_close(distance, (x - bank[rows]).norm(dim=1))
    assert (distance >= exact - 1e-5).all()
    assert (rows == exact_rows).double().mean() > 0.95


@pytest.mark.parametrize("rows", [3000, 9000])
def test_the_largest_distances_of_each_image_are_exact(rows: int) -> None:
    x, bank = patches(6, 500, seed=2), patches(rows, seed=3)
    distance, numbers = Cells(bank).nearest_of_images(x)
    for image, of_image, row in zip(x, distance, numbers, strict=True):
        exact, exact_row = nearest(image, bank)
        largest = exact.topk(round(500 * EXACT_SHARE)).indices
        assert torch.equal(of_image[largest], exact[largest])
        assert torch.equal(row[largest], exact_row[largest])


def test_they_are_exact_where_many_look_into_the_wrong_cells() -> None:
    # Isotropic vectors of many dimensions: hardly a nearest row lies in the nearest cells.
    generator = torch.Generator().manual_seed(4)
    x, bank = torch.randn(2, 6 * REFINED, 64, generator=generator), torch.randn(3000, 64, generator=generator)
    distance, _ = Cells(bank).nearest_of_images(x)
    exact = torch.stack([nearest(image, bank)[0] for image in x])
    assert (distance > exact + 1e-4).any()
    torch.testing.assert_close(distance.topk(7).values, exact.topk(7).values)


@pytest.mark.parametrize("rows", [1, 2, 13])
@pytest.mark.parametrize("queries", [1, 40])
def test_a_bank_of_a_few_rows_is_searched_whole(rows: int, queries: int) -> None:
    x, bank = patches(queries, seed=5), patches(rows, seed=6)
    assert torch.equal(Cells(bank).nearest(x)[1], nearest(x, bank)[1])


def test_a_bank_of_equal_rows_leaves_cells_empty_and_is_searched() -> None:
    bank = torch.ones(500, 3)
    distance, _ = Cells(bank).nearest(torch.zeros(4, 3))
    torch.testing.assert_close(distance, torch.full((4,), 3.0).sqrt())


def test_gradients_are_those_of_the_exact_search() -> None:
    bank = patches(3000, seed=7)
    x = patches(1, 30, seed=8).requires_grad_()
    Cells(bank).nearest_of_images(x)[0].max().backward()
    assert x.grad is not None
    cells = x.grad.clone()
    x.grad = None
    nearest(x[0], bank)[0].max().backward()
    torch.testing.assert_close(cells, x.grad)


def stage(search: str, bank: Tensor, **settings: object) -> PatchCoreStage:
    config = nfbmr.configure(settings={"method": "patchcore", "patchcore.search": search, **settings})
    made = PatchCoreStage(((24, 20, 20),), config)
    made.bank.put(patches_KC=bank)
    return made


def test_patchcore_gives_the_same_image_scores_by_either_search() -> None:
    bank = patches(LARGE_BANK, seed=9)
    y = patches(5, 20, 20, seed=10).permute(0, 3, 1, 2).contiguous()
    by_cells, exact = stage("auto", bank).maps(y), stage("exact", bank).maps(y)
    assert torch.equal(by_cells[:, 1], exact[:, 1])
    assert (by_cells[:, 0] >= exact[:, 0] - 1e-5).all()
    torch.testing.assert_close(by_cells[:, 0].amax((1, 2)), exact[:, 0].amax((1, 2)))


def test_of_equally_near_rows_the_same_decides_the_score() -> None:
    generator = torch.Generator().manual_seed(13)
    bank = torch.randint(0, 3, (9000, 24), generator=generator).float()
    y = torch.randint(0, 3, (2, 24, 20, 20), generator=generator).float()
    assert torch.equal(stage("cells", bank).maps(y)[:, 1], stage("exact", bank).maps(y)[:, 1])


@pytest.mark.parametrize(("reduction", "topk", "same"), [("mean", 0.01, True), ("topk", 0.01, False)])
def test_a_score_of_the_whole_map_is_that_of_the_exact_search(
    reduction: str, topk: float, same: bool
) -> None:
    generator = torch.Generator().manual_seed(14)
    bank = torch.randn(LARGE_BANK, 24, generator=generator)
    y = torch.randn(2, 24, 20, 20, generator=generator)
    settings = {"scoring.reduction": reduction, "scoring.topk": [topk]}
    by_default, exact = (stage(search, bank, **settings).maps(y) for search in ("auto", "exact"))
    assert torch.equal(by_default[:, 0], exact[:, 0]) == same


def test_another_bank_has_other_cells() -> None:
    y = patches(1, 20, 20, seed=10).permute(0, 3, 1, 2).contiguous()
    searching = stage("cells", patches(300, seed=11))
    searching.maps(y)
    bank = patches(400, seed=12)
    searching.bank.put(patches_KC=bank)
    torch.testing.assert_close(searching.maps(y)[:, 1], stage("exact", bank).maps(y)[:, 1])


def test_how_a_bank_is_searched_makes_no_other_bank() -> None:
    assert stage("cells", torch.ones(1, 24)).settings == stage("exact", torch.ones(1, 24)).settings
