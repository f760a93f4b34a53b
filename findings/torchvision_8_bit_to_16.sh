#!/usr/bin/env bash
# torchvision 0.29.2, torch 2.15.0
# v2.functional.to_dtype(scale=True) shifts between uint8 and uint16 instead of scaling:
# white (255) becomes 65280, and 0.996 as a float. The same image is not the same float when
# it comes as an 8-bit file and when it was widened to 16 bits beside 16-bit files.
# Guess: value * 257, so that white stays white.
# Seen:
#   uint8 255 -> uint16 65280 -> float 0.9961
#   uint8 255 -> float 1.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" torchvision==0.29.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from torchvision.transforms.v2.functional import to_dtype

white = torch.tensor([255], dtype=torch.uint8)
wide = to_dtype(white, torch.uint16, scale=True)
through, direct = (float(to_dtype(image, torch.float32, scale=True)) for image in (wide, white))
print(f"uint8 255 -> uint16 {wide.item()} -> float {through:.4f}")
print(f"uint8 255 -> float {direct}")
assert wide.item() == 65280 and direct == 1.0 and through < 0.997, "the behaviour changed"
PY
