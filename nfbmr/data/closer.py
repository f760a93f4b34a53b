"""A closer look at two pictures that agree: is it one part, or two that have the same contours?

At the scale at which twins are looked for, parts with many contours (a gear, a printed board) agree in most
places as soon as they lie alike. At a finer scale, where there are no contours, one part has the same grain
in both pictures and two parts have not. A picture in black and white has no grain; what is a board's own is
then how ragged its edges are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.fingerprints import FULL, Field, structure
from nfbmr.data.images import load_small
from nfbmr.data.registration import BLOCK, STEP, View, places_of, refined, warped

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 512
"""Most pixels of the longer side."""

FLAT = 0.04
"""Share of the range of greys that counts as black, and as white."""

LEAST_FLAT, LEAST_OF_EACH = 0.75, 0.03
"""Shares of an image: black and white together, and each of them, for a print of flat areas."""
SAME_EDGES = 0.98
"""Correlation that three quarters of the places reach in copies, and not in other prints."""

SAME_GRAIN, OTHER_GRAIN = 0.45, 0.3
"""Copies come to 0.5 at least, also re-encoded ones; strangers to 0, if they have no fine lines in common."""

_PLACE, _EDGE = 32, 0.15
_GRAIN_PLACE, _GRAIN = 24, 1e-4
_LARGE, _FEWEST = 300, 6


@dataclass(frozen=True, slots=True)
class Look:
    """What a closer look says.

    Attributes:
        verdict: ``"twin"``, ``"unsure"`` or ``"different"``.
        grain: Correlation of the two pictures' grain; 1 where there is none to be compared.
    """

    verdict: str
    grain: float = 1.0


def closer_look(test: Path, train: Path, view: View) -> Look:
    """What a finer scale says of two pictures that agree.

    Args:
        test: The test image.
        train: The training image.
        view: Where the first lies in the second.

    Returns:
        A twin where it is one part, different where each has a grain of its own, else unsure.

    Raises:
        ImageError: One cannot be read.
    """
    a, b = load_small(test, 2 * LONGEST), load_small(train, 2 * LONGEST)
    if any(is_drawing(_scaled(image, LONGEST)) for image in (a, b)):
        return _by_edges(_scaled(a, LONGEST), _scaled(b, LONGEST), view)
    side = max(FULL, min(LONGEST, max(a.size), max(b.size)))
    return _by_grain(_scaled(a, side), _scaled(b, side), view)


def _by_edges(a_HW: Field, b_HW: Field, view: View) -> Look:
    a_HW, b_HW = view.turned(structure(a_HW, 1.5, 6.0, 12.0)), structure(b_HW, 1.5, 6.0, 12.0)
    matrix_23 = view.matrix_23
    for reach in (8, 4, 3):
        matrix_23, _ = refined(a_HW, b_HW, matrix_23, reach, block=48, step=32)
    values = places_of(warped(a_HW, matrix_23, b_HW.shape, np.nan), b_HW, _PLACE, least=_EDGE, much=_EDGE)
    return Look("twin" if len(values) and np.percentile(values, 25) >= SAME_EDGES else "unsure")


def _by_grain(a_HW: Field, b_HW: Field, view: View) -> Look:
    """By the median correlation in the half of the places that has the weakest contours."""
    height, width = b_HW.shape
    quiet_HW = _quieter_half(b_HW)
    a_HW, b_HW = view.turned(structure(a_HW, 1.5, 4.0, 8.0)), structure(b_HW, 1.5, 4.0, 8.0)
    block, step = (48, 32) if max(height, width) > _LARGE else (BLOCK, STEP)
    matrix_23 = view.matrix_23
    for reach in (6, 3):
        matrix_23, _ = refined(a_HW, b_HW, matrix_23, reach, block=block, step=step)
    seen_HW = np.where(quiet_HW, warped(a_HW, matrix_23, (height, width), np.nan), np.nan)
    values = places_of(seen_HW, b_HW, _GRAIN_PLACE, least=_GRAIN, much=np.inf)
    if len(values) < _FEWEST:
        return Look("unsure")
    grain = float(np.median(values))
    verdict = "twin" if grain >= SAME_GRAIN else "different" if grain < OTHER_GRAIN else "unsure"
    return Look(verdict, grain)


def _quieter_half(x_HW: Field) -> NDArray[np.bool_]:
    """The places with less contrast than the median place, pixel by pixel."""
    from scipy.ndimage import gaussian_filter

    h_HW = gaussian_filter(x_HW, 1.5) - gaussian_filter(x_HW, 4.0)
    rows, columns = (max(1, n // _GRAIN_PLACE) for n in x_HW.shape)
    y, x = (x_HW.shape[0] - rows * _GRAIN_PLACE) // 2, (x_HW.shape[1] - columns * _GRAIN_PLACE) // 2
    part_HW = h_HW[y : y + rows * _GRAIN_PLACE, x : x + columns * _GRAIN_PLACE]
    energy_RC = (part_HW**2).reshape(rows, _GRAIN_PLACE, columns, _GRAIN_PLACE).mean(axis=(1, 3))
    half_RC = energy_RC <= np.median(energy_RC)
    quiet_HW = np.zeros(x_HW.shape, np.bool_)
    quiet_HW[y : y + rows * _GRAIN_PLACE, x : x + columns * _GRAIN_PLACE] = np.kron(
        half_RC, np.ones((_GRAIN_PLACE, _GRAIN_PLACE), np.bool_)
    )
    return quiet_HW


def is_drawing(x_HW: Field) -> bool:
    """Whether nearly all of a picture is either black or white."""
    low, high = np.percentile(x_HW, [1, 99])
    width = FLAT * (high - low)
    black, white = float((x_HW <= low + width).mean()), float((x_HW >= high - width).mean())
    return bool(high > low and min(black, white) >= LEAST_OF_EACH and black + white >= LEAST_FLAT)


def _scaled(image: Image, side: int) -> Field:
    """A picture whose longer side has so many pixels: both are compared at one scale."""
    from PIL.Image import Resampling

    shrink = max(image.size) / side
    size = (max(64, round(image.width / shrink)), max(64, round(image.height / shrink)))
    return np.asarray(image.resize(size, Resampling.BOX if shrink > 1 else Resampling.BICUBIC), np.float32)
