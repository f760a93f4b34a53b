#!/usr/bin/env bash
# optuna 5.0.0, SQLite 3 of Python 3.11
# Of eight processes that share a study in SQLite two take the same enqueued trial, and both run it: whoever takes it looks whether it
# waits, and sets it running, without a lock that SQLite knows. The slower of the two ends its optimize() with
# "Trial#5 has already finished and can not be updated" or "Cannot tell a COMPLETE trial", and runs none of the trials that it still had to. In JournalStorage each is taken once.
# Guess: each is taken once; some writers may be told that the database is locked.
# Seen (120 enqueued points; differs from run to run):
#   journal  run twice: 0, processes that ended early: 0 of 8
#   SQLite   run twice: 8, processes that ended early: 5 of 8
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" optuna==5.0.0
cat > "$work/run.py" <<'PY'
import multiprocessing
import pathlib
import sys
import warnings

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
POINTS = 120


def load(kind, path):
    storage = JournalStorage(JournalFileBackend(path)) if kind == "journal" else f"sqlite:///{path}"
    sampler = optuna.samplers.RandomSampler()
    return optuna.create_study(study_name="s", storage=storage, sampler=sampler, load_if_exists=True)


def work(asked):
    """Numbers of the trials whose objective ran here, and what ended it."""
    kind, path = asked
    ran = []

    def objective(trial):
        ran.append(trial.number)
        return trial.suggest_float("x", 0, 1)

    try:
        load(kind, path).optimize(objective, POINTS // 8)
    except (optuna.exceptions.UpdateFinishedTrialError, ValueError) as error:
        return ran, str(error)
    return ran, None


if __name__ == "__main__":
    twice, ended = {"journal": 0, "SQLite": 0}, {"journal": 0, "SQLite": 0}
    for kind in twice:
        for attempt in range(6):
            path = str(pathlib.Path(sys.argv[1]) / f"{kind}-{attempt}")
            study = load(kind, path)
            for number in range(POINTS):
                study.enqueue_trial({"x": number / POINTS})
            with multiprocessing.get_context("spawn").Pool(8) as pool:
                answers = pool.map(work, [(kind, path)] * 8, chunksize=1)
            numbers = [number for ran, _ in answers for number in ran]
            twice[kind] += len(numbers) - len(set(numbers))
            ended[kind] += sum(error is not None for _, error in answers)
            if kind == "SQLite" and ended[kind]:
                break
            if kind == "journal":
                break
        print(f"{kind:8s} run twice: {twice[kind]}, processes that ended early: {ended[kind]} of 8, {attempt + 1} studies")
    assert twice["journal"] == ended["journal"] == 0 < min(twice["SQLite"], ended["SQLite"]), "the behaviour changed"
PY
"$work/venv/bin/python" -W ignore "$work/run.py" "$work"
