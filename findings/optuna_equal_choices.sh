#!/usr/bin/env bash
# optuna 5.0.0
# Choices that Python calls equal (0 and False, 1 and True, 1 and 1.0) are
# suggested as they are, but recorded as the first of them. In a space such as
# clamp: [false, 0, 1], where False means "no clamp", trials ran with 0 while
# trial.params, best_params, the storage and the importances all say False. Nothing warns.
# Guess: each choice is recorded as itself (it is stored by its index), or refused.
# Seen:
#   the objective ran with   {'0': 33, '1': 36, 'False': 31}
#   the study says           {'1': 36, 'False': 64}
#   best trial ran with 0, best_params says {'clamp': False}
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" optuna==5.0.0
"$work/venv/bin/python" -W ignore - <<'PY'
from collections import Counter

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
ran = []


def objective(trial):
    clamp = trial.suggest_categorical("clamp", [False, 0, 1])
    ran.append(repr(clamp))
    return {"False": 0.8, "0": 0.9, "1": 0.7}[repr(clamp)]


study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
study.optimize(objective, n_trials=100)
says = [repr(trial.params["clamp"]) for trial in study.trials]
print("the objective ran with  ", dict(sorted(Counter(ran).items())))
print("the study says          ", dict(sorted(Counter(says).items())))
print(f"best trial ran with {ran[study.best_trial.number]}, best_params says {study.best_params}")
assert "0" in ran and "0" not in says, "the behaviour changed"
assert ran[study.best_trial.number] == "0" and study.best_params["clamp"] is False, "the behaviour changed"
PY
