"""Where an image is: a file, its bytes (:class:`Encoded`), or its pixels (:class:`Decoded`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nfbmr.errors import ImageError, ImageSizeError

MAX_PIXELS = 200_000_000
"""The largest image that is decoded: 600 MB as RGB, more than any area or line-scan camera gives at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """The bytes of an image file.

    Attributes:
        content: What the file holds.
        name: Name of the image, for messages.
    """

    content: bytes
    name: str = "the image"


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Pixels that are in memory already.

    Attributes:
        pixels: uint8, (H, W) for a grey image or (H, W, 3).
        name: Name of the image, for messages.

    Raises:
        ImageError: Another shape or type, no pixels, or more than `MAX_PIXELS`.
    """

    pixels: NDArray[np.uint8]
    name: str = "the image"

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        fix = "give whole numbers from 0 to 255, (height, width) or (height, width, 3)"
        if dtype != np.uint8:
            raise ImageError(f"pixels of type {dtype}", where=self.name, fix=fix)
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3) or 0 in shape:
            raise ImageError(f"an array of shape {shape} is no image", where=self.name, fix=fix)
        check_pixels(shape[1], shape[0], MAX_PIXELS, self.name)


Source = Path | Encoded | Decoded
"""Where an image is: a file, its bytes, or its pixels."""


def place_of(source: Source) -> str | Path:
    """What messages call an image: its path, or the name it was given."""
    return source if isinstance(source, Path) else source.name


def check_pixels(width: int, height: int, limit: int, where: str | Path) -> None:
    """Refuse more pixels than a limit.

    Raises:
        ImageSizeError: There are more.
    """
    if width * height > limit:
        most = f"{limit // 1_000_000} million" if limit >= 1_000_000 else f"{limit}"
        raise ImageSizeError(
            f"absurdly large: {width} x {height} pixels, the limit is {most}",
            where=where,
            fix="crop, tile or shrink it first, or remove it",
        )
