"""What a caller hands over as an image, whatever its form: a file's bytes, base64 text, a path, pixels.

Text is base64 where it decodes to something that begins as an image file does, and a path otherwise. JPEG's
base64 begins with a slash, so neither the first letter nor the length could tell them apart.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.images import MAX_PIXELS, Decoded, Encoded, Source, check_size
from nfbmr.errors import ImageError

_BEGINNINGS = (
    b"\x89PNG",
    b"\xff\xd8\xff",  # JPEG
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",  # TIFF, four ways
    b"RIFF",  # WebP
    b"GIF8",
    b"BM",
    *(f"P{n}".encode() for n in range(1, 7)),  # PPM and its kin
    b"\x00\x00\x00\x0cjP",
    b"\xff\x4f\xff\x51",  # JPEG 2000, file and stream
)
_STANDARD = str.maketrans("-_", "+/", " \t\r\n")
_LONGEST_PATH = 4096
_FORMS = "give base64 text of an image file, a path, or whole numbers from 0 to 255 as an array"


def source_of(item: Any, *, name: str = "the image", limit: int = MAX_PIXELS, paths: bool = True) -> Source:
    """Find the image in what was handed over.

    Args:
        item: Bytes of an image file; text, which is base64 (a ``data:`` address too) or a path; a path; an
            array of pixels, or the nested lists that JSON makes of one: (H, W) or (H, W, 3), whole numbers
            from 0 to 255.
        name: Of the image, for messages.
        limit: The most pixels that an image may have; a larger one is not decoded.
        paths: Whether paths are read. A server reads none: whoever may ask it for a heat map would see any
            image of the machine.

    Raises:
        ImageError: There is no image in it, or it is too large.

    Example:
        >>> source_of([[0, 255], [255, 0]]).pixels.shape
        (2, 2)
        >>> source_of("parts/1.png").as_posix()
        'parts/1.png'
    """
    if isinstance(item, bytes | bytearray | memoryview):
        found: Source = Encoded(bytes(item), name)
    elif isinstance(item, str):
        found = _from_text(item, name, paths)
    elif isinstance(item, Path):
        found = _from_path(item, name, paths)
    elif isinstance(item, np.ndarray | list | tuple):
        found = Decoded(_pixels(item, name), name)
    else:
        # A table's empty cells are floats that are not numbers.
        kind = "nothing" if item is None or isinstance(item, float) else f"a {type(item).__name__}"
        raise ImageError(f"{kind} instead of an image", where=name, fix=_FORMS)
    if limit < MAX_PIXELS:
        check_size(found, limit)
    return found


def _from_text(text: str, name: str, paths: bool) -> Source:
    if text.startswith("data:"):
        header, _, body = text.partition(",")
        content = _decoded(body) if header.endswith(";base64") else None
        if content is None:
            raise ImageError("a data: address without base64 text", where=name, fix=_FORMS)
        return Encoded(content, name)
    head = _decoded(text[:64].translate(_STANDARD)[:32])  # a multiple of four letters
    if head is not None and head.startswith(_BEGINNINGS):
        content = _decoded(text)
        if content is not None:
            return Encoded(content, name)
    if not text.strip() or len(text) > _LONGEST_PATH or "\0" in text:
        raise ImageError("neither base64 text of an image file nor a path", where=name, fix=_FORMS)
    return _from_path(Path(text), name, paths)


def _from_path(path: Path, name: str, paths: bool) -> Path:
    if not paths:
        raise ImageError(
            "not base64 text of an image file, and paths are not read here",
            where=name,
            fix="send the file's bytes as base64 text",
        )
    return path


def _decoded(text: str) -> bytes | None:
    """The bytes of base64 text, the usual alphabet or that for addresses; None where it is none."""
    plain = text.translate(_STANDARD).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _pixels(values: Any, name: str) -> NDArray[np.uint8]:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "uif" or not array.size:
        raise ImageError(
            "an array that is no image: its rows differ, or are no numbers", where=name, fix=_FORMS
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype == np.uint8:
        return array
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255) or (array.dtype.kind == "f" and (array != np.rint(array)).any()):
        raise ImageError(
            f"pixels from {low} to {high}; whole numbers from 0 to 255 are meant",
            where=name,
            fix="scale them as an 8-bit image file would hold them",
        )
    return array.astype(np.uint8)
