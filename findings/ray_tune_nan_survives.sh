#!/usr/bin/env bash
# ray 2.60.0 (tune)
# ASHA never stops a trial whose loss turned NaN, as NaN is not below the rung's cut. It stops
# finite trials that are worse than the best at the first rung, and gives the diverged one all
# epochs. Optuna's median and halving pruners prune a NaN at once.
# Guess: a NaN trial is stopped at the next rung.
# Seen (epochs run by trials of constant loss 1, 2, x, 4, 5, 6, one after the other; the
# scheduler alone is driven here, a Tuner gave the same):
#   x = 3     16 2 2 2 2 2
#   x = nan   16 2 16 2 2 2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" 'ray[tune]==2.60.0'
"$work/venv/bin/python" -W ignore - <<'PY'
import math

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler


def epochs(third):
    scheduler = ASHAScheduler(metric="loss", mode="min", max_t=16, grace_period=2, reduction_factor=2)
    ran = []
    for loss in (1.0, 2.0, third, 4.0, 5.0, 6.0):
        trial = Trial("flow", stub=True)
        scheduler.on_trial_add(None, trial)
        for epoch in range(1, 17):
            # A diverging trial begins like the one it is compared with.
            now = 3.0 if math.isnan(loss) and epoch == 1 else loss
            result = {"loss": now, "training_iteration": epoch}
            if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                break
        ran.append(epoch)
    return ran


seen = [epochs(third) for third in (3.0, math.nan)]
for third, ran in zip(("3", "nan"), seen, strict=True):
    print(f"x = {third:5s}", *ran)
assert seen == [[16, 2, 2, 2, 2, 2], [16, 2, 16, 2, 2, 2]], "the behaviour changed"
PY
