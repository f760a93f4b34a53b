#!/usr/bin/env bash
# av 18.1.0 (FFmpeg's swscale)
# Turning a frame of 10, 12 or 16 bits into 8-bit grey adds an ordered dither: a perfectly
# flat frame becomes a pattern of two neighbouring values. Fine texture then appears on parts
# that have none, the same in every image, and a difference of two frames shows it.
# Guess: one value in, one value out, by a shift or by rounding.
# Seen (a flat frame of 1000, and the values of its 8-bit version):
#   gray10le   249 250
#   gray12le   62 63
#   gray16le   3 4
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" av==18.1.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import av
import numpy as np

flat = np.full((64, 64), 1000, np.uint16)
seen = {}
for kind in ("gray10le", "gray12le", "gray16le"):
    grey = av.VideoFrame.from_ndarray(flat, format=kind).reformat(format="gray").to_ndarray()
    seen[kind] = np.unique(grey).tolist()
    print(f"{kind}  ", *seen[kind])
assert seen == {"gray10le": [249, 250], "gray12le": [62, 63], "gray16le": [3, 4]}, "the behaviour changed"
PY
