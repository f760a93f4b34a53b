#!/usr/bin/env bash
# pillow 13.0.0, opencv-python-headless 5.0.0.93
# One colour JPEG read as grey has two results: OpenCV's IMREAD_GRAYSCALE and Pillow's
# draft("L") hand out the file's luma, convert("L") goes by way of RGB, which clips. In
# saturated colours they differ by several levels, although both libraries decode the same
# RGB, bit for bit. An edge filter or a threshold fitted with one is off with the other.
# Guess: at most one level of rounding.
# Seen (largest difference in levels):
#   RGB, OpenCV and Pillow                       0
#   grey, OpenCV and Pillow's draft              0
#   grey, OpenCV and Pillow's convert            7
#   grey, OpenCV read as grey and turned grey    7
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" pillow==13.0.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import io

import cv2
import numpy as np
from PIL import Image

noise = (np.random.default_rng(0).random((128, 128, 3)) * 255).astype(np.uint8)
smooth = cv2.GaussianBlur(noise, (0, 0), 1.5).astype(int)
colours = np.clip((smooth - 127) * 4 + 127, 0, 255).astype(np.uint8)
buffer = io.BytesIO()
Image.fromarray(colours).save(buffer, "JPEG", quality=90)
raw = np.frombuffer(buffer.getvalue(), np.uint8)
draft = Image.open(buffer)
draft.draft("L", None)
in_colour = cv2.imdecode(raw, cv2.IMREAD_COLOR)
grey = cv2.imdecode(raw, cv2.IMREAD_GRAYSCALE)
pairs = {
    "RGB, OpenCV and Pillow": (in_colour[..., ::-1], np.array(Image.open(buffer))),
    "grey, OpenCV and Pillow's draft": (grey, np.array(draft)),
    "grey, OpenCV and Pillow's convert": (grey, np.array(Image.open(buffer).convert("L"))),
    "grey, OpenCV read as grey and turned grey": (grey, cv2.cvtColor(in_colour, cv2.COLOR_BGR2GRAY)),
}
worst = [int(np.abs(one.astype(int) - two.astype(int)).max()) for one, two in pairs.values()]
for words, levels in zip(pairs, worst, strict=True):
    print(f"{words:44s} {levels}")
assert worst[:2] == [0, 0] and min(worst[2:]) >= 4, "the behaviour changed"
PY
