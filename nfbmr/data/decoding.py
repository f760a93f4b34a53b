"""What a caller hands over as an image: a file's bytes, base64 text, a path, pixels, a Pillow image.

Text is base64 where it decodes to something that begins as an image file does, and a path otherwise. JPEG's
base64 begins with a slash, so neither the first letter nor the length could tell them apart.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.data.images import check_size, from_pillow
from nfbmr.data.sources import MAX_PIXELS, Decoded, Encoded, Source
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
_FORMS = (
    "give a path, bytes or base64 text of an image file, a Pillow image, or whole numbers from 0 to 255 "
    "as an array (H, W) or (H, W, 3)"
)
_TYPES = (bytes, bytearray, memoryview, str, Path, np.ndarray, list, tuple, Image.Image)


def decode_input(
    item: Any, *, name: str = "the image", limit: int = MAX_PIXELS, paths: bool = True
) -> Source:
    """Find the image in what was handed over.

    Args:
        item: Bytes of an image file; text, which is base64 (a ``data:`` address too) or a path; a path; an
            array of pixels, or the nested lists that JSON makes of one: (H, W) or (H, W, 3), whole numbers
            from 0 to 255; a Pillow image.
        name: Name of the image, for messages.
        limit: The most pixels that an image may have; a larger one is not decoded.
        paths: Whether paths are read. A server reads none: whoever may ask it for a heat map would see any
            image of the machine.

    Raises:
        ImageError: There is no image in it, or it is too large.

    Example:
        >>> decode_input([[0, 255], [255, 0]]).pixels.shape
        (2, 2)
        >>> decode_input("parts/1.png").as_posix()
        'parts/1.png'
    """
    if isinstance(item, bytes | bytearray | memoryview):
        source: Source = Encoded(bytes(item), name)
    elif isinstance(item, str):
        source = _from_text(item, name, paths)
    elif isinstance(item, Path):
        source = _from_path(item, name, paths)
    elif isinstance(item, np.ndarray | list | tuple):
        source = Decoded(_pixels(item, name), name)
    elif isinstance(item, Image.Image):
        source = from_pillow(item, name, limit)
    else:
        # A table's empty cells are floats that are not numbers.
        kind = "nothing" if item is None or isinstance(item, float) else f"a {type(item).__name__}"
        raise ImageError(f"{kind} instead of an image", where=name, fix=_FORMS)
    if limit < MAX_PIXELS:
        check_size(source, limit)
    return source


def decode_inputs(images: Any) -> list[Source | ImageError]:
    """Find the images in what a program hands over: one or many, each as :func:`decode_input` takes it.

    Args:
        images: An image, a list or an iterator of images, or a batch as an array (N, H, W, 3) or
            (N, H, W, 1), which may also stand in a list. Text that names a file or a folder is its path,
            whatever else it might be.

    Returns:
        Each image, or what is wrong with it, in order.

    Raises:
        ImageError: Something is not of a type that images have, or an array's shape may mean several things.

    Example:
        >>> len(decode_inputs(np.zeros((4, 16, 16, 3), np.uint8)))
        4
        >>> decode_inputs("parts/1.png")[0].as_posix()
        'parts/1.png'
    """
    alone = (str, bytes, bytearray, memoryview, Path, np.ndarray, Image.Image)
    if not isinstance(images, (*alone, Sequence, Iterator)):
        raise ImageError(
            f"a {type(images).__name__} instead of images", fix=f"give a list of images; {_FORMS}"
        )
    items: list[Any] = []
    for item in (images,) if isinstance(images, alone) else images:
        name = f"image {len(items)}"
        if not isinstance(item, _TYPES):
            raise ImageError(f"a {type(item).__name__} instead of an image", where=name, fix=_FORMS)
        items += _each_of(item, name) if isinstance(item, np.ndarray) else [item]
    return [_source_or_error(item, f"image {index}") for index, item in enumerate(items)]


def _each_of(array: NDArray[Any], name: str) -> Sequence[NDArray[Any]]:
    """The images of an array."""
    channels = array.shape[-1] if array.ndim > 2 else 1
    if array.ndim not in (2, 3, 4) or channels not in (1, 3):
        raise ImageError(
            f"an array of shape {array.shape}, neither an image nor a batch of images",
            where=name,
            fix="give (H, W), (H, W, 3), or a batch (N, H, W, 3); channels come last, and a batch of grey "
            "images is (N, H, W, 1)",
        )
    return list(array) if array.ndim == 4 else [array]


def _source_or_error(item: Any, name: str) -> Source | ImageError:
    try:
        return Path(item) if isinstance(item, str) and _exists(item) else decode_input(item, name=name)
    except ImageError as error:
        return error


def _exists(text: str) -> bool:
    try:
        return Path(text).exists() and bool(text)
    except (OSError, ValueError):  # too long for a name, as base64 text is; or a zero byte in it
        return False


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
