"""Fingerprints that tell whether two images show the same part, whatever the exposure and the crop.

An image x, squeezed to 64 x 64, is reduced to its fine structure: the difference of two Gaussians,
divided by its local standard deviation, so that brightness, contrast and shading drop out. Frequencies k
that stand out against the others of their wavelength are then cut to twice the median, because the
regular pattern of a cloth or a grinding wheel is the same on every part::

    h = (G_0.7 - G_2) * x        f = w h / sqrt(G_4 * h^2 + 1)        |F_k| <- min(|F_k|, 2 median_k |F_k|)
    similarity(a, b) = max_d <f_a, f_b(. - d)>

with f of norm 1, d a shift of up to 5 pixels, and w a window that fades the border, where crops differ.
Two exposures of one part agree in their scratches and specks; two parts agree by chance.

Tensor names: H W are 64, F is 33 (a real transform's half), D 256; B N V count images or crops.
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
PEAKS = 2.0
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
    """Similarity of two images, also over crops: either may show up to 6 % less in width and in height.

    Slower than :func:`similarities` (some 30 ms), for the pairs where it is in doubt.

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
    """Transform of f, its outstanding frequencies cut, scaled so that f has norm 1."""
    f_HF: NDArray[np.complex128] = np.fft.rfft2(_structure(x_HW, 0.7, 2.0, 4.0))
    f_HF[0, 0] = 0
    magnitude_HF = np.abs(f_HF)
    for ring in _rings():
        limit = PEAKS * np.median(magnitude_HF[ring])
        magnitude_HF[ring] = np.minimum(1.0, limit / np.maximum(magnitude_HF[ring], 1e-12))
    f_HF *= magnitude_HF
    norm = float(np.sqrt((np.abs(f_HF) ** 2 * _halves()).sum())) / SIDE
    return (f_HF / norm if norm > 1e-6 else f_HF * 0).astype(np.complex64)


@cache
def _rings() -> tuple[Any, ...]:
    """Frequencies of about the same wavelength, as indices into a spectrum."""
    y_H, x_F = np.fft.fftfreq(SIDE, 1 / SIDE), np.arange(SIDE // 2 + 1)
    radius_HF = np.rint(np.hypot(y_H[:, None], x_F)).astype(int)
    return tuple(np.nonzero(radius_HF == r) for r in range(1, int(radius_HF.max()) + 1))


@cache
def _halves() -> Any:
    """How often each column of a real transform's half counts in the whole."""
    count_F = np.full(SIDE // 2 + 1, 2.0)
    count_F[[0, -1]] = 1
    return count_F


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centred and of norm 1; zero where there is no structure at all."""
    centred: NDArray[np.float32] = values - values.mean()
    norm = float(np.linalg.norm(centred))
    return centred / np.float32(norm) if norm > 1e-6 else np.zeros_like(centred)
