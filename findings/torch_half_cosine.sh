#!/usr/bin/env bash
# torch 2.15.0
# normalize() and cosine_similarity() of float16 vectors: a zero vector gives NaN, as their eps (1e-12 and 1e-8) is 0
# in float16, and a long one is orthogonal to itself, as its norm is infinite: 4096 features of 1200 are normalised to
# zeros, with a similarity of 0 to themselves. Every value is finite and nothing warns. In bfloat16 and float32 both are right. A patch
# in which no filter fires (ReLU) and a patch with strong activations are what a memory bank by cosine distance then gets wrong.
# Guess: zeros for the zero vector, which eps is documented to be for; 1 for a vector and itself.
# Seen:
#                  zero normalised   zero with another   long normalised, length   long with itself
#   float32        0.0               0.0                 1.0                       1.0
#   bfloat16       0.0               0.0                 1.0                       1.0
#   float16        nan               nan                 0.0                       0.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import math

import torch
from torch.nn.functional import cosine_similarity, normalize

seen = {}
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    zero = torch.zeros(1, 4096, dtype=dtype)
    long = torch.full((1, 4096), 1200.0, dtype=dtype)
    seen[dtype] = [
        normalize(zero)[0, 0].item(),
        cosine_similarity(zero, long / 1200).item(),
        normalize(long)[0].float().norm().item(),
        cosine_similarity(long, long).item(),
    ]
    print(f"{str(dtype):15s}", *(f"{value:.1f}" for value in seen[dtype]))
right, wrong = [0.0, 0.0, 1.0, 1.0], seen[torch.float16]
for dtype in (torch.float32, torch.bfloat16):
    assert all(abs(value - wanted) < 0.02 for value, wanted in zip(seen[dtype], right)), "the behaviour changed"
assert math.isnan(wrong[0]) and math.isnan(wrong[1]) and wrong[2:] == [0.0, 0.0], "the behaviour changed"
PY
