#!/usr/bin/env bash
# mlflow 3.17.2, SQLite store
# A NaN that is logged for a logged model comes back as 0.0, where the run that logged it shows NaN: of models sorted by their loss the
# diverged one is the best, and `metrics.loss < 0.5` finds it. And the filter looks at every step, the order at the last one: a
# model whose loss was 0.1 in epoch 0 and is 9 now is found by `metrics.loss < 0.5` and sorted as 9. With runs the same filter
# looks at the last step.
# Guess: NaN is NaN or absent, and filter and order look at the last value, as with runs.
# Seen:
#   loss of the diverged model         0.0, its run nan
#   models with metrics.loss < 0.5     diverged, good, was_good
#   models by loss, lowest first       diverged, good, was_good
#   runs with metrics.loss < 0.5       good
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" mlflow==3.17.2
cd "$work"
MLFLOW_DISABLE_TELEMETRY=true "$work/venv/bin/python" -W ignore - 2>"$work/log" <<'PY' || { cat "$work/log"; exit 1; }
import math
import os

import mlflow

mlflow.set_tracking_uri(f"sqlite:///{os.getcwd()}/mlflow.db")
experiment = mlflow.create_experiment("models", artifact_location=os.getcwd() + "/artifacts")
mlflow.set_experiment("models")
losses = {"good": [0.4, 0.3], "was_good": [0.1, 9.0], "diverged": [float("nan")]}
models, runs = {}, {}
for name, values in losses.items():
    with mlflow.start_run(run_name=name) as run:
        model = mlflow.initialize_logged_model(name=name)
        for step, value in enumerate(values):
            mlflow.log_metric("loss", value, step=step, model_id=model.model_id)
        mlflow.finalize_logged_model(model.model_id, "READY")
        models[name], runs[name] = model.model_id, run.info.run_id
client = mlflow.MlflowClient()
of_model = client.get_logged_model(models["diverged"]).metrics[0].value
of_run = client.get_run(runs["diverged"]).data.metrics["loss"]
print("loss of the diverged model:", of_model, "its run:", of_run)
low = client.search_logged_models([experiment], filter_string="metrics.loss < 0.5")
ordered = client.search_logged_models([experiment], order_by=[{"field_name": "metrics.loss", "ascending": True}])
low_runs = client.search_runs([experiment], "metrics.loss < 0.5")
low, ordered = sorted(model.name for model in low), [model.name for model in ordered]
low_runs = [run.info.run_name for run in low_runs]
print("models with metrics.loss < 0.5:", low)
print("models by loss, lowest first:", ordered)
print("runs with metrics.loss < 0.5:", low_runs)
assert of_model == 0.0 and math.isnan(of_run), "the behaviour changed"
assert low == ["diverged", "good", "was_good"] and ordered == ["diverged", "good", "was_good"], "the behaviour changed"
assert low_runs == ["good"], "the behaviour changed"
PY
