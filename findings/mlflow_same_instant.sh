#!/usr/bin/env bash
# mlflow 3.17.2, SQLite store
# Of several values of a metric with one step and one millisecond, the run shows the largest,
# not the last. In that contest NaN counts as 0: it loses against 2 and wins against -2, so
# a flow whose negative log-likelihood is below zero shows NaN where one above zero does not.
# Values logged in one log_batch, or without a step, share both easily.
# Guess: the last value logged is shown.
# Seen:
#   logged 3, 1, 2       shown 3.0
#   logged 2, nan        shown 2.0
#   logged nan, 2        shown 2.0
#   logged -2, nan       shown nan
#   logged nan, -2       shown nan
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" mlflow==3.17.2
"$work/venv/bin/python" -W ignore - <<'PY'
import logging
import os
import tempfile

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import mlflow
from mlflow.entities import Metric

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.ERROR)
folder = tempfile.mkdtemp()
client = mlflow.MlflowClient(f"sqlite:///{folder}/store.db")
experiment = client.create_experiment("flows", artifact_location=folder)
nan = float("nan")
shown = []
for values in ((3, 1, 2), (2, nan), (nan, 2), (-2, nan), (nan, -2)):
    run = client.create_run(experiment).info.run_id
    client.log_batch(run, [Metric("nll", value, timestamp=1000, step=0) for value in values])
    shown.append(str(client.get_run(run).data.metrics["nll"]))
    print(f"logged {', '.join(map(str, values)):12s}  shown {shown[-1]}")
assert shown == ["3.0", "2.0", "2.0", "nan", "nan"], "the behaviour changed"
PY
