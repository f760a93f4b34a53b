"""Files to pixels, safely: whatever the file holds, the answer is pixels or an :class:`ImageError`.

A file may also be in memory: its bytes (:class:`Encoded`), or its pixels (:class:`Decoded`).

The size is read from the header and checked before a pixel is decoded, so that a few kilobytes that claim to
be 60 000 x 60 000 pixels cost nothing. Only raster formats with a signature are opened (never PostScript,
which would start a program).
"""

from __future__ import annotations

import hashlib
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from nfbmr.errors import ImageError, ImageSizeError

MAX_PIXELS = 200_000_000
"""The largest image that is decoded: 600 MB as RGB, more than any area or line-scan camera gives at once."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "PPM", "WEBP", "GIF", "JPEG2000")
"""The formats that are opened, by Pillow's names."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_GREY_MODES = ("1", "L", "LA")
_OPENING = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """The bytes of an image file.

    Attributes:
        content: What the file holds.
        name: Of the image, for messages.
    """

    content: bytes
    name: str = "the image"


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Pixels that are in memory already.

    Attributes:
        pixels: uint8, (H, W) for a grey image or (H, W, 3).
        name: Of the image, for messages.

    Raises:
        ImageError: Another shape or type, no pixels, or more than :data:`MAX_PIXELS`.
    """

    pixels: NDArray[np.uint8]
    name: str = "the image"

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        fix = "give whole numbers from 0 to 255, (height, width) or (height, width, 3)"
        if dtype != np.uint8:
            raise ImageError(f"pixels of type {dtype}", where=self.name, fix=fix)
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3) or 0 in shape:
            raise ImageError(f"an array of shape {shape} is no image", where=self.name, fix=fix)
        _check_size(shape[1], shape[0], MAX_PIXELS, self.name)


Source = Path | Encoded | Decoded
"""Where an image is: a file, its bytes, or its pixels."""


def read_image(source: Source) -> NDArray[np.uint8]:
    """Read an image as it is seen.

    EXIF rotation is applied; grey becomes three equal channels; transparency is laid on white; 16-bit values
    are scaled by the full range of their type (65535 becomes 255), floating-point ones from 0..1. Of several
    frames the first is read.

    Args:
        source: The file; its extension does not matter.

    Returns:
        Pixels (H, W, 3), uint8.

    Raises:
        ImageError: The file is missing, empty, truncated, no image, or larger than :data:`MAX_PIXELS`.
    """
    image = load_image(source)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a ground-truth mask: any pixel that is neither black nor transparent is defect.

    Args:
        path: The file.

    Returns:
        Mask (H, W), True on the defect.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    image = _decode(path)
    if _is_deep(image):
        return np.asarray(np.asarray(image) != 0, dtype=np.bool_)
    pixels_HWC = np.asarray(image.convert("RGBA"))
    return np.asarray(pixels_HWC[..., :3].any(axis=2) & (pixels_HWC[..., 3] > 0))


def load_image(source: Source) -> Image.Image:
    """As :func:`read_image`, but a Pillow image of mode L (greyscale files) or RGB (all others).

    Greyscale files are not tripled here, so that resizing them costs a third.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    if isinstance(source, Decoded):
        return Image.fromarray(source.pixels)
    image = _decode(source)
    if _is_deep(image):
        return Image.fromarray(_eight_bit(np.asarray(image), source))
    grey = image.mode in _GREY_MODES
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.new("RGBA", seen.size, "white")
        image.alpha_composite(seen)
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


def check_size(source: Source, limit: int) -> None:
    """Refuse an image of more than `limit` pixels; no more than a file's header is read.

    Raises:
        ImageError: It is larger, or cannot be read.
    """
    if isinstance(source, Decoded):
        height, width = source.pixels.shape[:2]
        _check_size(width, height, limit, source.name)
        return
    with _header(source) as image:
        _check_size(*image.size, limit, _where(source))


