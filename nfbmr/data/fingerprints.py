"""Fingerprints that tell whether two images show the same part, whatever the exposure and the crop.

An image, squeezed to 64 x 64, is reduced to its fine structure: the difference of two Gaussians, divided by
its local standard deviation, so that brightness, contrast and shading drop out::

    h = (G_0.7 - G_2) * x          f = w h / sqrt(G_4 * h^2 + 1)          similarity = max_d <f_a, f_b(. - d)>

with f centred and of norm 1, d a shift, and w a window that fades the border, where crops differ. Two exposures
of one part agree in their scratches and specks; two parts agree, at most, in the shape that they share.

Tensor names: H W are 64, F is 33 (a real transform's half), D 256, B N V numbers of images or of crops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.images import file_digest, read_image

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 64
SHIFT = 5
COARSE = 16
CROPS = (0.0, 0.03, 0.06)
LARGEST_ASPECT_RATIO = 1.22


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is kept of an image for comparison.

    Attributes:
        spectrum_HF: Fourier transform of f, complex64 (64, 33).
        coarse_D: A blurred f, 16 x 16 values of norm 1, to look candidates up quickly.
        aspect: Natural logarithm of width over height.
        digest: SHA-256 of the file.
    """

    spectrum_HF: NDArray[np.complex64]
    coarse_D: NDArray[np.float32]
    aspect: float
    digest: str


def fingerprint(path: Path) -> Fingerprint:
    """Read an image and take its fingerprint.

    Raises:
        ImageError: It cannot be read.
    """
    grey = _grey(path)
    x_HW = _squeezed(grey)
    coarse_HW = _structure(x_HW, 2.0, 6.0, 8.0)
    step = SIDE // COARSE
    coarse_D = coarse_HW.reshape(COARSE, step, COARSE, step).mean(axis=(1, 3)).ravel()
    return Fingerprint(
        _spectrum(x_HW), _unit(coarse_D), float(np.log(grey.width / grey.height)), file_digest(path)
    )


def similarities(a_HF: NDArray[np.complex64], b_BHF: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Similarity of one fingerprint to several, each the best over shifts of up to `SHIFT` of 64 pixels.

    Args:
        a_HF: Spectrum (64, 33).
        b_BHF: Spectra (B, 64, 33), or any shape that broadcasts against `a_HF`.

    Returns:
        (B,), from about -0.2 to 1.
    """
    near = np.r_[0 : SHIFT + 1, SIDE - SHIFT : SIDE]
    correlation_BHW = np.fft.irfft2(a_HF.conj() * b_BHF, s=(SIDE, SIDE))
    best: NDArray[np.float32] = (
        correlation_BHW[..., near[:, None], near].max(axis=(-2, -1)).astype(np.float32)
    )
    return best


def closer_look(a: Path, b: Path) -> float:
    """Similarity of two images, also over crops: each side of either may be up to 6 % shorter than the other's.

    Slower than :func:`similarities` (some 50 ms), for the pairs where it is in doubt.

    Raises:
        ImageError: One cannot be read.
    """
    a_VHF, b_VHF = _crops(_grey(a)), _crops(_grey(b))
    return max(float(similarities(a_VHF[i], b_VHF[j])) for i, j in _crop_pairs())


@cache
def _crop_pairs() -> tuple[tuple[int, int], ...]:
    """Pairs of crops in which a side is cut in one image only."""
    shapes = [(r, c) for r in range(len(CROPS)) for c in range(len(CROPS))]
    return tuple(
        (i, j)
        for i, (ar, ac) in enumerate(shapes)
        for j, (br, bc) in enumerate(shapes)
        if ar * br == 0 and ac * bc == 0
    )


def _crops(grey: Image) -> NDArray[np.complex64]:
    width, height = grey.size

    def boxes() -> Iterator[tuple[float, float, float, float]]:
        for r in CROPS:
            for c in CROPS:
                yield c * width / 2, r * height / 2, (1 - c / 2) * width, (1 - r / 2) * height

    return np.stack([_spectrum(_squeezed(grey, box)) for box in boxes()])


def _grey(path: Path) -> Image:
    from PIL import Image as Pillow

    return Pillow.fromarray(read_image(path)).convert("L")


def _squeezed(grey: Image, box: Sequence[float] | None = None) -> NDArray[np.float32]:
    from PIL.Image import Resampling

    return np.asarray(grey.resize((SIDE, SIDE), Resampling.BOX, box=box), np.float32)  # type: ignore[arg-type]


def _structure(x_HW: NDArray[np.float32], fine: float, wide: float, local: float) -> NDArray[np.float32]:
    """What lies between two scales, at the same local contrast everywhere, with a faded border."""
    from scipy.ndimage import gaussian_filter

    h_HW = gaussian_filter(x_HW, fine) - gaussian_filter(x_HW, wide)
    # One grey level of contrast is as good as noise: it is not blown up to structure.
    h_HW /= np.sqrt(gaussian_filter(h_HW * h_HW, local) + 1.0)
    faded: NDArray[np.float32] = np.clip(h_HW, -3, 3) * _window()
    return faded


@cache
def _window() -> Any:
    fade_W = np.sqrt(np.hanning(SIDE + 2)[1:-1]).astype(np.float32)
    return fade_W[:, None] * fade_W


def _spectrum(x_HW: NDArray[np.float32]) -> NDArray[np.complex64]:
    f_HF: NDArray[np.complex64] = np.fft.rfft2(_unit(_structure(x_HW, 0.7, 2.0, 4.0)))
    return f_HF.astype(np.complex64)


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = values - values.mean()
    norm = float(np.linalg.norm(centred))
    return (centred / norm if norm > 1e-6 else np.zeros_like(centred)).astype(np.float32)
