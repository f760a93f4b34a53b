"""Heat maps and masks of predictions, as pictures and as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nfbmr.paths import atomic
from nfbmr.text import visible

if TYPE_CHECKING:
    from PIL import Image


def overlaid(
    image: Image.Image, map_HW: NDArray[np.float32], colours: tuple[float, float], longest: int | None
) -> Image.Image:
    """An image with its anomaly map over it, no side longer than `longest`."""
    from PIL import Image

    from nfbmr.evaluation.heatmaps import overlay

    if longest is not None:
        image.thumbnail((longest, longest))
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return Image.fromarray(overlay(pixels, map_HW, *colours))


def save_picture(folder: Path, index: int, file: Path | None, drawn: Image.Image) -> Path:
    """Write a picture as PNG under a number and the name of the image's file."""
    # Numbered, since images from several folders may share a name.
    stem = "image" if file is None else visible(file.stem)[:80]
    path = folder / f"{index:05d}-{stem}.png"
    with atomic(path) as temporary:
        drawn.save(temporary, format="PNG")
    return path
