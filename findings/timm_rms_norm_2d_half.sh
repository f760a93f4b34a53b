#!/usr/bin/env bash
# timm 1.0.31, torch 2.15.0
# RmsNorm2d of timm.layers squares in the values' own type: in float16 a map with activations beyond 256 has an infinite mean
# square, and comes out as zeros, finite and without a warning. RmsNorm, for tokens, of the same values is right, and so is
# RmsNorm2d in bfloat16. A feature map whose strongest position is the defect is blank just there.
# Guess: right within 1 %, as LayerNorm2d, GroupNorm and RmsNorm are.
# Seen (one position of a map has 1000 in all channels, others 1; length of the normalised vector over its wanted length, 8):
#              RmsNorm   RmsNorm2d
#   float32    1.00      1.00
#   bfloat16   1.00      1.00
#   float16    1.00      0.00
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" timm==1.0.31 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from timm.layers import RmsNorm, RmsNorm2d

x = torch.ones(1, 64, 8, 8)
x[..., 3, 4] = 1000
shares = {}
with torch.inference_mode():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tokens = RmsNorm(64).to(dtype)(x.to(dtype).permute(0, 2, 3, 1))[0, 3, 4]
        of_map = RmsNorm2d(64).to(dtype)(x.to(dtype))[0, :, 3, 4]
        shares[dtype] = [float(vector.float().norm()) / 8 for vector in (tokens, of_map)]
        print(f"{str(dtype):15s} RmsNorm {shares[dtype][0]:.2f}  RmsNorm2d {shares[dtype][1]:.2f}")
assert shares[torch.float16][1] == 0.0, "the behaviour changed"
right = [shares[torch.float16][0], *shares[torch.float32], *shares[torch.bfloat16]]
assert all(abs(share - 1) < 0.02 for share in right), "the behaviour changed"
PY
