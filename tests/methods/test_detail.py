"""The detail level of the flow's methods: what it reads, its memory, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nfbmr
from nfbmr.config import Config, FeatureConfig
from nfbmr.features.passes import passes_of
from nfbmr.features.table import Features, JoinedTable, TensorTable, ViewedFeatures
from nfbmr.flows.standardise import Standardise
from nfbmr.methods.detail import MemoryStage, with_detail
from nfbmr.methods.nearest import nearest
from tests.methods.settings import TINY

DETAIL = {"taps": ["blocks.1", "blocks.2"], "size": 128}


def test_the_detail_look_is_a_pass_of_its_own_at_its_own_size() -> None:
    config = FeatureConfig.model_validate({"scales": [1.0, 0.5], "detail": DETAIL})
    assert [(one.shape, one.taps) for one in passes_of(config)] == [
        ((256, 256), ("blocks.5",)),
        ((128, 128), ("blocks.5",)),
        ((128, 128), ("blocks.1", "blocks.2")),
    ]
    assert not any(one.detail.taps for one in passes_of(config))


def test_its_maps_are_averaged_over_neighbours_and_joined_at_the_finest() -> None:
    main, fine, coarse = (TensorTable(torch.rand(2, c, s, s)) for c, s in ((4, 2), (3, 8), (5, 4)))
    config = FeatureConfig.model_validate({"detail": DETAIL})
    joined = with_detail(Features([main, fine, coarse]), config)
    assert joined.shapes == ((4, 2, 2), (8, 8, 8))
    y = joined.tables[1].gather([1])
    expected = fine.gather([1])[0, :, 2:5, 3:6].mean((1, 2))
    torch.testing.assert_close(y[0, :3, 3, 4], expected)
    assert joined.tables[1].space_key != JoinedTable((fine, coarse), "finest").space_key


def test_the_nearest_of_a_bank_is_the_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    x, bank = torch.randn(1500, 7, generator=generator), torch.randn(90, 7, generator=generator)
    distance, rows = nearest(x, bank)
    exact = torch.cdist(x, bank)
    torch.testing.assert_close(distance, exact.amin(1), rtol=1e-4, atol=1e-4)
    assert torch.equal(rows, exact.argmin(1))


def test_the_memory_holds_good_positions_and_is_far_from_others() -> None:
    config = Config.model_validate({"detail": {"bank": 30, "candidates": 400}})
    good = TensorTable(torch.randn(20, 6, 5, 5, generator=torch.Generator().manual_seed(0)))
    standardise = Standardise(6).fit(good)
    stage = MemoryStage(standardise, 6, config)
    stage.prepare(ViewedFeatures.of(Features([good])))
    bank = stage.bank.tensor("positions_KC")
    assert bank.shape == (30, 6)
    y = good.gather([3]).clone()
    near = stage.maps(y)
    y[0, :, 2, 2] += 40
    far = stage.maps(y)
    assert far[0, 0].argmax() == 2 * 5 + 2
    assert far[0, 0, 2, 2] > 5 * near.max()


@pytest.mark.parametrize(
    ("method", "names"), [("nf", ["context", "detail"]), ("nf-bmr", ["context", "detail", "memory"])]
)
def test_a_run_says_what_each_level_counts(
    method: str, names: list[str], small: Callable[..., Config], tmp_path: Path
) -> None:
    settings = {key.replace(".", "__"): value for key, value in TINY[method].items()}
    summary: dict[str, Any] = nfbmr.train(small(tmp_path, method=method, **settings))
    levels = summary["selection"]["levels"]
    assert [level["name"] for level in levels] == names
    assert sum(level["share"] for level in levels) == pytest.approx(1.0)
    parts = summary["selection"]["parts"]
    weights = dict(zip(parts, summary["selection"]["weights"], strict=True))
    assert {part for part, weight in weights.items() if weight} == {names[-1]}  # the heat map is the last's


def test_without_taps_there_is_one_map_and_no_level(small: Callable[..., Config], tmp_path: Path) -> None:
    summary = nfbmr.train(small(tmp_path, method="nf-bmr"))
    assert summary["selection"]["levels"] == []
    assert summary["selection"]["parts"] == ["source", "target", "norm"]
