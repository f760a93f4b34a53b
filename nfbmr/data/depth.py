"""How many bits the values of a deep image have, and how they come down to eight.

A file says how wide its numbers are, not how many of their bits a camera fills: 12-bit cameras write 0 to
4095 into 16-bit files. PNG's sBIT does not tell either: by the standard such values are already stretched to
the whole width, and many writers do not stretch them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.errors import ImageError

log = logging.getLogger(__name__)

DEPTHS = (8, 10, 12, 14, 16)
"""Bits of cameras' values."""


def least_depth(highest: int) -> int:
    """The smallest depth that holds a value.

    Example:
        >>> least_depth(255), least_depth(256), least_depth(4095), least_depth(65535)
        (8, 10, 12, 16)
    """
    return next((bits for bits in DEPTHS if highest < 1 << bits), DEPTHS[-1])


def eight_bit(values: NDArray[Any], depth: int, where: str | Path) -> NDArray[np.uint8]:
    r"""Bring integers of `depth` bits, or floats in 0..1, to 0..255.

    .. math:: v_8 = \mathrm{round}(255\, v / (2^{depth} - 1)), \text{ at most } 255

    Args:
        values: Values of an image, in any shape.
        depth: Bits of an integer; values above what it holds become white, with a warning.
        where: The image, for messages.

    Raises:
        ImageError: Values are negative, beyond 16 bits, or floats outside 0..1.
    """
    low, high = values.min(), values.max()
    is_float = values.dtype.kind == "f"
    widest = 1.0 if is_float else 65535
    if not (low >= 0 and high <= widest):
        raise ImageError(
            f"values from {low} to {high}, outside 0 to {widest}",
            where=where,
            fix="export it with 8 or 16 bits a channel",
        )
    limit = 1.0 if is_float else (1 << depth) - 1
    if high > limit:
        _warn_once(depth, where, int(high))
        values = np.minimum(values, limit)
    return np.asarray(np.rint(values * np.float32(255 / limit)), dtype=np.uint8)


_warned: set[int] = set()


def _warn_once(depth: int, where: str | Path, high: int) -> None:
    """Of the first image alone: a whole set would say the same of every one."""
    if depth not in _warned:
        _warned.add(depth)
        log.warning(
            "%s has values up to %d, more than %d bits hold: they are seen as white; set features.depth to "
            "the camera's depth",
            where,
            high,
            depth,
        )
