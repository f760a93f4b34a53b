"""Pillow's modes, and how an image of any of them is seen: upright, grey or in colour, 8 bits a value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from nfbmr.data.depth import eight_bit

FULL_RANGE = ("PPM", "JPEG2000")
"""Formats whose values Pillow stretches itself, as their headers say."""

PACKED_BITS = 12
"""Bits of the values of a packed TIFF."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""

_GREY_MODES = ("1", "L", "LA")
_BITS_PER_SAMPLE = 258
PHOTOMETRIC = 262
"""A TIFF's tag that says whether zero is black (1) or white (0)."""
ZERO_IS_WHITE = "zero_is_white"
"""Key of an image's `info` that marks deep values as those of a negative."""


def flattened(image: Image.Image, where: str | Path, depth: int | None = None) -> Image.Image:
    """An upright image of any mode as one of mode L (grey) or RGB, transparency on white.

    Args:
        image: As :func:`upright` gives it.
        where: The image, for messages.
        depth: Bits of deep values; None takes what the file says.

    Raises:
        ImageError: Deep values are outside their range.
    """
    if is_deep(image):
        bits = 16 if image.format in FULL_RANGE else depth or image.info.get("depth", 16)
        grey_HW = eight_bit(np.asarray(image), bits, where)
        return Image.fromarray(255 - grey_HW if ZERO_IS_WHITE in image.info else grey_HW)
    grey = image.mode in _GREY_MODES
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.new("RGBA", seen.size, "white")
        image.alpha_composite(seen)
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


def upright(image: Image.Image) -> Image.Image:
    """A loaded image turned as its EXIF data say; what its file says of deep values is written down in it."""
    if is_packed(image):
        image.info["depth"] = PACKED_BITS
    if is_negative(image):
        image.info[ZERO_IS_WHITE] = True
    turn = _UPRIGHT.get(orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.format = image.format  # with its mode and these it is read as before
    kept = ("transparency", "depth", ZERO_IS_WHITE)
    turned.info.update({k: v for k, v in image.info.items() if k in kept})
    return turned


def orientation(image: Image.Image) -> int:
    """EXIF orientation; 1 (upright) where the EXIF block is missing or damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def is_deep(image: Image.Image) -> bool:
    """Whether the values are integers of more than 8 bits, or floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def is_deep_colour(image: Image.Image) -> bool:
    """Whether a file that is not decoded yet has 16 bits a colour; Pillow reads the high bytes alone.

    Pillow's names for such bytes end with their order; those of a BMP of 16 bits a pixel do not.
    """
    tiles: Any = getattr(image, "tile", ())
    deep = any(re.search(";16[BLN]", str(tile.args)) for tile in tiles)
    return deep and image.format not in FULL_RANGE and not is_deep(image)


def is_negative(image: Image.Image) -> bool:
    """Whether it is a TIFF of deep values in which zero is white: a radiograph, for the most part.

    Pillow makes a positive of 8 bits, and leaves deeper values.
    """
    return is_deep(image) and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0


def is_packed(image: Image.Image) -> bool:
    """Whether it is a TIFF of 12 bits a value, which Pillow unpacks and does not stretch."""
    tags: Any = getattr(image, "tag_v2", {})
    return image.format == "TIFF" and tags.get(_BITS_PER_SAMPLE) == (PACKED_BITS,)
