#!/usr/bin/env bash
# torchvision 0.29.2, pillow 13.0.0
# Bicubic resizing of uint8 clamps to 0..255 between its two passes, so it is not the rounded
# result of the float resize even if that is clamped at the end: at a bright corner it is off
# by 14 of 255 levels (bilinear by none). Pillow's 8-bit resize does the same (torchvision on CPUs with AVX2). A model that was
# trained on resized 8-bit files and is fed floats sees other edges, where defects are.
# Guess: at most one level of rounding.
# Seen (a bright quadrant, 32 to 64 pixels; largest difference after clamping and rounding):
#   bilinear   0
#   bicubic    14
#   Pillow bicubic, mode L against mode F: 14
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" torchvision==0.29.2 torch==2.15.0 numpy==2.4.6 pillow==13.0.0
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

image = torch.zeros(1, 32, 32, dtype=torch.uint8)
image[:, 16:, 16:] = 255
worst = {}
for name in ("bilinear", "bicubic"):
    mode = InterpolationMode(name)
    exact = resize(image.float(), [64, 64], mode, antialias=True).clamp(0, 255).round()
    worst[name] = round(float((resize(image, [64, 64], mode, antialias=True) - exact).abs().max()))
    print(f"{name:10s}", worst[name])
picture = Image.fromarray(image[0].numpy())
small, exact = (np.array(p.resize((64, 64), Image.Resampling.BICUBIC)) for p in (picture, picture.convert("F")))
pillow = round(float(np.abs(small - exact.clip(0, 255).round()).max()))
print("Pillow bicubic, mode L against mode F:", pillow)
assert worst["bilinear"] <= 1 and worst["bicubic"] > 8 and pillow > 8, "the behaviour changed"
PY
