"""Files to pixels, safely: whatever the file holds, the answer is pixels or an :class:`ImageError`.

The size is read from the header and checked before a pixel is decoded, so that a few kilobytes that claim to
be 60 000 x 60 000 pixels cost nothing. Only raster formats with a signature are opened (never PostScript,
which would start a program).
"""

from __future__ import annotations

import hashlib
import stat
import threading
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from nfbmr.errors import ImageError

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


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as it is seen.

    EXIF rotation is applied; grey becomes three equal channels; transparency is laid on white; 16-bit values
    are scaled by the full range of their type (65535 becomes 255), floating-point ones from 0..1. Of several
    frames the first is read.

    Args:
        path: The file; its extension does not matter.

    Returns:
        Pixels (H, W, 3), uint8.

    Raises:
        ImageError: The file is missing, empty, truncated, no image, or larger than :data:`MAX_PIXELS`.
    """
    image = load_image(path)
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


def load_image(path: Path) -> Image.Image:
    """As :func:`read_image`, but a Pillow image of mode L (greyscale files) or RGB (all others).

    Greyscale files are not tripled here, so that resizing them costs a third.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    image = _decode(path)
    if _is_deep(image):
        return Image.fromarray(_eight_bit(np.asarray(image), path))
    grey = image.mode in _GREY_MODES
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.new("RGBA", seen.size, "white")
        image.alpha_composite(seen)
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.

    Raises:
        ImageError: The file cannot be read.
    """
    with _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> BufferedReader:
    """Open a regular, non-empty file; a pipe would wait for ever."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a file", where=path, fix="give image files, or a folder of them")
        if status.st_size == 0:
            raise ImageError(
                "the file is empty (0 bytes)", where=path, fix="copy it again from its source, or remove it"
            )
        return path.open("rb")
    except FileNotFoundError as error:
        raise ImageError("no such file", where=path, fix="check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot be read ({reason})", where=path, fix="check the permissions") from error


def _decode(path: Path) -> Image.Image:
    """Decode the first frame, upright, in the file's own mode."""
    with _open(path) as file:
        try:
            image = _open_header(file)
        except UnidentifiedImageError as error:
            raise ImageError(
                "not an image (no known format inside)",
                where=path,
                fix="export it again as PNG, JPEG or TIFF, or remove it",
            ) from error
        except Exception as error:
            raise _damaged(path, error) from error
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(
                f"absurdly large: {width} x {height} pixels, the limit is {MAX_PIXELS // 1_000_000} million",
                where=path,
                fix="crop, tile or shrink it first, or remove it",
            )
        try:
            image.load()
        except Exception as error:
            raise _damaged(path, error) from error
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


def _eight_bit(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Scale 16-bit integers, or floats in 0..1, to 0..255."""
    low, high = values.min(), values.max()
    limit = 1.0 if values.dtype.kind == "f" else 65535
    if not (low >= 0 and high <= limit):
        raise ImageError(
            f"values from {low} to {high}, outside 0 to {limit}",
            where=path,
            fix="export it with 8 or 16 bits a channel",
        )
    return np.asarray(np.rint(values * np.float32(255 / limit)), dtype=np.uint8)


def _damaged(path: Path, error: Exception) -> ImageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImageError(
        f"truncated or damaged ({reason})", where=path, fix="copy it again from its source, or remove it"
    )
