#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93
# In 16 bits CLAHE has no limit below 65536 divided by a tile's pixels: every clipLimit from 1 to 15 gives the
# same image with tiles of 64 x 64, bit for bit, since the limit is counted in whole pixels a bin of 65536 bins. In 8 bits
# limits of 1, 2 and 4 give three images. Values of 12 bits are stretched far beyond 12 bits as well. Noise that a limit of
# 1 or 2 keeps down in 8 bits is amplified in full depth.
# Guess: the same picture in both depths, within a level.
# Seen (512 x 512, tiles of 64 x 64; standard deviation in levels of 8 bits):
#   limit   1     2     4     8     15
#   8 bits  44.2  58.7  72.9  73.4  73.4
#   16 bits 69.4  69.4  69.4  69.4  69.4   (one and the same image)
#   of 12 bits, highest value 4095 before, 33343 after
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" opencv-python-headless==5.0.0.93 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import cv2
import numpy as np

smooth = cv2.GaussianBlur(np.random.default_rng(0).random((512, 512)).astype(np.float32), (0, 0), 4)
smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())


def clahe(values, limit):
    return cv2.createCLAHE(clipLimit=limit, tileGridSize=(8, 8)).apply(values)


limits = (1, 2, 4, 8, 15)
grey_8 = [clahe((smooth * 255).astype(np.uint8), limit) for limit in limits]
grey_16 = [clahe((smooth * 65535).astype(np.uint16), limit) for limit in limits]
print("limit  ", *limits)
print("8 bits ", *(f"{image.std():.1f}" for image in grey_8))
print("16 bits", *(f"{image.std() / 257:.1f}" for image in grey_16))
same = all((image == grey_16[0]).all() for image in grey_16)
highest = int(clahe((smooth * 4095).astype(np.uint16), 2).max())
print("one and the same image in 16 bits:", same)
print("of 12 bits, highest value 4095 before,", highest, "after")
assert same and grey_8[1].std() > 1.2 * grey_8[0].std() and highest > 4095, "the behaviour changed"
PY
