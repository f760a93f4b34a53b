"""Frames of a video file, one at a time: decoded by PyAV, turned as they are shown.

PyAV is an extra, ``nfbmr[video]``, and loaded with the first video.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nfbmr.data.sources import Decoded
from nfbmr.errors import ConfigError, ImageError, require_package

_SLACK = 1e-6
"""Of a stretch: times are sums of fractions, and a frame shown at its very beginning belongs to it."""


class Every(NamedTuple):
    """Which frames of a video are looked at, from the first on.

    Attributes:
        frames: Every n-th.
        seconds: The first of each stretch of so many seconds; 0 for all.
    """

    frames: int = 1
    seconds: float = 0.0

    @classmethod
    def of(cls, text: str) -> Every:
        """What ``--every`` says: ``10`` for every tenth frame, ``0.5s`` for two a second.

        Raises:
            ConfigError: It is neither.

        Example:
            >>> Every.of("10"), Every.of("0.5s")
            (Every(frames=10, seconds=0.0), Every(frames=1, seconds=0.5))
        """
        number = re.fullmatch(r"(\d+(?:\.\d+)?)(s?)", text.strip())
        if number and number[2] and float(number[1]) > 0:
            return cls(seconds=float(number[1]))
        if number and not number[2] and number[1].isdigit() and int(number[1]) > 0:
            return cls(frames=int(number[1]))
        raise ConfigError(
            "neither a number of frames nor of seconds",
            where=f"--every {text}",
            fix="give 10 for every tenth frame, 0.5s for two frames a second",
        )


class Frame(NamedTuple):
    """One frame, or what is wrong with the video.

    Attributes:
        image: Its pixels; or why there are none, which ends the video.
        number: From 0, whether or not all are looked at; None where the video cannot be read on.
        seconds: When it is shown, from the first frame on; None likewise, and where the file does not
            say. A raw stream (``.mjpeg``) has no times: FFmpeg takes 25 frames a second for granted.
    """

    image: Decoded | ImageError
    number: int | None = None
    seconds: float | None = None


def frames_of(video: Path, every: Every | None = None) -> Iterator[Frame]:
    """Frames as they are decoded; none is held here. One that says what is wrong is the last.

    Args:
        video: The file; of several streams of pictures the first is read.
        every: Which frames; None for all.

    Raises:
        MissingPackageError: PyAV is not installed.
    """
    require_package("av")
    import av

    seen = 0
    try:
        with av.open(str(video.absolute()), metadata_errors="replace") as container:
            if not container.streams.video:
                yield Frame(_unreadable(video, "it has no pictures"))
                return
            frames = container.decode(container.streams.video[0])
            for frame in _chosen(frames, video, every or Every()):
                seen += 1
                yield frame
    except (av.error.FFmpegError, OSError) as error:
        yield Frame(_unreadable(video, getattr(error, "strerror", None) or str(error)))
        return
    except ImageError as error:
        yield Frame(error)
        return
    if not seen:
        yield Frame(_unreadable(video, "it has no frame"))


def _chosen(frames: Iterator[Any], video: Path, every: Every) -> Iterator[Frame]:
    """Those that are looked at, of PyAV's frames."""
    first, last = None, -1
    for number, frame in enumerate(frames):
        first = frame.time if first is None else first
        seconds = None if frame.time is None or first is None else float(frame.time - first)
        if number % every.frames:
            continue
        if every.seconds and seconds is not None:
            stretch = math.floor(seconds / every.seconds + _SLACK)
            if stretch <= last:
                continue
            last = stretch
        # As it is shown: telephones note in the file how they were held.
        pixels_HWC = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
        shown = Decoded(np.ascontiguousarray(pixels_HWC), f"{video.name}, frame {number}")
        yield Frame(shown, number, seconds)


def _unreadable(video: Path, why: str) -> ImageError:
    fix = "convert it, or record it again"
    return ImageError(f"the video cannot be decoded ({why})", where=video, fix=fix)
