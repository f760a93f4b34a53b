#!/usr/bin/env bash
# pillow 13.0.0
# Pillow takes the two passes of a resize in an order that depends on the sizes, and rounds
# and clips between them. Of noise, 300 high and 250 wide, resized to 256 x 256, a third of the
# pixels differ from the horizontal pass first, by up to 20 levels; of a picture of 720 x 1280
# none do. A model trained behind a resize that keeps one order (torch, torchvision) sees other
# pixels where Pillow resizes, for some sizes of picture and not for others.
# Guess: horizontal first, whatever the sizes; resizing in two calls, width first, is the same.
# Seen (largest difference from width first, and share of pixels that differ):
#   720 x 1280 to 256 x 256   0   0.000
#   300 x 250 to 256 x 256   20   0.304   (0 from height first)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" pillow==13.0.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import numpy as np
from PIL import Image

BICUBIC, SIDE = Image.Resampling.BICUBIC, 256
noise = np.random.default_rng(0)


def differences(height, width):
    image = Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
    at_once = np.asarray(image.resize((SIDE, SIDE), BICUBIC)).astype(int)
    width_first = image.resize((SIDE, height), BICUBIC).resize((SIDE, SIDE), BICUBIC)
    height_first = image.resize((width, SIDE), BICUBIC).resize((SIDE, SIDE), BICUBIC)
    return [np.abs(at_once - np.asarray(other)) for other in (width_first, height_first)]


seen = {size: differences(*size) for size in ((720, 1280), (300, 250))}
for (height, width), (first, other) in seen.items():
    print(f"{height} x {width}: from width first {first.max()}, {(first > 0).mean():.3f}; from height first {other.max()}")
assert seen[720, 1280][0].max() == 0 and seen[300, 250][0].max() > 10 and seen[300, 250][1].max() == 0, "the behaviour changed"
PY
