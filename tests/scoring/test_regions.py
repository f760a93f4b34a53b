"""Thresholds for positions, predicted masks and their regions."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nfbmr.config import ScoringConfig
from nfbmr.scoring.fusion import Scorer
from nfbmr.scoring.normalisation import UnitMaps
from nfbmr.scoring.regions import Limit, peak_of, predicted_mask, regions_of
from nfbmr.scoring.selection import select_scorer

MAPS = arrays.arrays(np.float32, (5, 4), elements=st.floats(-4, 4, width=16))
SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60))


@given(MAPS, SIZES, st.floats(-4, 4))
@settings(max_examples=100, deadline=None)
def test_there_is_a_region_exactly_where_the_map_exceeds_the_threshold(map_HW, size, threshold):
    limit = Limit(threshold - 2.0, threshold)
    mask, regions = predicted_mask(map_HW, size, threshold), regions_of(map_HW, size, limit)
    assert mask.shape == size
    assert mask.any() == bool(regions) == bool(map_HW.max() > threshold)
    assert sum(region.area for region in regions) == mask.sum()
    assert [r.peak for r in regions] == sorted((r.peak for r in regions), reverse=True)
    for r in regions:
        assert mask[r.peak_y, r.peak_x]
        assert 0 <= r.x <= r.peak_x < r.x + r.width <= size[1]
        assert 0 <= r.y <= r.peak_y < r.y + r.height <= size[0]
        assert r.share == pytest.approx(r.area / (size[0] * size[1]))


def test_boxes_are_in_pixels_of_a_tall_picture():
    map_HW = np.zeros((10, 4), dtype=np.float32)
    map_HW[7:9, 2] = 5.0  # from 700 to 900 of 1000, and 200 to 300 of 400
    (region,) = regions_of(map_HW, (1000, 400), Limit(0.0, 2.5))
    box = (region.x, region.y, region.width, region.height)
    assert np.abs(np.subtract(box, (200, 700, 100, 200))).max() <= 3
    assert region.peak == pytest.approx(2.0, abs=0.01)
    assert 0.7 < region.area / (region.width * region.height) < 1  # the corners are round
    assert region.share == region.area / 400_000
    peak = peak_of(map_HW, (1000, 400), Limit(0.0, 2.5))
    assert (peak.x, peak.y, peak.value) == (250, 750, 2.0)


def test_specks_beside_a_region_are_left_out_and_a_speck_alone_is_not():
    map_HW = np.zeros((8, 8), dtype=np.float32)
    map_HW[5, 5] = 1.1  # above the threshold on a few pixels alone
    limit = Limit(0.0, 1.0)
    (alone,) = regions_of(map_HW, (80, 80), limit)
    assert alone.area < 100
    map_HW[1:3, 1:3] = 9.0
    (large,) = regions_of(map_HW, (80, 80), limit)
    assert large.area > 400
    assert not predicted_mask(map_HW, (80, 80), 1.0)[50:, 50:].any()
    map_HW[5, 5] = 8.0
    assert len(regions_of(map_HW, (80, 80), limit)) == 2


def test_maps_that_are_no_numbers_have_no_regions():
    nothing = np.full((3, 3), np.nan, dtype=np.float32)
    assert regions_of(nothing, (9, 9), Limit(0.0, 1.0)) == ()
    assert peak_of(nothing, (9, 9), Limit(0.0, 1.0)) is None


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_relative_score_is_one_at_the_threshold_and_rises(typical, threshold, low, high):
    limit = Limit(typical, threshold)
    assert limit.relative(threshold) == 1.0
    assert limit.relative(low, low) == 1.0
    low, high = sorted((low, high))
    assert limit.relative(low) <= limit.relative(high)
    if threshold - typical > 1e-3:
        assert limit.relative(typical) == pytest.approx(0.0, abs=1e-9)


def chosen(good, rate, reduction="auto"):
    defective = UnitMaps(good.maps_NPHW[:4] + 3, good.units[:4])
    return select_scorer(
        good,
        defective,
        ScoringConfig(smooth=0, reduction=reduction),
        components=("source",),
        published=(1.0,),
        false_reject_rate=0.1,
        pixel_false_reject_rate=rate,
    ).scorer


def test_a_new_good_image_shows_a_region_no_more_often_than_stated():
    rates = []
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        good = torch.randn(39, 1, 5, 5, generator=generator)
        new = torch.randn(200, 1, 5, 5, generator=generator)
        scorer = chosen(UnitMaps(good, tuple(map(str, range(39)))), 0.1)
        map_NHW = scorer.fuse(new).numpy()
        any_region = [bool(regions_of(m, (20, 30), scorer.pixel_limit)) for m in map_NHW]
        rates.append(np.mean(any_region))
    assert np.mean(rates) == pytest.approx(0.1, abs=0.03)


def test_the_mask_agrees_with_the_decision_where_the_score_is_the_maximum():
    good = UnitMaps(torch.rand(50, 1, 6, 6), tuple(map(str, range(50))))
    scorer = chosen(good, 0.1, reduction="max")
    assert scorer.pixel_threshold == pytest.approx(scorer.threshold)
    assert scorer.limit.relative(scorer.threshold) == 1.0
    assert scorer.typical < scorer.threshold


def test_a_scorer_keeps_its_limits_and_an_older_one_has_none():
    scorer = chosen(UnitMaps(torch.rand(30, 1, 3, 3), tuple(map(str, range(30)))), 0.05)
    kept = json.loads(json.dumps(scorer.as_json()))
    assert Scorer.from_json(kept).pixel_limit == scorer.pixel_limit
    for name in ("typical", "pixel_typical", "pixel_threshold"):
        del kept[name]
    older = Scorer.from_json(kept)
    assert older.pixel_limit is None
    assert math.isnan(older.limit.relative(1.0))
