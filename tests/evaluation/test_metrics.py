"""Metrics against scikit-learn and against slow, plain references."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn import metrics as sklearn_metrics

from nfbmr.evaluation import metrics
from nfbmr.evaluation.intervals import bootstrap
from nfbmr.evaluation.metrics import point
from nfbmr.scoring.maps import upsampled

# Few distinct scores, so that ties are common; both classes always present.
tied = st.lists(
    st.tuples(st.integers(0, 6), st.booleans(), st.integers(1, 3)), min_size=2, max_size=40
).filter(lambda rows: len({defective for _, defective, _ in rows}) == 2)


@settings(max_examples=30)
@given(tied)
def test_image_metrics_agree_with_sklearn_with_ties_and_weights(rows):
    score, defective, weight = (np.asarray(column) for column in zip(*rows, strict=True))
    rejected, one_1N = score > 3, weight[None].astype(float)
    for ours, theirs, what in [
        (metrics.auroc, sklearn_metrics.roc_auc_score, score),
        (metrics.average_precision, sklearn_metrics.average_precision_score, score),
        (metrics.recall, sklearn_metrics.recall_score, rejected),
        (metrics.f1, sklearn_metrics.f1_score, rejected),
    ]:
        statistic = ours(what, defective)
        assert point(statistic, len(rows)) == pytest.approx(theirs(defective, what))
        assert statistic(one_1N)[0] == pytest.approx(theirs(defective, what, sample_weight=weight))
    if rejected.any():
        expected = sklearn_metrics.precision_score(defective, rejected)
        assert point(metrics.precision(rejected, defective), len(rows)) == pytest.approx(expected)
    expected = 1 - sklearn_metrics.recall_score(~defective, ~rejected)
    assert point(metrics.false_reject_rate(rejected, defective), len(rows)) == pytest.approx(expected)


@given(tied)
def test_auroc_of_turned_scores_is_the_complement(rows):
    score, defective, _ = (np.asarray(column) for column in zip(*rows, strict=True))
    both = [point(metrics.auroc(s, defective), len(rows)) for s in (score, -score)]
    assert sum(both) == pytest.approx(1)


def test_metrics_without_a_class_are_undefined_not_zero():
    score, nothing = np.array([0.1, 0.2]), [False, False]
    for metric in (metrics.auroc(score, nothing), metrics.average_precision(score, nothing)):
        assert math.isnan(point(metric, 2))
    assert math.isnan(point(metrics.recall([True, False], nothing), 2))
    assert math.isnan(point(metrics.f1([True, False], nothing), 2))
    assert math.isnan(point(metrics.precision([False, False], [True, False]), 2))
    assert point(metrics.f1([False, False], [True, False]), 2) == 0


def test_a_thousand_resamples_of_600_images_are_computed_in_a_few_calls():
    rng = np.random.default_rng(0)
    defective = np.arange(600) % 3 > 0
    auroc = metrics.auroc(rng.normal(size=600) + defective, defective)
    asked = []

    def counted(weights_RN):
        asked.append(len(weights_RN))
        return auroc(weights_RN)

    bootstrap(counted, 600, strata=defective.tolist(), resamples=1000)
    assert sum(asked) == 1 + 1000  # the value itself, and the resamples
    assert len(asked) <= 1 + 4


def exact_pixels(map_NHW, masks, limit):
    """Pixel AUROC and AUPRO from every distinct score, one threshold at a time."""
    up = [upsampled(m, mask.shape) for m, mask in zip(map_NHW, masks, strict=True)]
    score, truth = np.concatenate([u.ravel() for u in up]), np.concatenate([m.ravel() for m in masks])
    auroc = sklearn_metrics.roc_auc_score(truth, score)
    regions = []
    for u, mask in zip(up, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [u[labels == k] for k in range(1, count + 1)]
    normal = np.sort(score[~truth])
    thresholds = np.unique(score)[::-1]
    fpr = 1 - np.searchsorted(normal, thresholds, side="left") / len(normal)
    pro = np.mean(
        [1 - np.searchsorted(np.sort(r), thresholds, side="left") / len(r) for r in regions], axis=0
    )
    fpr, pro = np.r_[0, fpr], np.r_[0, pro]
    height = np.interp(limit, fpr, pro)
    inside = fpr < limit
    aupro = np.trapezoid(np.r_[pro[inside], height], np.r_[fpr[inside], limit]) / limit
    return auroc, aupro


def some_maps(seed, n=6, side=8, size=(40, 56), levels=None):
    rng = np.random.default_rng(seed)
    map_NHW = rng.gamma(2.0, 1.0, (n, side, side)).astype(np.float32)
    masks = np.zeros((n, *size), dtype=bool)
    for i in range(n // 2, n):
        for _ in range(2):
            y, x = rng.integers(0, size[0] - 12), rng.integers(0, size[1] - 12)
            masks[i, y : y + rng.integers(3, 12), x : x + rng.integers(3, 12)] = True
        map_NHW[i] += 4 * ndimage.zoom(masks[i].astype(float), (side / size[0], side / size[1]), order=1)
    if levels:
        map_NHW = np.round(map_NHW * levels) / levels
    return map_NHW, masks


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_pixel_metrics_agree_with_the_exact_ones(seed, limit):
    map_NHW, masks = some_maps(seed)
    histograms = metrics.pixel_histograms(map_NHW, masks.any(axis=(1, 2)), lambda i: masks[i])
    auroc, aupro = exact_pixels(map_NHW, masks, limit)
    assert point(histograms.auroc(), 6) == pytest.approx(auroc, abs=2e-4)
    assert point(histograms.aupro(limit), 6) == pytest.approx(aupro, abs=2e-4 / limit)


def test_pixel_metrics_count_ties_as_half():
    map_NHW, masks = np.ones((4, 3, 3), dtype=np.float32), some_maps(0, n=4)[1]
    histograms = metrics.pixel_histograms(map_NHW, masks.any(axis=(1, 2)), lambda i: masks[i])
    assert point(histograms.auroc(), 4) == pytest.approx(0.5)
    # A single step from (0, 0) to (1, 1): the mean height up to 0.3 is 0.15.
    assert point(histograms.aupro(0.3), 4) == pytest.approx(0.15)


@pytest.mark.parametrize(("factor", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, -50.0), (1.0, 1000.0)])
def test_pixel_metrics_depend_on_the_order_of_scores_alone(factor, shift):
    map_NHW, masks = some_maps(1)
    defective = masks.any(axis=(1, 2))
    plain, moved = (
        metrics.pixel_histograms(m.astype(np.float32), defective, lambda i: masks[i])
        for m in (map_NHW, map_NHW * factor + shift)
    )
    assert point(moved.auroc(), 6) == pytest.approx(point(plain.auroc(), 6), abs=5e-4)
    assert point(moved.aupro(0.3), 6) == pytest.approx(point(plain.aupro(0.3), 6), abs=2e-3)


def test_a_single_enormous_score_does_not_blur_the_others():
    map_NHW, masks = some_maps(2)
    map_NHW[0, 0, 0] = 1e7
    histograms = metrics.pixel_histograms(map_NHW, masks.any(axis=(1, 2)), lambda i: masks[i])
    auroc, aupro = exact_pixels(map_NHW, masks, 0.3)
    assert point(histograms.auroc(), 6) == pytest.approx(auroc, abs=5e-4)
    assert point(histograms.aupro(0.3), 6) == pytest.approx(aupro, abs=2e-3)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=6).filter(lambda w: sum(w[:3]) and sum(w[3:])))
def test_pixel_weights_are_repetitions(times):
    map_NHW, masks = some_maps(3)
    histograms = metrics.pixel_histograms(map_NHW, masks.any(axis=(1, 2)), lambda i: masks[i])
    weights_1N = np.asarray([[times[i] for i in histograms.images]], dtype=float)
    rows = [i for i, count in enumerate(times) for _ in range(count)]
    auroc, aupro = exact_pixels(map_NHW[rows], masks[rows], 0.3)
    assert histograms.auroc()(weights_1N)[0] == pytest.approx(auroc, abs=3e-4)
    assert histograms.aupro(0.3)(weights_1N)[0] == pytest.approx(aupro, abs=1e-3)


def test_good_images_need_no_mask_and_defective_ones_without_are_left_out():
    map_NHW, masks = some_maps(4)
    defective = masks.any(axis=(1, 2))
    full = metrics.pixel_histograms(map_NHW, defective, lambda i: masks[i])
    without = metrics.pixel_histograms(map_NHW, defective, lambda i: masks[i] if defective[i] else None)
    assert point(without.auroc(), 6) == point(full.auroc(), 6)
    fewer = metrics.pixel_histograms(map_NHW, defective, lambda i: None if i == 5 else masks[i])
    assert sorted(fewer.images) == [0, 1, 2, 3, 4]
    blank = metrics.pixel_histograms(map_NHW, defective, lambda i: masks[i] & (i != 5))
    assert sorted(blank.images) == [0, 1, 2, 3, 4]
    assert metrics.pixel_histograms(map_NHW, defective, lambda _: None) is None


def test_a_defect_of_one_pixel_survives_in_a_large_mask():
    mask = np.zeros((1501, 2000), dtype=bool)
    mask[700, 1333] = True
    map_NHW = np.zeros((2, 4, 4), dtype=np.float32)
    map_NHW[0, 1, 2] = 1
    histograms = metrics.pixel_histograms(map_NHW, [True, False], lambda i: mask if i == 0 else None)
    assert histograms.regions_D.tolist() == [1]
    assert histograms.normal_NB.sum(axis=1).tolist() == [512 * 384 - histograms.defective_DB.sum(), 512 * 384]
