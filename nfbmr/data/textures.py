"""Surfaces that do not exist: statistical textures, each sample new.

As with the parts on a line, grain, light, tint and exposure vary from one to the next, so that a detector has
to learn what varies and what does not. Fields are floats (S, S), grey values of about 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.noise import Field, fractal_noise, spectral_noise, value_noise

_Texture = Callable[[np.random.Generator, int], Field]


def texture(name: str, rng: np.random.Generator, size: int) -> Field:
    """A new sample of a texture, evenly lit.

    Args:
        name: A key of :data:`TEXTURES`.
        rng: Source of randomness.
        size: Side S in pixels.

    Returns:
        Grey values (S, S), of about 0 to 1.
    """
    return TEXTURES[name](rng, size)


def _woven(rng: np.random.Generator, size: int) -> Field:
    """Plain weave: threads over and under, each with its own thickness and fibre."""
    period = size / 22
    y, x = np.mgrid[0:size, 0:size] / period
    x = x + rng.uniform(0, 2) + 0.25 * fractal_noise(rng, (size, size), size / 3)
    y = y + rng.uniform(0, 2) + 0.25 * fractal_noise(rng, (size, size), size / 3)
    weft, warp = np.abs(np.sin(np.pi * y)) ** 0.7, np.abs(np.sin(np.pi * x)) ** 0.7
    over = (np.floor(x) + np.floor(y)) % 2 == 0
    threads = np.where(over, weft * (0.75 + 0.25 * warp), 0.85 * warp * (0.75 + 0.25 * weft))
    weft_tone, warp_tone = rng.normal(0, 0.025, (2, 64))
    tone = weft_tone[np.floor(y).astype(int) % 64] + warp_tone[np.floor(x).astype(int) % 64]
    fibre = 0.04 * spectral_noise(rng, size, 1.0, 1.0, 0.0)
    return np.asarray(0.22 + 0.45 * threads + tone + fibre)


def _brushed(rng: np.random.Generator, size: int) -> Field:
    """Brushed metal: long fine marks, all one way, of several lengths; drag marks, and a band of glare."""
    angle = rng.normal(0, 0.04)
    fine = spectral_noise(rng, size, 25.0, 0.5, angle)
    long = spectral_noise(rng, size, 120.0, 1.2, angle)
    drags = np.clip(spectral_noise(rng, size, 5.0, 0.9, angle) - 2.2, 0, 1.2)
    drags -= 0.7 * np.clip(spectral_noise(rng, size, 8.0, 0.7, angle) - 2.2, 0, 1.2)
    glare = np.exp(-(((np.arange(size) / size - rng.uniform(0, 1)) / 0.25) ** 2))
    grain = 0.065 * fine + 0.06 * long + 0.02 * spectral_noise(rng, size, 0.6, 0.6, 0.0)
    return 0.5 + grain - 0.35 * drags + 0.1 * glare


def _granite(rng: np.random.Generator, size: int) -> Field:
    """Cast or terrazzo grain: light and dark speckles over a mottled ground."""
    ground = 0.5 + 0.05 * spectral_noise(rng, size, 3.0, 3.0, 0.0)
    coarse = spectral_noise(rng, size, 1.8, 1.8, 0.0)
    dark, light = spectral_noise(rng, size, 1.3, 1.3, 0.0), spectral_noise(rng, size, 1.0, 1.0, 0.0)
    speckles = 0.2 * np.clip(light - 1.4, 0, 1) - 0.2 * np.clip(dark - 1.2, 0, 1)
    return ground + 0.03 * coarse + speckles + 0.02 * rng.standard_normal((size, size))


def _leather(rng: np.random.Generator, size: int) -> Field:
    """Leather: rounded cells parted by creases, from the two nearest of scattered points."""
    from scipy.spatial import cKDTree

    count = 26
    spacing = size / count
    rows, columns = np.mgrid[-2 : count + 2, -2 : count + 2]
    sites = np.stack([rows, columns], axis=-1).reshape(-1, 2) + rng.uniform(-0.05, 1.05, (rows.size, 2))
    warp = 0.35 * spacing
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    y += warp * value_noise(rng, (size, size), size / 8)
    x += warp * value_noise(rng, (size, size), size / 8)
    near = cKDTree(sites * spacing).query(np.stack([y, x], axis=-1).reshape(-1, 2), k=2)[0]
    crease = (near[:, 1] - near[:, 0]).reshape(size, size) / spacing
    bulge = np.clip(crease / 0.45, 0, 1) ** 0.6
    height = 0.33 + 0.2 * bulge + 0.05 * fractal_noise(rng, (size, size), 3 * spacing)
    return np.asarray(height + 0.03 * spectral_noise(rng, size, 0.8, 0.8, 0.0))


def _wood(rng: np.random.Generator, size: int) -> Field:
    """Planed wood: wavy year rings cut lengthwise, fibres and pores along them."""
    y, x = np.mgrid[0:size, 0:size] / size
    drift = 0.16 * value_noise(rng, (size, size), size / 1.5) + 0.05 * value_noise(
        rng, (size, size), size / 4
    )
    across = x + drift * (0.4 + 0.6 * y) + rng.normal(0, 0.05) * y
    rings = rng.uniform(7, 11) * across + 0.5 * np.interp(
        across, np.linspace(-1, 2, 24), rng.normal(0, 1, 24)
    )
    phase = (rings + rng.uniform(0, 1)) % 1.0
    late = phase**2.5 * (1 - np.clip((phase - 0.92) / 0.08, 0, 1))
    fibres = spectral_noise(rng, size, 18.0, 0.6, np.pi / 2)
    pores = np.clip(spectral_noise(rng, size, 5.0, 0.7, np.pi / 2) - 2.0, 0, 1)
    return np.asarray(0.62 - 0.2 * late + 0.035 * fibres - 0.25 * pores)


def _knurled(rng: np.random.Generator, size: int) -> Field:
    """A knurled sheet: a regular lattice of dimples, each a little different."""
    pitch = size / 16
    y, x = np.mgrid[0:size, 0:size] / pitch
    y, x = y + rng.uniform(0, 1), x + rng.uniform(0, 1)
    x = x + 0.5 * (np.floor(y) % 2)
    dy, dx = (y % 1) - 0.5, (x % 1) - 0.5
    thread = rng.normal(0, 1, (64, 64))[np.floor(y).astype(int) % 64, np.floor(x).astype(int) % 64]
    radius = np.hypot(dy, dx) - 0.015 * thread
    hole = 1 / (1 + np.exp((radius - 0.3) * 30))
    rim = np.exp(-(((radius - 0.36) / 0.05) ** 2)) * np.clip(-dy - dx, -0.5, 0.5)
    grain = 0.035 * spectral_noise(rng, size, 1.2, 1.2, 0.0)
    return np.asarray(0.58 - (0.33 + 0.02 * thread) * hole + 0.25 * rim + grain)


TEXTURES: dict[str, _Texture] = {
    "woven": _woven,
    "brushed": _brushed,
    "granite": _granite,
    "leather": _leather,
    "wood": _wood,
    "knurled": _knurled,
}
"""Texture by name."""

_TINTS = {
    "woven": (0.95, 1.0, 1.08),
    "brushed": (1.0, 1.0, 1.01),
    "granite": (1.02, 1.0, 0.97),
    "leather": (1.35, 0.95, 0.7),
    "wood": (1.22, 0.98, 0.72),
    "knurled": (1.0, 1.0, 1.0),
}


def photograph(name: str, grey_SS: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A camera's view of a surface: tint, uneven light, exposure, noise.

    Args:
        name: The texture, which decides the tint; ``knurled`` and ``brushed`` are greyscale.
        grey_SS: Grey values (S, S) of about 0 to 1.
        rng: Source of randomness.

    Returns:
        Pixels (S, S) or (S, S, 3), uint8.
    """
    size = len(grey_SS)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    slope, angle = rng.uniform(0, 0.06), rng.uniform(0, 2 * np.pi)
    light = 1 + slope * (x * np.cos(angle) + y * np.sin(angle)) - rng.uniform(0, 0.06) * (x**2 + y**2)
    seen = grey_SS * light * rng.uniform(0.94, 1.06)
    if name not in ("knurled", "brushed"):
        tint = np.asarray(_TINTS[name]) * rng.normal(1.0, 0.006, 3)
        seen = seen[..., None] * tint
    seen = seen + rng.normal(0, 0.012, seen.shape)
    return np.asarray(np.rint(np.clip(seen, 0, 1) * 255), dtype=np.uint8)
