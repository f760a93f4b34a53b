#!/usr/bin/env bash
# optuna 5.0.0
# Eight processes that share one study draw the same points of QMCSampler's sequence: of 160 trials 26 to 51 repeat another's
# point to the last digit, although all processes have one seed, as the documentation asks of parallel use. The place in the
# sequence is read from the study and written back in two steps. What is lost is the evenness that the sequence is for, and the trials. In one
# process all points differ.
# Guess: no point twice; each process takes the next one.
# Seen (160 trials of two parameters, JournalStorage; with SQLite 27 of 80):
#   1 process    0 repeated
#   8 processes  26 repeated, one point up to twice; differs from run to run
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" optuna==5.0.0 scipy==1.17.1
cat > "$work/run.py" <<'PY'
import collections
import multiprocessing
import pathlib
import sys
import warnings

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
TRIALS = 160


def load(path):
    sampler = optuna.samplers.QMCSampler(scramble=True, seed=0)
    storage = JournalStorage(JournalFileBackend(path))
    return optuna.create_study(study_name="s", storage=storage, sampler=sampler, load_if_exists=True)


def work(asked):
    path, trials = asked
    load(path).optimize(lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1), trials)


if __name__ == "__main__":
    repeated = {}
    for processes in (1, 8):
        path = str(pathlib.Path(sys.argv[1]) / f"journal-{processes}")
        load(path)
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            pool.map(work, [(path, TRIALS // processes)] * processes, chunksize=1)
        trials = load(path).trials
        assert len(trials) == TRIALS
        points = collections.Counter((trial.params["x"], trial.params["y"]) for trial in trials)
        repeated[processes] = TRIALS - len(points)
        print(f"{processes} processes: {repeated[processes]} repeated, one point up to {max(points.values())} times")
    assert repeated[1] == 0 and repeated[8] >= 4, "the behaviour changed"
PY
"$work/venv/bin/python" -W ignore "$work/run.py" "$work"
