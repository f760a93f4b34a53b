"""Flaws of the synthetic surfaces: what the demonstration set's test images suffer from.

They are made otherwise than the defects that validation pastes (:mod:`nfbmr.data.pasting`): on the surface,
before it is photographed, some of them by bending it. A model selected on pasted defects meets them as it
would real ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.data.noise import Field, fractal_noise
from nfbmr.data.pasting import stroke
from nfbmr.data.textures import texture

_Mask = NDArray[np.bool_]
_GRAINED = ("brushed", "wood", "knurled")  # turned by a quarter, the others look as before
_Flaw = Callable[[np.random.Generator, Field, str], tuple[Field, _Mask]]


def add_flaw(kind: str, rng: np.random.Generator, grey_SS: Field, name: str) -> tuple[Field, _Mask]:
    """Spoil a surface.

    Args:
        kind: A key of :data:`FLAWS`.
        rng: Source of randomness: place, shape, size, and a strength from barely visible to plain.
        grey_SS: The surface (S, S), grey values of about 0 to 1.
        name: Its texture.

    Returns:
        The spoilt surface (S, S) and the mask (S, S) of the flaw.
    """
    return FLAWS[kind](rng, grey_SS, name)


def _strength(rng: np.random.Generator) -> float:
    """From 0.4, which a person finds when told where to look, to 1."""
    return float(rng.uniform(0.4, 1.0))


def _sign(rng: np.random.Generator) -> float:
    """Dark twice as often as bright."""
    return 1.0 if rng.random() < 1 / 3 else -1.0


def _centre(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Offsets (y, x) in pixels from a random point well inside."""
    y, x = rng.uniform(0.15, 0.85, 2) * size
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64)
    return rows - y, columns - x


def _island(rng: np.random.Generator, size: int, radius: float) -> Field:
    """A soft, irregular region: opacity (S, S) from 0 to 1."""
    y, x = _centre(rng, size)
    angle, squeeze = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = np.hypot(along * squeeze, across / squeeze) / radius
    cover: Field = np.clip((1.0 - distance + 0.5 * fractal_noise(rng, (size, size), radius)) * 3.0, 0, 1)
    return cover


def _scratch(rng: np.random.Generator, grey_SS: Field, name: str) -> tuple[Field, _Mask]:
    """A shallow arc, thinner towards its ends, dark with a bright burr or bright alone."""
    del name
    size = len(grey_SS)
    start = rng.uniform(0.1, 0.9, 2)
    angle = rng.uniform(0, 2 * np.pi)
    length = rng.uniform(0.15, 0.5)
    t = np.linspace(0, 1, 60)[:, None]
    direction, normal = (
        np.array([np.cos(angle), np.sin(angle)]),
        np.array([-np.sin(angle), np.cos(angle)]),
    )
    path = (start + length * (t * direction + rng.normal(0, 0.25) * t * (1 - t) * normal)) * size
    widths = size * rng.uniform(0.006, 0.016) * np.sin(np.pi * t[:, 0]) ** 0.5
    groove = stroke(path, widths, size, size)
    burr = np.clip(np.roll(groove, (1, 1), axis=(0, 1)) - groove, 0, 1)
    depth = 0.65 * _strength(rng) * _sign(rng)
    return grey_SS * (1 + depth * groove) + 0.25 * abs(depth) * burr, groove > 0.3


def _spot(rng: np.random.Generator, grey_SS: Field, name: str) -> tuple[Field, _Mask]:
    """One to four small pits or inclusions, close together."""
    del name
    size = len(grey_SS)
    y, x = _centre(rng, size)
    cover = np.zeros_like(grey_SS)
    for _ in range(int(rng.integers(1, 5))):
        dy, dx = rng.normal(0, 0.035 * size, 2)
        radius = size * rng.uniform(0.012, 0.035)
        cover = np.maximum(cover, 1 / (1 + np.exp((np.hypot(y - dy, x - dx) / radius - 1) * 4)))
    return grey_SS * (1 + 0.75 * _strength(rng) * _sign(rng) * cover), cover > 0.4


def _stain(rng: np.random.Generator, grey_SS: Field, name: str) -> tuple[Field, _Mask]:
    """A large faint area, darker at its rim as a dried drop is."""
    del name
    size = len(grey_SS)
    cover = _island(rng, size, size * rng.uniform(0.08, 0.2))
    rim = np.clip(4 * cover * (1 - cover), 0, 1)
    change = 0.45 * _strength(rng) * _sign(rng)
    return grey_SS * (1 + change * (0.8 * cover + 0.5 * rim)), cover > 0.3


def _dent(rng: np.random.Generator, grey_SS: Field, name: str) -> tuple[Field, _Mask]:
    """The surface pushed aside: its pattern is bent, and light falls on it a little otherwise."""
    from scipy.ndimage import map_coordinates

    del name
    size = len(grey_SS)
    y, x = _centre(rng, size)
    radius = size * rng.uniform(0.08, 0.18)
    fall = np.exp(-(np.hypot(y, x) ** 2) / (2 * (radius / 1.8) ** 2))
    twist, pull = rng.uniform(-1.2, 1.2), rng.choice((-0.75, 1.2))
    power = _strength(rng)
    turned_y = y * np.cos(power * twist * fall) - x * np.sin(power * twist * fall)
    turned_x = x * np.cos(power * twist * fall) + y * np.sin(power * twist * fall)
    stretch = 1 + power * pull * fall
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64)
    points = np.stack([rows - y + turned_y * stretch, columns - x + turned_x * stretch])
    bent = map_coordinates(grey_SS, points, order=1, mode="mirror")
    shade = 0.5 * power * fall * (x * np.cos(twist) + y * np.sin(twist)) / radius
    return bent * (1 + shade), fall > 0.35


def _foreign(rng: np.random.Generator, grey_SS: Field, name: str) -> tuple[Field, _Mask]:
    """A region of the same material gone wrong: turned, of another scale, or worn smooth."""
    from scipy.ndimage import gaussian_filter

    size = len(grey_SS)
    cover = np.clip(2 * _island(rng, size, size * rng.uniform(0.08, 0.18)), 0, 1)
    how = rng.integers(0 if name in _GRAINED else 1, 3)
    if how == 0:
        other: Field = texture(name, rng, size).T[::-1].copy()
    elif how == 1:
        corner = Image.fromarray(
            texture(name, rng, size)[: size * 5 // 9, : size * 5 // 9].astype(np.float32)
        )
        other = np.array(corner.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    else:
        other = gaussian_filter(grey_SS, rng.uniform(0.008, 0.02) * size)
    inside = cover > 0.3
    if inside.any():  # the region is of the brightness of what it replaces
        other += float(grey_SS[inside].mean()) - float(other[inside].mean())
    return grey_SS + cover * rng.uniform(0.6, 1.0) * (other - grey_SS), inside


FLAWS: dict[str, _Flaw] = {
    "scratch": _scratch,
    "spot": _spot,
    "stain": _stain,
    "dent": _dent,
    "foreign": _foreign,
}
"""Flaw by name."""
