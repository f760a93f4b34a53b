#!/usr/bin/env bash
# pillow 13.0.0
# Rotating or warping a 16-bit grey image (mode I;16) with BILINEAR or BICUBIC returns noise:
# the filter runs over single bytes. A plane of 1000 beside one of 1300 becomes values of 7 to
# 227, without an error. resize() is right in this mode, so is NEAREST; reduce(), filter() and
# ImageChops refuse it. Augmenting 16-bit camera files this way trains on noise.
# Guess: as in mode F or I within one level, or refused like filter().
# Seen (centre of a ramp from 0 to 64512, rotated by one degree):
#   mode I;16   0 59 0 63
#   mode I      30711 31735 32758 33782
#   mode F      30711 31735 32759 33783
#   1000 and 1300, rotated by three degrees: 7 to 227
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" pillow==13.0.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from PIL import Image


def rotated(pixels, mode, degrees):
    image = Image.fromarray(pixels)
    return np.array(image.convert(mode).rotate(degrees, Image.Resampling.BILINEAR)).astype(float)


ramp = np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (64, 1))
row = {mode: rotated(ramp, mode, 1)[32, 30:34] for mode in ("I;16", "I", "F")}
for mode, values in row.items():
    print(f"mode {mode:5s} ", *(round(value) for value in values))
planes = np.full((16, 16), 1000, np.uint16)
planes[:, 8:] = 1300
inner = rotated(planes, "I;16", 3)[4:12, 4:12]
print(f"1000 and 1300, rotated by three degrees: {inner.min():.0f} to {inner.max():.0f}")
assert np.abs(row["I"] - row["F"]).max() <= 1, "the behaviour changed"
assert np.abs(row["I;16"] - row["F"]).min() > 20_000 and inner.max() < 256, "the behaviour changed"
PY
