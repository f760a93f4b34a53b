#!/usr/bin/env bash
# pillow 13.0.0, opencv-python-headless 5.0.0.93
# In a radiograph's TIFF zero is often white (PhotometricInterpretation 0). Of 8 bits Pillow and OpenCV make a
# positive, of 16 bits or floats they hand out the negative's values, in the same modes and types as a positive's. In OpenCV
# a flag alone decides, for one file: IMREAD_GRAYSCALE gives the positive, with IMREAD_ANYDEPTH the negative. A bright pore is
# dark once the detector is read in full depth.
# Guess: both depths alike, turned over or not.
# Seen (a pixel at 0.9 of white, in shares of white):
#                                 8 bits   16 bits   float
#   Pillow                        0.90     0.10      0.10
#   OpenCV, unchanged             0.90     0.10
#   OpenCV, grey in 8 bits        0.90     0.90
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" pillow==13.0.0 opencv-python-headless==5.0.0.93 tifffile==2026.3.3 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import pathlib
import tempfile

import cv2
import numpy as np
import tifffile
from PIL import Image

folder = pathlib.Path(tempfile.mkdtemp())
shares = {}
for name, dtype, full in (("8 bits", np.uint8, 255), ("16 bits", np.uint16, 65535), ("float", np.float32, 1)):
    path = str(folder / f"{name}.tif")
    stored = np.full((16, 16), full * 0.1).astype(dtype)  # a tenth of the way from white to black
    tifffile.imwrite(path, stored, photometric="miniswhite")
    shares["Pillow", name] = np.array(Image.open(path))[0, 0] / full
    if name != "float":
        shares["OpenCV, unchanged", name] = cv2.imread(path, cv2.IMREAD_UNCHANGED)[0, 0] / full
        shares["OpenCV, grey in 8 bits", name] = cv2.imread(path, cv2.IMREAD_GRAYSCALE)[0, 0] / 255
for (words, name), share in shares.items():
    print(f"{words:24s} {name:8s} {share:.2f}")
negative = {pair for pair, share in shares.items() if share < 0.5}
wanted = {("Pillow", "16 bits"), ("Pillow", "float"), ("OpenCV, unchanged", "16 bits")}
assert negative == wanted, "the behaviour changed"
PY