def file_digest(source: Source) -> str:
    """SHA-256 of a file's bytes; of pixels in memory, of their shape and values.

    Args:
        source: The file.

    Returns:
        64 hexadecimal digits.

    Raises:
        ImageError: The file cannot be read.
    """
    if isinstance(source, Decoded):
        sha = hashlib.sha256(f"{source.pixels.shape}\0".encode())
        sha.update(np.ascontiguousarray(source.pixels).data)
        return sha.hexdigest()
    with _open(source) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _where(source: Source) -> str | Path:
    return source if isinstance(source, Path) else source.name


def _check_size(width: int, height: int, limit: int, where: str | Path) -> None:
    if width * height > limit:
        most = f"{limit // 1_000_000} million" if limit >= 1_000_000 else f"{limit}"
        raise ImageSizeError(
            f"absurdly large: {width} x {height} pixels, the limit is {most}",
            where=where,
            fix="crop, tile or shrink it first, or remove it",
        )


def _open(source: Path | Encoded) -> BufferedReader:
    """Open a regular, non-empty file; a pipe would wait for ever."""
    empty = ImageError(
        "the file is empty (0 bytes)",
        where=_where(source),
        fix="copy it again from its source, or remove it",
    )
    if isinstance(source, Encoded):
        if not source.content:
            raise empty
        return BufferedReader(BytesIO(source.content))
    try:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a file", where=source, fix="give image files, or a folder of them")
        if status.st_size == 0:
            raise empty
        return source.open("rb")
    except FileNotFoundError as error:
        raise ImageError("no such file", where=source, fix="check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot be read ({reason})", where=source, fix="check the permissions") from error


@contextmanager
def _header(source: Path | Encoded) -> Iterator[Image.Image]:
    """The image with its header read and its file open."""
    with _open(source) as file:
        try:
            image = _open_header(file)
        except UnidentifiedImageError as error:
            raise ImageError(
                "not an image (no known format inside)",
                where=_where(source),
                fix="export it again as PNG, JPEG or TIFF, or remove it",
            ) from error
        except Exception as error:
            raise _damaged(source, error) from error
        yield image


def _decode(source: Path | Encoded) -> Image.Image:
    """Decode the first frame, upright, in the file's own mode."""
    with _header(source) as image:
        _check_size(*image.size, MAX_PIXELS, _where(source))
        try:
            image.load()
        except Exception as error:
            raise _damaged(source, error) from error
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else _transpose(image, turn)


def _open_header(file: BufferedReader) -> Image.Image:
    """Read the header alone, without Pillow's own size check: it warns, and its limit is not ours."""
    file.peek(1)  # a slow disk is waited for outside the lock
    with _OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1 (upright) where the EXIF block is missing or damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _transpose(image: Image.Image, turn: Transpose) -> Image.Image:
    """Turn the pixels and keep what says which of them are transparent."""
    turned = image.transpose(turn)
    turned.info.update({k: v for k, v in image.info.items() if k == "transparency"})
    return turned


def _is_deep(image: Image.Image) -> bool:
    """Whether the values are integers of more than 8 bits, or floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _eight_bit(values: NDArray[Any], source: Source) -> NDArray[np.uint8]:
    """Scale 16-bit integers, or floats in 0..1, to 0..255."""
    low, high = values.min(), values.max()
    limit = 1.0 if values.dtype.kind == "f" else 65535
    if not (low >= 0 and high <= limit):
        raise ImageError(
            f"values from {low} to {high}, outside 0 to {limit}",
            where=_where(source),
            fix="export it with 8 or 16 bits a channel",
        )
    return np.asarray(np.rint(values * np.float32(255 / limit)), dtype=np.uint8)


def _damaged(source: Source, error: Exception) -> ImageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImageError(
        f"truncated or damaged ({reason})",
        where=_where(source),
        fix="copy it again from its source, or remove it",
    )
