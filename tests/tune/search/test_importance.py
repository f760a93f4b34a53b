"""What the objective depended on: found where it did, not found where it did not, and not said too early."""

from __future__ import annotations

import random

import numpy as np
import optuna
import pytest

from tune.search.importance import FEWEST_TRIALS, TRIALS_A_DIMENSION, Readiness, coded, importances

NAMES = ["blocks", "rate", "taps"]


def trials(count: int, seed: int = 0) -> list[optuna.trial.FrozenTrial]:
    """Finished trials over a number, a logarithmic number and a choice."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(count):
        trial = study.ask()
        trial.suggest_int("blocks", 1, 8)
        trial.suggest_float("rate", 1e-5, 1e-2, log=True)
        trial.suggest_categorical("taps", ("early", "middle", "late"))
        study.tell(trial, 0.0)
    return study.trials


def noise(count: int, size: float) -> np.ndarray:
    draws = random.Random(3)
    return np.asarray([draws.gauss(0, size) for _ in range(count)])


def test_what_decides_is_told_from_what_does_not() -> None:
    finished = trials(30)
    values = [0.1 * (trial.params["taps"] == "late") for trial in finished] + noise(30, 0.01)
    estimates = importances(finished, values, NAMES)
    assert estimates[0].name == "taps"
    assert estimates[0].certain
    assert 0.5 < estimates[0].estimate.value < 1.5
    assert not any(one.certain for one in estimates[1:])
    assert importances(finished, values, NAMES) == estimates


@pytest.mark.parametrize("seed", range(3))
def test_of_noise_nothing_is_certain(seed: int) -> None:
    finished = trials(FEWEST_TRIALS, seed)
    estimates = importances(finished, noise(FEWEST_TRIALS, 1.0), NAMES, seed=seed)
    assert not any(one.certain for one in estimates)
    assert all(one.estimate.low <= one.estimate.value <= one.estimate.high for one in estimates)


def test_an_objective_that_does_not_vary_depends_on_nothing() -> None:
    estimates = importances(trials(20), [0.9] * 20, NAMES)
    assert not any(one.estimate.defined or one.certain for one in estimates)


def test_a_choice_is_a_column_each_and_what_a_trial_did_not_have_a_value_of_its_own() -> None:
    study = optuna.create_study()
    for taps in ("early", "late", "early"):
        study.enqueue_trial({"taps": taps, "rate": 0.1})
        trial = study.ask()
        if trial.suggest_categorical("taps", ("early", "late")) == "early":
            trial.suggest_float("rate", 0.01, 1, log=True)
        study.tell(trial, 0.0)
    x_NC, owner_C = coded(study.trials, ["rate", "taps"])
    assert owner_C.tolist() == [0, 1, 1]
    assert x_NC[:, 1:].tolist() == [[1, 0], [0, 1], [1, 0]]
    assert x_NC[0, 0] == x_NC[2, 0] == pytest.approx(np.log(0.1))
    assert x_NC[1, 0] < x_NC[0, 0]


def test_trials_are_counted_before_anything_is_said() -> None:
    few = Readiness.of(trials(12))
    assert (few.finished, few.needed, few.enough) == (12, 20, False)
    sentence = few.missing(15, "nfbmr sweep --resume tiles")
    assert sentence is not None
    assert "12 trials finished, and it takes 20 to tell 3 dimensions from chance" in sentence
    assert sentence.endswith("nfbmr sweep --resume tiles --trials 25")
    many = Readiness.of(trials(20))
    assert many.enough
    assert many.missing(20, "") is None
    wide = Readiness(20, tuple("abcdefgh"), tuple("abcdefgh"))
    assert wide.needed == 8 * TRIALS_A_DIMENSION > FEWEST_TRIALS
    assert not wide.enough


def test_where_nothing_was_varied_more_trials_would_not_help() -> None:
    same = Readiness(30, ("a",), ())
    assert not same.enough
    assert same.missing(30, "") is None
