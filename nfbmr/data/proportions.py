"""What size and proportions the images of a set have, from their headers alone; and their depth."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median

from nfbmr.data.depth import DEPTHS, least_depth
from nfbmr.data.images import highest_byte, highest_value, size_seen
from nfbmr.errors import ImageError

log = logging.getLogger(__name__)

NEARLY = 1.1
"""Up to this ratio of its sides an image counts as square."""
_MOST = 10.0
_LOOKED_AT = 100
_DARK = 64
"""Of 255: what a camera of 14 bits fills of 16."""
_LEAST_DETAIL, _MOST_DETAIL, _STEP = 640, 1024, 32


def sizes_of(paths: Iterable[Path]) -> list[tuple[int, int]]:
    """(height, width) of images; one that cannot be read is left out: whoever needs its pixels names it."""
    sizes = []
    for path in paths:
        with contextlib.suppress(ImageError):
            sizes.append(size_seen(path))
    return sizes


def typical_aspect(sizes: Sequence[tuple[int, int]]) -> float:
    """The median width over height; exactly 1 where that is nearly square.

    Args:
        sizes: (height, width) of images.

    Returns:
        From 0.1 to 10, rounded to three digits; 1 where there are none.
    """
    aspect = median(width / height for height, width in sizes) if sizes else 1.0
    if 1 / NEARLY <= aspect <= NEARLY:
        return 1.0
    return round(min(max(aspect, 1 / _MOST), _MOST), 3)


def detail_size(sizes: Sequence[tuple[int, int]], *, square: bool = True) -> int:
    """The size that a detail look sees images at, as :attr:`nfbmr.config.FeatureConfig.size`.

    Half the images' own resolution, between 640 and 1024 pixels, but never more than they have: what a camera
    resolves at a single pixel is mostly noise, and pixels that were never taken show nothing.

    Args:
        sizes: (height, width) of images.
        square: Whether they are seen in squares. The sides of rectangles are rounded each, and their size is
            not rounded before.

    Returns:
        64 at least, of squares a multiple of 32 pixels; 640 where there are no images.

    Example:
        >>> detail_size([(300, 300)]), detail_size([(1024, 1024)]), detail_size([(3000, 4000)])
        (288, 640, 1024)
        >>> detail_size([(256, 384)], square=False)
        313
    """
    if not sizes:
        return _LEAST_DETAIL
    typical = median(math.sqrt(height * width) for height, width in sizes)
    wanted = min(typical, _MOST_DETAIL, max(typical / 2, _LEAST_DETAIL))
    return max(64, int(wanted) // _STEP * _STEP if square else int(wanted))


def typical_depth(paths: Sequence[Path]) -> int:
    """The depth of a set's deep images: the least that holds every value of those looked at.

    A hundred are looked at, spread evenly, and none after one that fills 16 bits. A depth below 16 is said
    in a warning, since a 16-bit camera in the dark looks the same. Of images of 16 bits a colour the high
    bytes alone are read: where these are dark, a warning says so.

    Args:
        paths: Images; those that cannot be read are left out: whoever needs their pixels names them.

    Returns:
        8, 10, 12, 14 or 16 bits; 16 where no image is deep.
    """
    highest, brightest = -1, None
    dark: dict[Path, int] = {}
    step = max(1, math.ceil(len(paths) / _LOOKED_AT))
    for path in paths[::step]:
        with contextlib.suppress(ImageError, OSError):
            state = path.stat()
            value = _highest_value(path, state.st_mtime_ns, state.st_size)
            if value is not None and value > highest:
                highest, brightest = value, path
            if (byte := _highest_byte(path, state.st_mtime_ns, state.st_size)) is not None:
                dark[path] = byte
        if least_depth(highest) == DEPTHS[-1]:
            break
    _warn_of_dark_colour(dark)
    if brightest is None:
        return DEPTHS[-1]
    depth = least_depth(highest)
    if depth < DEPTHS[-1]:
        log.warning(
            "values of the 16-bit images go up to %d alone (%s): they are read as %d-bit; if the camera has "
            "another depth, set features.depth",
            highest,
            brightest,
            depth,
        )
    return depth


@lru_cache(maxsize=10_000)
def _highest_value(path: Path, changed_ns: int, size: int) -> int | None:
    """As the name says, decoded once a process: every trial of a sweep asks."""
    return highest_value(path)


@lru_cache(maxsize=10_000)
def _highest_byte(path: Path, changed_ns: int, size: int) -> int | None:
    """Likewise."""
    return highest_byte(path)


def _warn_of_dark_colour(highest: Mapping[Path, int]) -> None:
    """A word where the colours of a camera with fewer bits would be read as nearly black."""
    if highest and max(highest.values()) < _DARK:
        brightest = max(highest, key=lambda path: highest[path])
        log.warning(
            "of images of 16 bits a colour the high bytes alone are read, and these go up to %d of 255 (%s): "
            "the camera seems to have fewer bits; export them with 8 bits a colour, or as 16-bit grey",
            highest[brightest],
            brightest,
        )
