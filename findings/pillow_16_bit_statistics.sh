#!/usr/bin/env bash
# pillow 13.0.0
# For 16-bit grey, histogram() and with it ImageStat's mean, median and standard deviation
# count the single bytes of the left half of the image: high and low bytes together, the right
# half not at all. getextrema() of the same image is right. A normalisation by mean and
# standard deviation, or a check for dark frames, that is taken here means nothing.
# Guess: 65 536 bins, and a mean in the units of the pixels.
# Seen:
#   left half 1000, right half 1000    pixels' mean 1000.0  ImageStat 117.5  extrema (1000, 1000)
#   left half 1000, right half 60000   pixels' mean 30500.0  ImageStat 117.5  extrema (1000, 60000)
#   (1000 is 3 * 256 + 232, and 117.5 is half of 3 + 232)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" pillow==13.0.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from PIL import Image, ImageStat

seen = []
for right in (1000, 60000):
    pixels = np.full((32, 64), 1000, np.uint16)
    pixels[:, 32:] = right
    image = Image.fromarray(pixels)
    seen.append((ImageStat.Stat(image).mean[0], image.getextrema()))
    words = f"left half 1000, right half {right}"
    print(f"{words:34s} pixels' mean {pixels.mean()}  ImageStat {seen[-1][0]}  extrema {seen[-1][1]}")
assert image.mode == "I;16" and len(image.histogram()) == 256, "the behaviour changed"
assert seen == [(117.5, (1000, 1000)), (117.5, (1000, 60000))], "the behaviour changed"
PY
