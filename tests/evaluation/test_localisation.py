"""AUPIMO against a slow direct computation, and pixel F1 at a threshold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from nfbmr.evaluation import localisation
from nfbmr.evaluation.intervals import resampled_weights
from nfbmr.evaluation.localisation import image_overlap, mask_counts
from nfbmr.evaluation.metrics import point
from nfbmr.scoring.maps import upsampled
from nfbmr.scoring.regions import predicted_mask


def some_images(seed=0, good=12, defective=6, side=90, grid=30, shift=9.0):
    """Maps, labels and masks of several sizes; good images have no mask."""
    rng = np.random.default_rng(seed)
    map_NHW = rng.gumbel(size=(good + defective, grid, grid)).astype(np.float32)
    map_NHW[0] += 3.0  # one good image holds most of the false positives
    masks = {}
    for i in range(good, good + defective):
        mask = np.zeros((side, side if i % 3 else side + 30), dtype=bool)
        y, x = rng.integers(0, side - 20, 2)
        mask[y : y + 20, x : x + rng.integers(3, 20)] = True
        step = side // grid
        map_NHW[i, y // step : (y + 20) // step + 1, x // step : (x + 12) // step + 1] += shift * i / good
        masks[i] = mask
    defective_N = np.arange(good + defective) >= good
    return map_NHW, defective_N, masks


def direct_aupimo(map_NHW, defective_N, masks, weights_N, lowest, highest, points=500):
    """The definition, read aloud: for each rate the lowest threshold, for each threshold the recalls."""
    size = max((m.shape for m in masks.values()), key=[m.shape for m in masks.values()].count)
    good = [(upsampled(map_NHW[i], size).ravel(), weights_N[i]) for i in np.flatnonzero(~defective_N)]
    total = sum(w for _, w in good)
    candidates = np.unique(np.concatenate([values for values, w in good if w > 0]))
    rate = (
        sum(w * (1 - np.searchsorted(np.sort(v), candidates, side="right") / v.size) for v, w in good) / total
    )
    recalls = []
    for z in np.exp((np.arange(points) + 0.5) / points * math.log(highest / lowest) + math.log(lowest)):
        threshold = candidates[np.flatnonzero(rate <= z + 1e-15)[0]]
        recalls.append([(upsampled(map_NHW[i], masks[i].shape)[masks[i]] > threshold).mean() for i in masks])
    return np.average(np.mean(recalls, axis=0), weights=[weights_N[i] for i in masks])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("bounds", [(1e-5, 1e-4), (1e-3, 3e-2)])
def test_aupimo_is_its_definition_in_every_resample(seed, bounds, monkeypatch):
    monkeypatch.setattr(localisation, "HIGHEST", bounds[1])
    map_NHW, defective_N, masks = some_images(seed)
    overlap = image_overlap(map_NHW, defective_N, masks.get)
    assert sorted(overlap.images.tolist()) == list(range(18))
    (weights_RN,) = resampled_weights(18, strata=defective_N.tolist(), resamples=3, seed=seed)
    weights_RN[0] = 1
    values_R = overlap.aupimo(*bounds)(weights_RN.take(overlap.images, axis=1))
    for value, weights_N in zip(values_R, weights_RN, strict=True):
        expected = direct_aupimo(map_NHW, defective_N, masks, weights_N, *bounds)
        assert value == pytest.approx(expected, abs=4e-3)
    assert 0 < values_R[0] < 1


def test_aupimo_has_its_ends_and_counts_each_image_alike():
    map_NHW, defective_N, masks = some_images(shift=0.0)
    for i, mask in masks.items():
        map_NHW[i] = -9.0
        if i % 2:  # found whole, at any rate
            map_NHW[i] = 99.0
            masks[i] = np.ones_like(mask)
    overlap = image_overlap(map_NHW, defective_N, masks.get)
    assert point(overlap.aupimo(), 18) == pytest.approx(0.5)


def test_aupimo_needs_good_images_and_masks():
    map_NHW, defective_N, masks = some_images()
    assert image_overlap(map_NHW, defective_N, lambda _: None) is None
    assert image_overlap(map_NHW[12:], defective_N[12:], lambda i: masks[i + 12]) is None
    overlap = image_overlap(map_NHW, defective_N, masks.get)
    assert np.isnan(overlap.aupimo()(np.zeros((1, 18)))[0])


def test_constant_maps_find_nothing():
    map_NHW, defective_N, masks = some_images()
    overlap = image_overlap(np.ones_like(map_NHW), defective_N, masks.get)
    assert point(overlap.aupimo(), 18) == 0.0


def test_few_values_are_kept_of_many_pixels():
    top = localisation._highest(np.random.default_rng(0).random((1000, 1000), dtype=np.float32), 50)
    assert len(top) == pytest.approx(10_000, abs=2)
    assert (np.diff(top) >= 0).all()
    assert top[0] > 0.98


@given(st.integers(0, 1000), st.floats(-1, 4))
@settings(max_examples=20, deadline=None)
def test_pixel_f1_is_that_of_all_pixels_together(seed, threshold):
    map_NHW, defective_N, masks = some_images(seed, good=3, defective=3)
    counts = mask_counts(map_NHW, defective_N, masks.get, threshold)
    size = (90, 90)
    truth = [masks.get(i, np.zeros(size, dtype=bool)) for i in range(6)]
    if [m.shape for m in masks.values()].count((90, 120)) > 1:
        truth[:3] = [np.zeros((90, 120), dtype=bool)] * 3
    predicted = [predicted_mask(m, t.shape, threshold) for m, t in zip(map_NHW, truth, strict=True)]
    expected = f1_score(*(np.concatenate([m.ravel() for m in side]) for side in (truth, predicted)))
    assert point(counts.f1(), 6) == pytest.approx(expected)


def test_pixel_f1_is_undefined_without_a_defect():
    map_NHW, defective_N, masks = some_images()
    assert mask_counts(map_NHW, defective_N, lambda _: None, 1.0) is None
    counts = mask_counts(map_NHW, defective_N, masks.get, 1e9)
    assert point(counts.f1(), 18) == 0.0
    assert np.isnan(counts.f1()(np.zeros((1, 18)))[0])
