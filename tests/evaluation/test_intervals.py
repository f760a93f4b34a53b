"""Estimates and the bootstrap."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.evaluation.intervals import UNDEFINED, Estimate, bootstrap, resampled_weights


def mean_of(x_N):
    return lambda weights_RN: weights_RN @ x_N / weights_RN.sum(axis=1)


def drawn(n, **options):
    return np.concatenate(list(resampled_weights(n, **options)))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_an_estimate_survives_json(value, low, high):
    estimate = Estimate(value, low, high)
    assert Estimate.from_json(json.loads(json.dumps(estimate.as_json()))) == estimate


def test_what_is_undefined_is_null_in_json_and_said_in_text():
    assert json.dumps(UNDEFINED.as_json(), allow_nan=False) == '{"value": null, "low": null, "high": null}'
    assert not Estimate.from_json(UNDEFINED.as_json()).defined
    assert f"{UNDEFINED}" == f"{UNDEFINED:.1%}" == "undefined"


def test_a_mean_has_the_interval_of_theory():
    rng = np.random.default_rng(0)
    x_N = rng.normal(size=400)
    estimate = bootstrap(mean_of(x_N), 400, resamples=4000)
    half = 1.96 * x_N.std() / 20
    assert estimate.value == pytest.approx(x_N.mean())
    assert estimate.low == pytest.approx(x_N.mean() - half, abs=0.1 * half)
    assert estimate.high == pytest.approx(x_N.mean() + half, abs=0.1 * half)


def test_intervals_of_95_percent_hold_the_truth_about_as_often():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        estimate = bootstrap(mean_of(rng.normal(size=60)), 60, resamples=300, seed=seed)
        held += estimate.low <= 0 <= estimate.high
    assert 0.88 <= held / 200 <= 0.99


def test_images_of_one_part_do_not_count_as_independent():
    rng = np.random.default_rng(2)
    x_N = np.repeat(rng.normal(size=50), 6)
    groups = [f"part {i // 6}" for i in range(300)]
    alone, grouped = (bootstrap(mean_of(x_N), 300, groups=g) for g in (None, groups))
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_whole_groups_are_drawn():
    weights_RN = drawn(6, groups=["a", "a", "b", "b", None, None], resamples=50, seed=0)
    assert (weights_RN[:, 0] == weights_RN[:, 1]).all()
    assert (weights_RN[:, 2] == weights_RN[:, 3]).all()
    assert (weights_RN[:, 4] != weights_RN[:, 5]).any()


def test_a_group_without_a_name_is_no_group_even_beside_a_like_named_one():
    weights_RN = drawn(4, groups=[None, None, "0", "=1"], resamples=50, seed=0)
    assert len({tuple(column) for column in weights_RN.T}) == 4


@given(
    st.lists(st.tuples(st.booleans(), st.one_of(st.none(), st.sampled_from("abcd"))), min_size=1, max_size=30)
)
def test_every_resample_has_every_class(images):
    classes, groups = [c for c, _ in images], [g for _, g in images]
    for g in (None, groups):
        weights_RN = drawn(len(images), groups=g, strata=classes, resamples=20, seed=0)
        for one in set(classes):
            assert (weights_RN[:, [c == one for c in classes]].sum(axis=1) > 0).all()


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    x_N = np.random.default_rng(3).normal(size=50)
    first, again, other = (bootstrap(mean_of(x_N), 50, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_resamples_that_leave_the_statistic_undefined_are_left_out():
    def only_with_the_first(weights_RN):
        return np.where(weights_RN[:, 0] > 0, 0.5, np.nan)

    assert bootstrap(only_with_the_first, 5, resamples=100) == Estimate(0.5, 0.5, 0.5)


def test_no_resamples_and_no_images_give_no_interval():
    x_N = np.arange(5.0)
    assert str(bootstrap(mean_of(x_N), 5, resamples=0)) == "2.000"
    assert math.isnan(bootstrap(mean_of(x_N[:0]), 0).value)
