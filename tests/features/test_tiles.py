"""Large pictures in tiles: maps join to those of the whole, and memory is a tile's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nfbmr
from nfbmr.config import Config, FeatureConfig
from nfbmr.errors import BackboneError
from nfbmr.features.backbone import load_backbone
from nfbmr.features.engine import Engine
from nfbmr.features.extraction import pictures_at_once
from nfbmr.features.keys import space_spec
from nfbmr.features.tiles import GRID, Tiling, tiling_of


@given(st.integers(1, 120).map(lambda n: n * GRID), st.integers(128, 2048))
def test_tiles_cover_a_side_once_with_margins(side: int, tile: int) -> None:
    tiling = Tiling((side, side), tile)
    spans, seen = tiling.rows, tiling.seen[0]
    assert spans[0].first == 0
    assert spans[-1].end == side
    assert all(value % GRID == 0 for span in spans for value in span)
    for span in spans:
        assert 0 <= span.start <= span.first < span.end <= span.start + seen <= side
        assert span.first in (0, span.start + seen) or span.first - span.start >= tiling.margin
        assert span.end == side or span.start + seen - span.end >= tiling.margin
    assert all(before.end == after.first for before, after in pairwise(spans))


@pytest.mark.parametrize(
    ("name", "taps"),
    [("tf_efficientnet_lite0", ("blocks.1", "blocks.2")), ("resnet10t", ("layer1", "layer2"))],
)
@pytest.mark.parametrize("picture", [(256, 512), (512, 128), (384, 384)])
def test_a_map_from_tiles_is_the_map_of_the_whole(
    name: str, taps: tuple[str, ...], picture: tuple[int, int]
) -> None:
    """These taps look no further than the margin."""
    backbone = load_backbone(FeatureConfig(backbone=name, weights="random", taps=taps))
    x = torch.randn(2, 3, *picture, generator=torch.Generator().manual_seed(0))
    whole = Engine(backbone, compute="fp32", size=picture)(x)
    seen: list[tuple[int, ...]] = []
    engine = Engine(backbone, compute="fp32", size=picture, tile=256)
    engine._net.register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape[2:])))
    for one, expected in zip(engine(x), whole, strict=True):
        assert one.shape == expected.shape
        assert one.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(one, expected, rtol=1e-3, atol=1e-4)
    assert set(seen) == {(min(256, picture[0]), min(256, picture[1]))}


def test_a_picture_no_larger_than_a_tile_is_worked_off_whole() -> None:
    assert tiling_of((128, 256), 256) is None
    assert tiling_of((128, 256), None) is None
    assert tiling_of((128, 384), 256) == Tiling((128, 384), 256)


def test_tiles_have_features_of_their_own() -> None:
    config = FeatureConfig(backbone="resnet10t", weights="random", taps=("layer1",), size=512)
    backbone = load_backbone(config)

    def key(**more: int) -> str:
        changed = config.model_copy(update=more)
        return space_spec(backbone, backbone.taps[0], changed, "fp32").key

    assert key(tile=512) == key()  # one tile is the whole
    assert len({key(), key(tile=256), key(tile=384)}) == 3


def test_features_of_another_depth_are_stored_apart_and_those_of_8_bit_images_stay_where_they_were() -> None:
    config = FeatureConfig(backbone="resnet10t", weights="random", taps=("layer1",), size=64)
    backbone = load_backbone(config)
    specs = {
        depth: space_spec(backbone, "layer1", config.model_copy(update={"depth": depth}), "fp32")
        for depth in ("auto", 8, 12, 16)
    }
    assert "depth" not in specs["auto"].fields  # what a store from before there was a depth has
    assert specs["auto"].key == specs[16].key
    assert len({spec.key for spec in specs.values()}) == 3


def test_a_backbone_whose_positions_do_not_fit_the_grid_is_refused() -> None:
    dinov2 = FeatureConfig(
        backbone="vit_small_patch14_dinov2", weights="random", taps=("blocks.0",), size=512
    )
    with pytest.raises(BackboneError):
        Engine(load_backbone(dinov2), compute="fp32", size=(512, 512), tile=256)


def test_patches_of_a_transformer_that_lie_on_the_grid_can_be_joined_from_tiles() -> None:
    vit = FeatureConfig(backbone="test_vit", weights="random", taps=("blocks.0",), size=512, tile=256)
    (y_BCHW,) = Engine(load_backbone(vit), compute="fp32", size=vit.shape, tile=256)(
        torch.zeros(1, 3, *vit.shape)
    )
    assert y_BCHW.shape == (1, 64, 32, 32)


@pytest.mark.parametrize("size", [256, 500, 1000, 3456])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25])
def test_pictures_in_tiles_lie_on_the_grid(size: int, scale: float) -> None:
    height, width = FeatureConfig(size=size, aspect=1.333, tile=256, scales=(scale,)).shape
    assert height % GRID == width % GRID == 0


def test_large_pictures_are_few_at_once() -> None:
    assert pictures_at_once(FeatureConfig(size=384, batch=16)) == 16
    assert pictures_at_once(FeatureConfig(size=2048, batch=16)) == 4
    assert pictures_at_once(FeatureConfig(size=4096, batch=16)) == 1


def test_a_run_in_tiles_predicts_what_it_evaluated(tiny: Callable[..., Config]) -> None:
    summary = nfbmr.train(tiny(features__size=256, features__tile=128, features__compute="fp32"))
    assert summary["config"]["features"]["tile"] == 128
    rows = pq.read_table(Path(summary["run_dir"]) / "scores.parquet").to_pylist()
    known = {row["path"].decode(): row["score"] for row in rows if row["side"] == "test"}
    for prediction in nfbmr.predict(summary["run_dir"], list(known)):
        assert prediction.score == pytest.approx(known[str(prediction.path)], rel=1e-3, abs=1e-3)
