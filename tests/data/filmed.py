"""Small videos, written without loss."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 10
"""Frames a second."""


def film(path: Path, frames: Sequence[np.ndarray], *, rotation: int = 0) -> Path:
    """Write a video without loss; only some formats note how the camera was held."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png" if rotation else "ffv1", rate=RATE)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb24" if rotation else "bgr0"
        stream.time_base = Fraction(1, RATE)
        if rotation:
            stream.set_display_rotation(rotation)
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path
