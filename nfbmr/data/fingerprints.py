"""What of a picture is compared: its fine structure, free of light, of exposure and of what repeats.

A small grey picture x becomes the difference of two Gaussians over its local standard deviation, so that
brightness, contrast and shading drop out. For `detail`, frequencies k that stand out against the others of
their wavelength are then cut to twice the median: the regular pattern of a cloth, the straight edges of a
board and the contour of a part are the same on every part of its kind, its grain and scratches are not::

    h = (G_0.7 - G_2) * x        f = h / sqrt(G_4 * h^2 + 1)        |F_k| <- min(|F_k|, 2 median_k |F_k|)

Tensor names: H W are a picture's sides, S is 64, F is 33 (a real transform's half), M 32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.thumbnails import thumbnail

Field = NDArray[np.float32]
"""Real numbers on a grid, float32."""

SIDE = 64
"""Pixels a side of the picture that details are compared on."""
MAP = 32
"""Pixels a side of the coarser one, a mean over squares of the other."""
FULL = 128
"""Most pixels of the longer side where pictures are compared in full."""

_PEAKS = 2.0
_NOTHING = 1e-3


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is kept of an image for comparison.

    Attributes:
        small_HW: Its small grey picture, uint8.
        map_MM: Coarse structure of the picture squeezed to a square, to look candidates up quickly.
        detail_SS: Fine structure of the picture squeezed to a square.
        digest: SHA-256 of the file.
    """

    small_HW: NDArray[np.uint8]
    map_MM: Field
    detail_SS: Field
    digest: str


@dataclass(frozen=True, slots=True)
class Bands:
    """A picture's structure at two scales, in its proportions.

    Attributes:
        shape_HW: What its contours and patterns are like, to lay pictures on each other.
        detail_HW: What is its own; mean square 1, or 0 everywhere where there is nothing.
    """

    shape_HW: Field
    detail_HW: Field


def fingerprint(path: Path) -> Fingerprint:
    """Read an image and take its fingerprint.

    Raises:
        ImageError: It cannot be read.
    """
    small_HW, digest = thumbnail(path)
    x_SS = _resized(small_HW, SIDE, SIDE)
    step = SIDE // MAP
    coarse_SS = structure(x_SS, 2.0, 6.0, 8.0)
    map_MM = coarse_SS.reshape(MAP, step, MAP, step).mean(axis=(1, 3))
    return Fingerprint(small_HW, map_MM, distinctive(structure(x_SS, 0.7, 2.0, 4.0)), digest)


def bands(taken: Fingerprint) -> Bands:
    """The structure of a picture, its longer side `FULL` pixels at most."""
    height, width = taken.small_HW.shape
    shrink = max(1.0, max(height, width) / FULL)
    x_HW = _resized(taken.small_HW, max(16, round(height / shrink)), max(16, round(width / shrink)))
    return Bands(structure(x_HW, 1.5, 4.0, 8.0), distinctive(structure(x_HW, 0.7, 2.0, 4.0)))


def structure(x_HW: Field, fine: float, wide: float, local: float) -> Field:
    """What lies between two scales, at the same local contrast everywhere.

    Args:
        x_HW: Grey values (H, W), 0 to 255.
        fine: Standard deviation of the narrower Gaussian, in pixels.
        wide: That of the wider one.
        local: That of the neighbourhood whose contrast is divided by.

    Returns:
        (H, W), from -3 to 3.
    """
    blurred = _gaussian()
    h_HW = blurred(x_HW, fine, truncate=3.0) - blurred(x_HW, wide, truncate=3.0)
    # One grey level of contrast is as good as noise: it is not blown up to structure.
    h_HW /= np.sqrt(blurred(h_HW * h_HW, local, truncate=2.0) + 1.0)
    clipped: Field = np.clip(h_HW, -3, 3)
    return clipped


def distinctive(f_HW: Field) -> Field:
    """Structure without the frequencies that stand out among those of their wavelength; mean square 1."""
    from scipy.fft import irfft2, rfft2
    from scipy.ndimage import median

    height, width = f_HW.shape
    ring_HF, rings = _rings(height, width)
    f_HF = rfft2(f_HW)
    magnitude_HF = np.abs(f_HF)
    limit_R = _PEAKS * np.asarray(median(magnitude_HF, ring_HF, np.arange(rings)))
    limit_R[0] = 0
    f_HF *= np.minimum(1.0, limit_R[ring_HF] / np.maximum(magnitude_HF, 1e-9))
    detail_HW = np.asarray(irfft2(f_HF, s=(height, width)), np.float32)
    size = float(np.sqrt((detail_HW * detail_HW).mean()))
    return detail_HW / np.float32(size) if size > _NOTHING else np.zeros_like(detail_HW)


@cache
def faded(side: int) -> Any:
    """A window (side, side) that fades the border, where crops differ."""
    fade_W = np.sqrt(np.hanning(side + 2)[1:-1]).astype(np.float32)
    return fade_W[:, None] * fade_W


def spectrum(f_SS: Field) -> NDArray[np.complex64]:
    """Transform (S, F) of a square, faded at its border, of mean 0 and norm 1; 0 where it is empty."""
    from scipy.fft import rfft2

    f_SS = f_SS * faded(len(f_SS))
    f_SS = f_SS - f_SS.mean()
    norm = float(np.linalg.norm(f_SS))
    return np.asarray(rfft2(f_SS / max(norm, 1e-6)), np.complex64)


@cache
def _gaussian() -> Callable[..., Any]:
    from scipy.ndimage import gaussian_filter

    blurred: Callable[..., Any] = gaussian_filter
    return blurred


@cache
def _rings(height: int, width: int) -> tuple[Any, int]:
    """Number of the ring of wavelengths that each frequency lies in, (H, F), and how many there are."""
    y_H, x_F = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    ring_HF = np.rint(np.hypot(y_H, x_F) * min(height, width)).astype(int)
    return ring_HF, int(ring_HF.max()) + 1


def _resized(small_HW: NDArray[np.uint8], height: int, width: int) -> Field:
    from PIL import Image

    if small_HW.shape == (height, width):
        return small_HW.astype(np.float32)
    picture = Image.fromarray(small_HW.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX), np.float32)
