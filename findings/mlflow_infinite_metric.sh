#!/usr/bin/env bash
# mlflow 3.17.2, SQLite store
# An infinite metric comes back as 1.7976931348623157e+308, a finite number, also from the
# history. A check such as math.isfinite(run.data.metrics["nll"]) passes on a run that
# diverged, and a mean over runs overflows instead of being marked. NaN is kept as NaN.
# Guess: inf comes back as inf, as NaN does.
# Seen:
#   logged inf, -inf, nan; read 1.7976931348623157e+308 -1.7976931348623157e+308 nan
#   finite: True True False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" mlflow==3.17.2
"$work/venv/bin/python" -W ignore - <<'PY'
import logging
import math
import os
import tempfile

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import mlflow

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.ERROR)
folder = tempfile.mkdtemp()
client = mlflow.MlflowClient(f"sqlite:///{folder}/store.db")
run = client.create_run(client.create_experiment("flows", artifact_location=folder)).info.run_id
for key, value in (("a", math.inf), ("b", -math.inf), ("c", math.nan)):
    client.log_metric(run, key, value)
read = client.get_run(run).data.metrics
print("logged inf, -inf, nan; read", read["a"], read["b"], read["c"])
finite = [math.isfinite(read[key]) for key in "abc"]
print("finite:", *finite)
assert finite == [True, True, False], "the behaviour changed"
assert client.get_metric_history(run, "a")[0].value == 1.7976931348623157e308, "the behaviour changed"
PY
