"""Thresholds from few good images: what they promise of new ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.scoring.thresholds import realised_rates, threshold_at

DRAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "lognormal": lambda rng, n: rng.lognormal(0, 0.5, size=n),
    "gumbel": lambda rng, n: rng.gumbel(size=n),
    "uniform": lambda rng, n: rng.uniform(size=n),
    "heavy (t, 3 degrees)": lambda rng, n: rng.standard_t(3, size=n),
}


def threshold(scores, rate):
    return threshold_at(torch.as_tensor(scores, dtype=torch.float64), rate)


def new_rejected(draw, count, rate, repeats=400):
    """The share of new good images that are rejected, on average over thresholds set on `count`."""
    rng = np.random.default_rng(0)
    rejected = [(draw(rng, 500) > threshold(draw(rng, count), rate)).mean() for _ in range(repeats)]
    return float(np.mean(rejected))


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("count", [2, 4, 8, 16, 32, 64, 200])
def test_new_good_images_are_rejected_at_the_stated_rate_or_less_whatever_their_scores(draw, count):
    assert new_rejected(draw, count, 0.05) <= 0.06


@pytest.mark.parametrize("count", [2, 3, 16, 32, 64, 200])
def test_exponential_tails_are_rejected_at_the_stated_rate(count):
    measured = new_rejected(lambda rng, n: rng.exponential(size=n), count, 0.05)
    assert measured == pytest.approx(0.05, abs=0.007)


@pytest.mark.parametrize(("count", "rate"), [(1, 0.05), (3, 0.05), (24, 0.05), (94, 0.01), (50, 0.4)])
def test_what_one_threshold_rejects_lies_within_its_interval_as_often_as_is_said(count, rate):
    rng = np.random.default_rng(1)
    rates = [np.exp(-threshold(rng.exponential(size=count), rate)) for _ in range(2000)]
    low, high = realised_rates(count, rate)
    assert np.mean([low <= each <= high for each in rates]) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("count", [19, 39, 200])
def test_a_rate_that_is_no_tail_is_a_quantile_of_the_scores_themselves(count):
    assert new_rejected(DRAWS["normal"], count, 0.3) == pytest.approx(0.3, abs=0.02)
    scores = torch.arange(count, dtype=torch.float64)
    assert threshold(scores, 0.3) in scores.tolist()


def test_one_odd_image_of_few_does_not_decide_alone():
    """The reason for the whole: the highest of 32 scores let defects below it pass."""
    scores = np.append(np.linspace(0, 1, 31), 12.0)
    assert threshold(scores, 0.05) < 6.0


@given(st.integers(0, 2**31), st.integers(1, 60), st.floats(0.001, 0.5))
def test_a_stricter_rate_never_lowers_it_and_scale_and_shift_carry_over(seed, count, rate):
    scores = np.random.default_rng(seed).normal(size=count)
    chosen = threshold(scores, rate)
    assert threshold(scores, rate / 2) >= chosen
    assert threshold(3 * scores + 7, rate) == pytest.approx(3 * chosen + 7)


@given(st.floats(-1e3, 1e3), st.integers(1, 40))
def test_good_images_that_are_all_alike_set_their_own_score(value, count):
    assert threshold(np.full(count, value), 0.05) == pytest.approx(value)
