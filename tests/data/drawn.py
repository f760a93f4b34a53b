"""Small parts, flaws and their masks, drawn: what people's folders are made of in these tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = (48, 40)


def part(seed: int) -> Image.Image:
    """A good part: a texture that is no other's."""
    rng = np.random.default_rng(seed)
    x = np.arange(SIZE[0])
    grey = 120 + 30 * np.sin(x / 3 + rng.uniform(0, 6)) + rng.normal(0, 12, (SIZE[1], SIZE[0]))
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")


def flawed(seed: int) -> tuple[Image.Image, Image.Image]:
    """A defective part, and the mask of its flaw."""
    picture, mask = part(10_000 + seed), Image.new("L", SIZE)
    x, y = np.random.default_rng(seed).integers(8, 28, 2).tolist()
    for image, fill in ((picture, (230, 60, 40)), (mask, 255)):
        ImageDraw.Draw(image).ellipse([x, y, x + 9, y + 8], fill=fill)
    return picture, mask


def save(image: Image.Image, path: Path) -> Path:
    """Write an image, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def good(folder: Path, count: int, *, first: int = 0, ending: str = ".png") -> None:
    """So many good parts, called 000, 001, ..."""
    for i in range(count):
        save(part(first + i), folder / f"{i:03}{ending}")


def bad(picture: Path, *masks: Path, seed: int = 0, value: int = 255) -> None:
    """A defective part and its masks; the second is the first turned upside down, and so on."""
    image, mask = flawed(seed)
    save(image, picture)
    for i, path in enumerate(masks):
        shown = mask.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if i % 2 else mask
        save(shown.point(lambda v: value if v else 0), path)
