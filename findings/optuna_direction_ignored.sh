#!/usr/bin/env bash
# optuna 5.0.0
# create_study(direction="maximize", load_if_exists=True) on a stored study that minimises
# returns the minimising study, without a warning. A sweep that is started again after its
# objective was changed from a loss to an AUROC goes on looking for the worst model.
# Guess: it raises, since the two requests contradict each other.
# Seen:
#   asked for maximize, got minimize; warnings: 0
#   best of AUROC 0.60, 0.95, 0.80: 0.6
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" optuna==5.0.0
"$work/venv/bin/python" -W ignore - <<'PY'
import tempfile
import warnings

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)
storage = f"sqlite:///{tempfile.mkdtemp()}/sweep.db"
optuna.create_study(study_name="sweep", storage=storage, direction="minimize")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    study = optuna.create_study(study_name="sweep", storage=storage, direction="maximize", load_if_exists=True)
print(f"asked for maximize, got {study.direction.name.lower()}; warnings: {len(caught)}")
for auroc in (0.60, 0.95, 0.80):
    study.tell(study.ask(), auroc)
print("best of AUROC 0.60, 0.95, 0.80:", study.best_value)
assert study.direction == optuna.study.StudyDirection.MINIMIZE and not caught, "the behaviour changed"
assert study.best_value == 0.60, "the behaviour changed"
PY
