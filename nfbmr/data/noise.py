"""Smooth random fields, the raw material of synthetic textures and defects.

All arithmetic is NumPy's and Pillow's on one thread, so a field depends on the generator's state alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float64]
"""Real numbers on a grid, float64."""


def value_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Field:
    """Perlin-like noise: random values on a coarse lattice, joined by bicubic interpolation.

    Args:
        rng: Source of randomness.
        shape: (H, W) of the field.
        cell: Pixels between lattice points, about the size of the bumps.

    Returns:
        A field (H, W) of mean about 0 and values of about -1 to 1.
    """
    height, width = shape
    rows, columns = (max(2, round(n / max(cell, 1.0)) + 1) for n in shape)
    lattice = rng.uniform(-1.0, 1.0, (rows, columns)).astype(np.float32)
    smooth = Image.fromarray(lattice).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float64)


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: float, *, octaves: int = 3, gain: float = 0.5
) -> Field:
    r"""Value noise over several scales, :math:`\sum_k g^k n(c / 2^k) / \sum_k g^k`.

    Args:
        rng: Source of randomness.
        shape: (H, W) of the field.
        cell: Size c of the largest bumps, in pixels.
        octaves: Number of scales, each half the size of the one before.
        gain: Amplitude g of a scale relative to the one before.

    Returns:
        A field (H, W) of values of about -1 to 1.
    """
    amplitudes = [gain**k for k in range(octaves)]
    layers = (a * value_noise(rng, shape, cell / 2**k) for k, a in enumerate(amplitudes))
    field: Field = np.sum(list(layers), axis=0) / sum(amplitudes)
    return field


def spectral_noise(rng: np.random.Generator, size: int, along: float, across: float, angle: float) -> Field:
    """White noise blurred by an anisotropic Gaussian: grain, brush marks, fibres.

    Args:
        rng: Source of randomness.
        size: Side S of the square field, in pixels.
        along: Standard deviation of the blur along the grain, in pixels.
        across: The same across the grain.
        angle: Direction of the grain, in radians from the horizontal.

    Returns:
        A field (S, S) of mean 0 and standard deviation 1, periodic at its borders.
    """
    v, u = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    p = u * np.cos(angle) + v * np.sin(angle)
    q = v * np.cos(angle) - u * np.sin(angle)
    response = np.exp(-2 * np.pi**2 * ((along * p) ** 2 + (across * q) ** 2))
    response[0, 0] = 0.0
    field: Field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * response, s=(size, size))
    return field / max(float(field.std()), 1e-12)
