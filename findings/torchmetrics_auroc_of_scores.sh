#!/usr/bin/env bash
# torchmetrics 1.9.0, torch 2.15.0
# BinaryAUROC passes a batch through a sigmoid if any score in it lies outside [0, 1]. That is
# decided batch by batch, so batches are ranked on two scales: scores that separate good from
# bad perfectly get another AUROC with every order of the images. Scores in the hundreds
# (a negative log-likelihood) all become 1.0 and tie, as do 8-bit maps: AUROC 0.5.
# Guess: AUROC is a matter of ranks; neither batches nor units change it.
# Seen:
#   perfect scores from 0 to 2, in order of class, batches of 10   0.805  (scikit-learn 1.000)
#   the same, one batch                                            1.000  (scikit-learn 1.000)
#   perfect scores around 300 and 500                              0.500  (scikit-learn 1.000)
#   8-bit scores                                                   0.500  (scikit-learn 0.826)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" torchmetrics==1.9.0 torch==2.15.0 numpy==2.4.6 scikit-learn==1.9.1
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import BinaryAUROC

rng = np.random.default_rng(0)
label = np.repeat([0, 1], 50)


def auroc(score, batch):
    metric = BinaryAUROC()
    for start in range(0, 100, batch):
        part = slice(start, start + batch)
        metric.update(torch.from_numpy(score[part]), torch.from_numpy(label[part]))
    return float(metric.compute())


perfect = np.concatenate([rng.uniform(0, 1, 50), rng.uniform(1.01, 2, 50)])
likelihood = np.concatenate([rng.uniform(250, 350, 50), rng.uniform(450, 550, 50)])
eight_bit = np.concatenate([rng.normal(100, 20, 50), rng.normal(130, 20, 50)]).astype(np.uint8)
seen = []
for words, score, batch in (
    ("perfect scores from 0 to 2, in order of class, batches of 10", perfect, 10),
    ("the same, one batch", perfect, 100),
    ("perfect scores around 300 and 500", likelihood, 100),
    ("8-bit scores", eight_bit, 100),
):
    seen.append(auroc(score, batch))
    print(f"{words:62s} {seen[-1]:.3f}  (scikit-learn {roc_auc_score(label, score):.3f})")
assert 0.7 < seen[0] < 0.9 and seen[1:] == [1.0, 0.5, 0.5], "the behaviour changed"
PY
