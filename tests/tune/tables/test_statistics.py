"""The numbers of an ablation: intervals cover, pairing pays, nothing is averaged that is not there."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.evaluation.intervals import auroc_interval, bootstrap
from nfbmr.evaluation.metrics import image_metric
from tune.tables.cell_scores import CellScores
from tune.tables.statistics import Comparison

GOOD, BAD = 40, 60


def cell(row, seed, score, defective, category=None, names=None, groups=None):
    names = [f"{i:03d}" for i in range(len(score))] if names is None else names
    return CellScores(row, category, seed, names, defective, score, score > 1.0, groups)


def experiment(rng, *, shifts, seeds=3, images=1.0, training=0.3, noise=0.5, copies=1):
    """Scores of the same images by several rows.

    A defective image scores `shift` higher. What an image adds (`images`) is the same for all rows and seeds;
    what a training run adds to the shift is its own (`training`), and so is the rest (`noise`).
    """
    defective = np.tile(np.arange(GOOD + BAD) >= GOOD, copies)
    n = len(defective)
    image_N = rng.normal(0, images, n)
    return [
        cell(
            row,
            seed,
            image_N + (shift + rng.normal(0, training)) * defective + rng.normal(0, noise, n),
            defective,
        )
        for row, shift in shifts.items()
        for seed in range(seeds)
    ]


def true_auroc(shift, *, images=1.0, training=0.3, noise=0.5):
    """Expected over images, training runs and noise."""
    variance = 2 * (images**2 + noise**2) + training**2
    return NormalDist().cdf(shift / math.sqrt(variance))


@pytest.mark.parametrize(
    ("training", "seeds", "copies"),
    [(0.0, 3, 1), (0.3, 3, 1), (0.5, 3, 6), (0.4, 5, 1)],
    ids=["images alone", "both", "mostly seeds", "five seeds"],
)
def test_intervals_of_means_and_of_differences_cover_the_truth(training, seeds, copies):
    rng, times = np.random.default_rng(1), 150
    shifts = {"a": 2.0, "b": 1.5}
    truth = {row: true_auroc(shift, training=training) for row, shift in shifts.items()}
    covered = np.zeros(2)
    for _ in range(times):
        cells = experiment(rng, shifts=shifts, seeds=seeds, training=training, copies=copies)
        comparison = Comparison(cells, "image_auroc", resamples=200)
        mean, difference = comparison.mean("a").estimate, comparison.difference("b", "a").estimate
        covered += [
            mean.low <= truth["a"] <= mean.high,
            difference.low <= truth["b"] - truth["a"] <= difference.high,
        ]
    # 95 % nominal; 150 trials are known to about 2 %
    assert (covered / times >= 0.90).all(), covered / times


def test_pairing_narrows_a_difference():
    rng = np.random.default_rng(2)
    paired, apart = [], []
    for _ in range(10):
        cells = experiment(rng, shifts={"a": 2.0, "b": 1.7}, training=0.0, noise=0.2)
        comparison = Comparison(cells, "image_auroc", resamples=200)
        d = comparison.difference("b", "a").estimate
        widths = [(e.high - e.low) for e in (comparison.mean("a").estimate, comparison.mean("b").estimate)]
        paired.append(d.high - d.low)
        apart.append(math.hypot(*widths))
    assert np.mean(paired) < 0.5 * np.mean(apart)


def test_other_images_cannot_be_paired_and_this_is_said():
    rng = np.random.default_rng(3)
    defective = np.arange(20) < 10
    cells = [
        cell(row, 0, rng.normal(size=20), defective, names=[f"{row}{i}" for i in range(20)]) for row in "ab"
    ]
    comparison = Comparison(cells, "image_auroc", resamples=50)
    assert not comparison.difference("a", "b").same_images
    assert comparison.difference("a", "a").same_images


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_a_row_against_itself_is_a_tie_of_no_width(seed, seeds):
    cells = experiment(np.random.default_rng(seed), shifts={"a": 1.0}, seeds=seeds)
    difference = Comparison(cells, "image_auroc", resamples=50).difference("a", "a")
    assert (difference.estimate.value, difference.estimate.low, difference.estimate.high) == (0, 0, 0)
    assert difference.verdict == "tie"


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(["image_auroc", "image_ap", "image_f1", "image_recall"]))
def test_means_are_means_and_differences_are_differences(seed, metric):
    rng = np.random.default_rng(seed)
    cells = [
        CellScores(c.row, category, c.seed, c.names, c.defective, c.score, c.rejected)
        for category in ("x", "y", "z")
        for c in experiment(rng, shifts={"a": 1.0, "b": 2.0}, seeds=2)
    ]
    comparison = Comparison(cells, metric, resamples=50)
    plain = {
        (c.row, c.category, c.seed): image_metric(metric, c.score, c.rejected, c.defective)(
            np.ones((1, GOOD + BAD))
        )[0]
        for c in cells
    }
    for row in "ab":
        mine = [value for (r, _, _), value in plain.items() if r == row]
        mean = comparison.mean(row)
        assert mean.estimate.value == pytest.approx(np.mean(mine))
        assert mean.estimate.low <= mean.estimate.value <= mean.estimate.high
        assert mean.seeds == 2
        by_category = [comparison.mean(row, [category]).estimate.value for category in "xyz"]
        assert np.mean(by_category) == pytest.approx(mean.estimate.value)
    difference = comparison.difference("b", "a").estimate.value
    assert difference == pytest.approx(
        comparison.mean("b").estimate.value - comparison.mean("a").estimate.value
    )


def test_one_seed_gives_the_interval_of_the_images_alone():
    (one,) = experiment(np.random.default_rng(0), shifts={"a": 1.5}, seeds=1)
    mean = Comparison([one], "image_auroc", resamples=4000).mean("a")
    alone = bootstrap(
        image_metric("image_auroc", one.score, one.rejected, one.defective),
        GOOD + BAD,
        strata=one.defective.tolist(),
        resamples=4000,
        seed=9,
    )
    alone = alone.widened(auroc_interval(alone.value, GOOD, BAD))
    assert mean.estimate.value == alone.value
    assert mean.estimate.low == pytest.approx(alone.low, abs=0.01)
    assert mean.estimate.high == pytest.approx(alone.high, abs=0.01)
    assert math.isnan(mean.deviation)


def test_a_mean_of_perfect_categories_is_no_certainty():
    """The more categories, the surer: their errors are independent."""
    defective = np.arange(60) >= 30
    lows = []
    for count in (1, 4):
        cells = [cell("a", 0, defective * 2.0, defective, category=f"{c}") for c in range(count)]
        estimate = Comparison(cells, "image_auroc", resamples=200).mean("a").estimate
        assert (estimate.value, estimate.high) == (1.0, 1.0)
        lows.append(estimate.low)
    assert lows[0] == pytest.approx(auroc_interval(1.0, 30, 30).low)
    assert 1 - lows[1] == pytest.approx((1 - lows[0]) / 2)


def test_images_of_one_part_are_drawn_together():
    rng = np.random.default_rng(4)
    defective = np.repeat(np.arange(20) < 10, 6)
    score = np.repeat(rng.normal(size=20) + 1.5 * (np.arange(20) < 10), 6)
    groups = [f"part {i // 6}" for i in range(120)]
    widths = []
    for given_groups in (groups, None):
        cell_a = cell("a", 0, score, defective, groups=given_groups)
        e = Comparison([cell_a], "image_auroc", resamples=400).mean("a").estimate
        widths.append(e.high - e.low)
    assert widths[0] > 1.5 * widths[1]


def test_a_seed_counts_where_all_categories_have_it():
    rng = np.random.default_rng(5)
    cells = [
        CellScores(c.row, category, c.seed, c.names, c.defective, c.score, c.rejected)
        for category in "xy"
        for c in experiment(rng, shifts={"a": 1.0, "b": 2.0}, seeds=3)
    ]
    lost = [c for c in cells if (c.row, c.category, c.seed) != ("b", "y", 1)]
    comparison = Comparison(lost, "image_auroc", resamples=50)
    assert comparison.seeds("a", ["x", "y"]) == (0, 1, 2)
    assert comparison.seeds("b", ["x", "y"]) == (0, 2)
    assert comparison.mean("b", ["x"]).seeds == 3
    assert comparison.difference("b", "a").seeds == 2
    # the cells that are left give what they gave before
    assert comparison.mean("a").estimate == Comparison(cells, "image_auroc", resamples=50).mean("a").estimate
    nothing = comparison.mean("c")
    assert not nothing.estimate.defined
    assert nothing.seeds == 0
    assert comparison.difference("c", "a").verdict == "unknown"


def test_a_test_set_without_defects_gives_nothing_and_no_error():
    cell_a = cell("a", 0, np.arange(5.0), np.zeros(5, dtype=bool))
    comparison = Comparison([cell_a], "image_auroc", resamples=20)
    assert not comparison.mean("a").estimate.defined
    assert math.isnan(comparison.value("a", None, 0))
