#!/usr/bin/env bash
# torchvision 0.29.2, torch 2.15.0
# v2.functional.to_dtype(scale=True) turns 1.0 into 0 when a float16 or bfloat16 map becomes
# uint8, and when a float32 map becomes uint16: the factor just below the next power of two
# rounds up in few bits, and 256 wraps to 0. The hottest pixel of a heat map from a model in
# half precision is drawn black. From float32 to uint8 it is right; nothing warns.
# Guess: 1.0 is white.
# Seen (0.0, 0.5, 0.99, 1.0):
#   float32  -> uint8   0 127 253 255
#   float16  -> uint8   0 128 253 0
#   bfloat16 -> uint8   0 128 253 0
#   float32  -> uint16  0 32768 64880 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" torchvision==0.29.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from torchvision.transforms.v2.functional import to_dtype

seen = {}
for source, target in (
    (torch.float32, torch.uint8),
    (torch.float16, torch.uint8),
    (torch.bfloat16, torch.uint8),
    (torch.float32, torch.uint16),
):
    heat = torch.tensor([0.0, 0.5, 0.99, 1.0], dtype=source)
    names = [str(dtype).removeprefix("torch.") for dtype in (source, target)]
    seen[tuple(names)] = to_dtype(heat, target, scale=True).tolist()
    print(f"{names[0]:8s} -> {names[1]:7s}", *seen[tuple(names)])
assert seen.pop(("float32", "uint8"))[-1] == 255, "the behaviour changed"
assert [values[-1] for values in seen.values()] == [0, 0, 0], "the behaviour changed"
PY
