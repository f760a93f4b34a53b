#!/usr/bin/env bash
# pillow 13.0.0
# paste() takes a 16-bit image for two 8-bit channels. With a soft mask high and low bytes are blended by
# themselves: between 2047 and 2048 lies 1947, between 255 and 256 lies 383. A value is written into a box as its low byte, twice, or as
# white where it is beyond 255 and odd: 40000 becomes 16448, 4095 becomes 65535. Image.new(), ImageDraw and ImageOps.expand() write the
# same values as they are. CutPaste and other made defects on 12-bit images come out speckled.
# Guess: blended within one level, written as given.
# Seen:
#   blended 2047 and 2048, mask 100   1947  (2047.4)
#   blended 255 and 256, mask 128     383   (255.5)
#   blended 1000 and 1100, mask 128   1178  (1050.2)
#   written 40000                     16448, by ImageDraw 40000
#   written 4095                      65535, by ImageDraw 4095
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" pillow==13.0.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from PIL import Image, ImageDraw


def plain(value, dtype=np.uint16):
    return Image.fromarray(np.full((8, 8), value, dtype))


errors = []
for below, above, mask in ((2047, 2048, 100), (255, 256, 128), (1000, 1100, 128)):
    image = plain(below)
    image.paste(plain(above), (0, 0), plain(mask, np.uint8))
    wanted = below + (above - below) * mask / 255
    errors.append(abs(image.getpixel((3, 3)) - wanted))
    print(f"blended {below} and {above}, mask {mask}: {image.getpixel((3, 3))}  ({wanted:.1f})")
written = {}
for value in (40000, 4095):
    pasted, drawn = plain(0), plain(0)
    pasted.paste(value, (0, 0, 8, 8))
    ImageDraw.Draw(drawn).rectangle((0, 0, 7, 7), fill=value)
    written[value] = (pasted.getpixel((3, 3)), drawn.getpixel((3, 3)))
    print(f"written {value}: {written[value][0]}, by ImageDraw {written[value][1]}")
assert min(errors) > 90 and written == {40000: (16448, 40000), 4095: (65535, 4095)}, "the behaviour changed"
PY
