#!/usr/bin/env bash
# pillow 13.0.0
# An uncompressed grey TIFF with an orientation that exchanges height and width (a camera mounted on
# its side) is noise where Pillow opened it by name: Pillow maps the file into rows of the turned width, and
# then turns that. The array has height and width exchanged as well. From an open file, compressed, or
# in colour, the same image is right, and nothing warns.
# Guess: turned, and the same from a name as from an open file.
# Seen (orientation 6; share of pixels that are where they belong):
#   8 bits, by name          0.00, array (1152, 864)   8 bits, open file        1.00, array (864, 1152)
#   16 bits, by name         0.00, array (1152, 864)   16 bits, open file       1.00, array (864, 1152)
#   8 bits, deflate          1.00, array (864, 1152)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" pillow==13.0.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import pathlib
import tempfile

import numpy as np
from PIL import Image

folder = pathlib.Path(tempfile.mkdtemp())
noise = np.random.default_rng(0).random((1152, 864))


def right(image):
    """Share of pixels that are where orientation 6 (turn by 90 degrees, clockwise) puts them."""
    pixels = np.array(image)
    share = (pixels == wanted).mean() if pixels.shape == wanted.shape else (pixels == wanted.reshape(pixels.shape)).mean()
    return round(float(share), 2), pixels.shape


shares = {}
for bits in (8, 16):
    stored = (noise * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    wanted = np.rot90(stored, -1)
    path = folder / f"{bits}.tif"
    Image.fromarray(stored).save(path, tiffinfo={274: 6})
    shares[f"{bits} bits, by name"] = right(Image.open(path))
    with path.open("rb") as file:
        shares[f"{bits} bits, open file"] = right(Image.open(file))
    Image.fromarray(stored).save(path, tiffinfo={274: 6}, compression="tiff_adobe_deflate")
    shares[f"{bits} bits, deflate, by name"] = right(Image.open(path))
for words, (share, shape) in shares.items():
    print(f"{words:26s} {share:.2f}, array {shape}")
for words, (share, shape) in shares.items():
    broken = words.endswith("bits, by name")
    assert (share < 0.05) == broken and (shape == (864, 1152)) != broken, "the behaviour changed"
PY
