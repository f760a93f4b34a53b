#!/usr/bin/env bash
# optuna 5.0.0
# TPESampler(multivariate=True, group=True), the setting for spaces with conditional
# parameters, keeps the first range that it saw. A study that is resumed with a wider range
# never suggests a value from the new part: no error, no warning, and no random trial either.
# The same study without group reaches it at once.
# Guess: the new range is searched, perhaps by independent sampling at first.
# Seen (range 0 to 1 for 20 trials, then 0 to 2 for 100; the optimum is at 1.8):
#   group=True: x from 0.01 to 1.00, above 1: 0 of 100, range recorded {2.0}, best value 0.641, warnings 0
#   group=False: x from 0.20 to 2.00, above 1: 97 of 100, range recorded {2.0}, best value 0.002, warnings 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" optuna==5.0.0
"$work/venv/bin/python" -W ignore - <<'PY'
import warnings

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def objective(trial, high):
    return (trial.suggest_float("x", 0, high) - 1.8) ** 2 + trial.suggest_float("y", 0, 1)


outside = {}
for group in (True, False):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, group=group, seed=0)
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda trial: objective(trial, 1), n_trials=20)
        study.optimize(lambda trial: objective(trial, 2), n_trials=100)
    values = [trial.params["x"] for trial in study.trials[20:]]
    outside[group] = sum(value > 1 for value in values)
    ranges = {trial.distributions["x"].high for trial in study.trials[20:]}
    print(f"group={group}: x from {min(values):.2f} to {max(values):.2f}, above 1: {outside[group]} of 100,"
          f" range recorded {ranges}, best value {study.best_value:.3f}, warnings {len(caught)}")
assert outside[True] == 0 and outside[False] > 50, "the behaviour changed"
PY
