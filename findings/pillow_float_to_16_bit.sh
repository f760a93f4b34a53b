#!/usr/bin/env bash
# pillow 13.0.0
# Turning a float map into 16-bit grey clips it at 255, the limit of 8 bits; from mode I the
# same values pass whole. A heat map or a flat-field corrected frame scaled to 0..65535 in
# mode F and saved as 16-bit becomes nearly all 255.
# Guess: clipped at 0 and 65535.
# Seen:
#   from F   0 100 255 255 255 255
#   from I   0 100 255 256 4095 65535
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" pillow==13.0.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from PIL import Image

values = np.array([[0, 100, 255, 256, 4095, 65535]])
seen = {}
for mode, dtype in (("F", np.float32), ("I", np.int32)):
    seen[mode] = np.array(Image.fromarray(values.astype(dtype)).convert("I;16"))[0].tolist()
    print(f"from {mode}  ", *seen[mode])
assert seen["F"] == [0, 100, 255, 255, 255, 255] and seen["I"] == values[0].tolist(), "the behaviour changed"
PY
