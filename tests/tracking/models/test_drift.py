"""New good parts against those that the threshold was set on."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_server.registry.drift import drift
from nfbmr.scoring.thresholds import threshold_at


def checked(shift: float, new: int, seed: int, spread: float = 1.0, known: int = 100):
    """A threshold for 5 % set on normally distributed scores, and new ones that may differ."""
    import torch

    rng = np.random.default_rng(seed)
    old = rng.normal(size=known)
    threshold = threshold_at(torch.tensor(old), 0.05)
    return drift(old, rng.normal(shift, spread, size=new), threshold=threshold, stated=0.05)


@pytest.mark.parametrize(("known", "new"), [(100, 60), (24, 200)])
def test_parts_like_the_old_ones_seldom_raise_an_alarm(known: int, new: int) -> None:
    """Nor where a threshold from few images rejects more than it states of parts like those that set it."""
    verdicts = [checked(0.0, new, seed, known=known).verdict for seed in range(200)]
    assert verdicts.count("holds") >= 190
    assert set(verdicts) <= {"holds", "rejects too much", "scores fell"}


@pytest.mark.parametrize(("shift", "verdict"), [(1.5, "rejects too much"), (-1.5, "scores fell")])
def test_parts_that_differ_do(shift: float, verdict: str) -> None:
    verdicts = [checked(shift, 60, seed).verdict for seed in range(50)]
    assert verdicts.count(verdict) >= 48


def test_a_wider_spread_is_seen_by_its_rejects() -> None:
    found = checked(0.0, 200, 1, spread=3.0)
    assert found.verdict == "rejects too much"
    assert abs(found.delta) < 0.2
    assert found.probability < 0.01


def test_few_images_are_said_to_be_few() -> None:
    found = checked(0.0, 8, 0)
    assert found.verdict == "too few images"
    assert not found.holds
    assert "Too few images" in found.sentence
    assert found.rejects.high > 0.3


def test_few_images_that_are_nearly_all_rejected_say_enough() -> None:
    assert checked(6.0, 8, 0).verdict == "rejects too much"


def test_the_sentence_and_the_numbers() -> None:
    old = np.linspace(0, 1, 101)
    verdict = drift(old, old + 0.5, threshold=0.95, stated=0.05, unreadable={"a.png": "empty"})
    assert verdict.sentence.startswith("The threshold no longer holds: it rejects ")
    assert "101 new good images, where 5% were stated; the scores have moved far up" in verdict.sentence
    as_json = verdict.as_json()
    assert as_json["false_reject_rate"]["value"] == pytest.approx(0.554, abs=0.01)
    assert as_json["kolmogorov_smirnov"]["statistic"] == pytest.approx(0.5, abs=0.02)
    assert as_json["unreadable"] == {"a.png": "empty"}
    assert as_json["holds"] is False
