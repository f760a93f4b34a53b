"""Pictures that the audit is tried on: parts of several makes, and what people do to copies of them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.data.samples import Sample, Split


def surface(seed: int, side: int = 160) -> NDArray[np.float64]:
    """A surface with structure at several scales, mean 0.5."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side))
    for cells in (10, 20, 40, 80):
        coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        image += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    return 0.5 + 0.08 * image


def save(path: Path, values: NDArray[np.float64]) -> Sample:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((values.clip(0, 1) * 255).astype(np.uint8)).save(path)
    return Sample(path, path.name)


def split_of(train: list[Sample], test: list[Sample]) -> Split:
    return Split("random", 0, False, tuple(train[:-1]), tuple(train[-1:]), tuple(test))


def shared_shape(seed: int) -> NDArray[np.float64]:
    """Parts with the same outline, each with a surface of its own."""
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    outline: NDArray[np.float64] = np.where(np.hypot(x, y) < 0.7, 0.7, 0.1)
    return outline + 0.3 * (surface(seed) - 0.5)


def grid(seed: int) -> NDArray[np.float64]:
    """The same regular mesh everywhere, at another phase, under noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:160, :160] + rng.uniform(0, 9, 2)[:, None, None]
    return 0.5 + 0.2 * np.sin(2 * np.pi * x / 9) * np.sin(2 * np.pi * y / 9) + rng.normal(0, 0.03, (160, 160))


def at_any_angle(seed: int) -> NDArray[np.float64]:
    """A part with a hole and a slot on a plain ground, lying as it fell, with grain of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    t = rng.uniform(0, 2 * np.pi)
    u, v = x * np.cos(t) + y * np.sin(t), y * np.cos(t) - x * np.sin(t)
    body = np.hypot(u, v) < 0.6 + 0.06 * np.cos(6 * np.arctan2(v, u))
    cut = (np.hypot(u - 0.25, v) < 0.15) | ((np.abs(u + 0.25) < 0.15) & (np.abs(v) < 0.04))
    return 0.2 + 0.4 * (body & ~cut) + 0.15 * body * (surface(seed) - 0.5) + rng.normal(0, 0.012, x.shape)


def board(seed: int) -> NDArray[np.float64]:
    """The same print in black and white, its edges a little ragged."""
    rng = np.random.default_rng(seed)
    tracks = surface(99) + 0.2 * (surface(seed) - 0.5)
    return np.where(tracks + rng.normal(0, 0.004, tracks.shape) > 0.5, 1.0, 0.0)


def cell(seed: int) -> NDArray[np.float64]:
    """Three bars at the same place everywhere and cut corners; faint streaks of its own, noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    bars = np.any([np.abs(y - b) < 0.02 for b in (-0.6, 0, 0.6)], axis=0)
    shade = 0.05 * np.cos(9 * y) * rng.uniform(0.5, 1.5) + 0.15 * (surface(seed) - 0.5)
    return np.where(np.abs(x) + np.abs(y) > 1.8, 0.2, 0.6 + shade - 0.3 * bars) + rng.normal(0, 0.02, x.shape)


def gear(seed: int) -> NDArray[np.float64]:
    """Mostly contours, the same on every part, at one of a few angles; grain of its own, a quiet ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    t = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.01)
    u, v = x * np.cos(t) + y * np.sin(t), y * np.cos(t) - x * np.sin(t)
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    body = r < 0.8 + 0.08 * np.sign(np.sin(24 * angle))
    holes = np.min([np.hypot(u - 0.45 * np.cos(a), v - 0.45 * np.sin(a)) for a in range(0, 6)], axis=0) < 0.1
    rings = (np.abs(r - 0.62) < 0.015) | (np.abs(r - 0.25) < 0.015) | ((r > 0.7) & (np.abs(v) < 0.03))
    grain = 0.05 * (surface(seed, 512) - 0.5) + rng.normal(0, 0.01, x.shape)
    return 0.15 + (0.5 - 0.2 * rings + grain) * (body & ~holes) + rng.normal(0, 0.004, x.shape)


KINDS = {
    "gears": gear,
    "surfaces": surface,
    "one outline": shared_shape,
    "a mesh": grid,
    "any angle": at_any_angle,
    "cells": cell,
    "boards": board,
}


def encoded(x: NDArray[np.float64]) -> NDArray[np.float64]:
    file = BytesIO()
    Image.fromarray((x.clip(0, 1) * 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file)) / 255


def turned(x: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    image = Image.fromarray(x.astype(np.float32)).rotate(degrees, Image.Resampling.BICUBIC)
    edge = round(0.057 * len(x))
    return np.asarray(image, np.float64)[edge:-edge, edge:-edge]


COPIES = {
    "encoded": encoded,
    "cropped": lambda x: x[3:-8, 7:-2],
    "by 90": np.rot90,
    "by 180": lambda x: np.rot90(x, 2),
    "by 270": lambda x: np.rot90(x, 3),
    "by 4": lambda x: turned(x, 4),
    "by -3": lambda x: turned(x, -3),
    "mirrored": lambda x: x[:, ::-1],
    "upside down": lambda x: x[::-1],
    "relit": lambda x: 0.6 * x**1.2 * np.linspace(0.8, 1.2, len(x))[:, None],
    "several": lambda x: encoded(0.7 * np.rot90(x[:, ::-1])),
}
