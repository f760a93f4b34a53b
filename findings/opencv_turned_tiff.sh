#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93, pillow 13.0.0
# imread() cannot read a TIFF whose orientation exchanges height and width: None, grey or colour, 8 or 16
# bits, with every flag, IMREAD_IGNORE_ORIENTATION included. imreadmulti() reads the same file, turned. Where the
# image is square, imread() reads it, too: a set of square tiles passes, the first crop does not.
# Guess: turned, or as stored where the flag says so.
# Seen:
#   square, turned by 90 degrees     imread (64, 64)   imreadmulti (64, 64)
#   48 x 64, turned by 180 degrees   imread (48, 64)   imreadmulti (48, 64)
#   48 x 64, turned by 90 degrees    imread None       imreadmulti (64, 48)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6
OPENCV_LOG_LEVEL=OFF "$work/venv/bin/python" -W ignore - <<'PY'
import pathlib
import tempfile

import cv2
import numpy as np
from PIL import Image

path = str(pathlib.Path(tempfile.mkdtemp()) / "tile.tif")
flags = [cv2.IMREAD_UNCHANGED, cv2.IMREAD_GRAYSCALE, cv2.IMREAD_COLOR, cv2.IMREAD_ANYDEPTH]
flags.append(cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
cases = [("square, turned by 90 degrees", (64, 64), 6), ("48 x 64, turned by 180 degrees", (48, 64), 3)]
cases.append(("48 x 64, turned by 90 degrees", (48, 64), 6))
for words, (height, width), orientation in cases:
    for dtype, channels in ((np.uint8, ()), (np.uint16, ()), (np.uint8, (3,))):
        pixels = np.random.default_rng(0).integers(0, 255, (height, width, *channels)).astype(dtype)
        Image.fromarray(pixels).save(path, tiffinfo={274: orientation})
        images = [cv2.imread(path, flag) for flag in flags]
        shapes = {None if image is None else image.shape[:2] for image in images}
        pages = cv2.imreadmulti(path, [], cv2.IMREAD_UNCHANGED)[1]
        print(f"{words:32s} {np.dtype(dtype)} {len(channels) * 2 + 1} channel(s): imread {shapes}, imreadmulti {pages[0].shape[:2]}")
        turned = orientation == 6 and height != width
        assert shapes == ({None} if turned else {(height, width)}), "the behaviour changed"
        assert pages[0].shape[:2] == ((width, height) if turned else (height, width)), "the behaviour changed"
PY
