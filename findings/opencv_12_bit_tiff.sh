#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93, pillow 13.0.0, tifffile 2026.3.3 with imagecodecs 2026.3.6
# One packed 12-bit TIFF, three readers, two scales: OpenCV shifts the values left by four
# bits (0 to 65520), Pillow and tifffile leave them (0 to 4095). Asked for 8 bits, OpenCV
# gives None with a warning. A threshold fitted on files read by one does not fit the other.
# Guess: all read 0 to 4095.
# Seen:
#   Pillow     0 1 2 3 ... 4095
#   tifffile   0 1 2 3 ... 4095
#   OpenCV     0 16 32 48 ... 65520
#   OpenCV, 8-bit grey: None
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" opencv-python-headless==5.0.0.93 pillow==13.0.0 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import io
import os
import struct

os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
import cv2
import numpy as np
import tifffile
from PIL import Image

values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
even, odd = values.ravel()[0::2], values.ravel()[1::2]
packed = np.stack([even >> 4, ((even & 15) << 4) | (odd >> 8), odd & 255], axis=1).astype(np.uint8).tobytes()
width, height, bits, plain, min_is_black, offset, samples, rows, size = 256, 257, 258, 259, 262, 273, 277, 278, 279
tags = {width: 64, height: 64, bits: 12, plain: 1, min_is_black: 1, offset: 8, samples: 1, rows: 64, size: len(packed)}
long, short = 4, 3
entries = b"".join(
    struct.pack("<HHII", tag, long if tag in (offset, size) else short, 1, value) for tag, value in tags.items()
)
header = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
file = header + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
raw = np.frombuffer(file, np.uint8)
read = {
    "Pillow": np.array(Image.open(io.BytesIO(file))),
    "tifffile": tifffile.imread(io.BytesIO(file)),
    "OpenCV": cv2.imdecode(raw, cv2.IMREAD_UNCHANGED),
}
for name, image in read.items():
    print(f"{name:9s} ", *image.ravel()[:4], "...", image.max())
grey = cv2.imdecode(raw, cv2.IMREAD_GRAYSCALE)
print("OpenCV, 8-bit grey:", grey)
assert np.array_equal(read["Pillow"], values) and np.array_equal(read["tifffile"], values), "the behaviour changed"
assert np.array_equal(read["OpenCV"], values * 16) and grey is None, "the behaviour changed"
PY
