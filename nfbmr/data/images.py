"""Files to pixels, safely: whatever the file holds, the answer is pixels or an :class:`ImageError`.

A file may also be in memory: its bytes, or its pixels (:mod:`nfbmr.data.sources`).

The size is read from the header and checked before a pixel is decoded, so that a few kilobytes that claim to
be 60 000 x 60 000 pixels cost nothing. Only raster formats with a signature are opened (never PostScript,
which would start a program).
"""

from __future__ import annotations

import hashlib
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader, BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from nfbmr.data import contents, digests
from nfbmr.data.digests import DEEP_COLOUR, Header
from nfbmr.data.modes import (
    FULL_RANGE,
    PACKED_BITS,
    PHOTOMETRIC,
    SIDEWAYS,
    ZERO_IS_WHITE,
    flattened,
    is_deep,
    is_deep_colour,
    is_negative,
    is_packed,
    orientation,
    upright,
)
from nfbmr.data.sources import MAX_PIXELS, Decoded, Encoded, Source, check_pixels, place_of
from nfbmr.errors import ImageError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "PPM", "WEBP", "GIF", "JPEG2000")
"""The formats that are opened, by Pillow's names."""

_OPENING = threading.Lock()


def read_image(source: Source, depth: int | None = None) -> NDArray[np.uint8]:
    """Read an image as it is seen.

    EXIF rotation is applied; grey becomes three equal channels; transparency is laid on white; values
    of more than 8 bits are scaled by what `depth` bits hold, floating-point ones from 0..1. Of several frames
    the first is read.

    Args:
        source: The file; its extension does not matter.
        depth: Bits of the values of deep images; None takes what the file says: 12 for a packed 12-bit TIFF,
            else 16 (65535 becomes 255).

    Returns:
        Pixels (H, W, 3), uint8.

    Raises:
        ImageError: The file is missing, empty, truncated, no image, or larger than `MAX_PIXELS`.
    """
    image = load_image(source, depth)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a ground-truth mask: any pixel that is neither black nor transparent is defect.

    A JPEG has no clean black: there a pixel is defect above half of full brightness.

    Args:
        path: The file.

    Returns:
        Mask (H, W), True on the defect.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    image = _decode(path)
    if is_deep(image):
        white = 1.0 if image.mode == "F" else 65535
        return np.asarray(np.asarray(image) != (white if ZERO_IS_WHITE in image.info else 0), dtype=np.bool_)
    pixels_HWC = np.asarray(image.convert("RGBA"))
    marked_HWC = pixels_HWC[..., :3] > (127 if image.format in ("JPEG", "MPO") else 0)
    return np.asarray(marked_HWC.any(axis=2) & (pixels_HWC[..., 3] > 0))


def read_masks(paths: Sequence[Path]) -> NDArray[np.bool_]:
    """Read the masks of one image: what any of them marks is defect.

    Args:
        paths: One file or more.

    Returns:
        Mask (H, W), True on the defect.

    Raises:
        ImageError: As for :func:`read_mask`; or two of them are of different sizes.
    """
    first = read_mask(paths[0])
    for path in paths[1:]:
        other = read_mask(path)
        if other.shape != first.shape:
            raise ImageError(
                f"{other.shape[1]} x {other.shape[0]} pixels, another mask of the same image has "
                f"{first.shape[1]} x {first.shape[0]}",
                where=path,
                fix="make all masks of an image as large as the image",
            )
        first = first | other
    return first


def load_image(source: Source, depth: int | None = None) -> Image.Image:
    """As :func:`read_image`, but a Pillow image of mode L (greyscale files) or RGB (all others).

    Greyscale files are not tripled here, so that resizing them costs a third.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    return _seen(source, depth=depth)


def _seen(source: Source, longest: int | None = None, depth: int | None = None) -> Image.Image:
    """The image as it is seen; a JPEG shrunk while it is decoded, towards `longest` and never below it."""
    if isinstance(source, Decoded):
        return Image.fromarray(source.pixels)
    image = _decode(source, longest)
    return flattened(image, place_of(source), depth)


def decoded(source: Source, depth: int | None = None) -> Decoded:
    """As :func:`load_image`, to be kept: what is read several times need not be decoded as often.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    if isinstance(source, Decoded):
        return source
    return Decoded(np.asarray(load_image(source, depth)), str(place_of(source)))


def from_pillow(image: Image.Image, name: str = "the image", limit: int = MAX_PIXELS) -> Encoded | Decoded:
    """A Pillow image, as its file would be read: EXIF rotation, transparency and deep values likewise.

    Args:
        image: Image of any mode; its pixels are not changed.
        name: Name of the image, for messages.
        limit: The most pixels that it may have; one that was not decoded yet is not, if it has more.

    Raises:
        ImageError: It is too large, or its file cannot be decoded.
    """
    check_pixels(*image.size, limit, name)
    try:
        if isinstance(image, ImageFile) and image.format == "TIFF" and orientation(image) in SIDEWAYS:
            image.filename = ""  # or Pillow 13 maps the file into rows of the turned width: noise
        image.load()
    except Exception as error:
        raise _damaged(Path(name), error) from error
    seen = upright(image)
    if is_deep(seen) and not is_packed(image) and seen.format not in FULL_RANGE:
        # How many bits its values have is the model's to say, so they are kept.
        file = BytesIO()
        seen.save(file, format="TIFF", tiffinfo={PHOTOMETRIC: 0} if ZERO_IS_WHITE in seen.info else {})
        return Encoded(file.getvalue(), name)
    return Decoded(np.asarray(flattened(seen, name)), name)


def load_small(source: Source, longest: int) -> Image.Image:
    """Read an image as :func:`load_image` does, grey and shrunk.

    Its sides are divided by the least power of two that leaves none longer than `longest`. A JPEG is
    decoded at the smaller size at once, which takes a fraction of the time.

    Args:
        source: The file.
        longest: Most pixels of the longer side.

    Returns:
        An image of mode L.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    image = _seen(source, longest).convert("L")
    factor = 1
    while max(image.size) > longest * factor:
        factor *= 2
    return image.reduce(factor) if factor > 1 else image


def check_size(source: Source, limit: int) -> None:
    """Refuse an image of more than `limit` pixels; no more than a file's header is read.

    Raises:
        ImageError: It is larger, or cannot be read.
    """
    if isinstance(source, Decoded):
        height, width = source.pixels.shape[:2]
        check_pixels(width, height, limit, source.name)
        return
    with _header(source) as image:
        check_pixels(*image.size, limit, place_of(source))


def size_seen(path: Path) -> tuple[int, int]:
    """Height and width of an image as it is seen, EXIF rotation applied; no more than its header is read.

    Raises:
        ImageError: The file is missing or no image.
    """
    header = header_of(path)
    return header.height, header.width


def header_of(path: Path) -> Header:
    """What an image file's header says; that of a file whose digest is known is known, too.

    Raises:
        ImageError: The file is missing or no image.
    """
    with suppress(OSError, ValueError):  # said below, where it is opened
        known = digests.kept(path, digests.state_of(path.stat()))
        if known is not None and known.header is not None:
            return known.header
    with _header(path) as image:
        return _said_by(image)


def _said_by(image: Image.Image) -> Header:
    width, height = image.size
    # Pillow says a TIFF's size as it is seen, and would decode a whole PNG to look for EXIF data that may
    # come after the pixels.
    unasked = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
    if not unasked and orientation(image) in SIDEWAYS:
        width, height = height, width
    needs_depth = is_deep(image) and image.mode != "F" and image.format not in FULL_RANGE
    mode = f"{image.mode}{DEEP_COLOUR}" if is_deep_colour(image) else image.mode
    return Header(height, width, mode, needs_depth, is_negative(image))


def highest_value(path: Path) -> int | None:
    """The highest value of an image whose depth must be known to read it; of a packed 12-bit TIFF 4095.

    Returns:
        None for images of 8 bits, of floats, and in formats that say their values' range: of these no more
        than the header is read.

    Raises:
        ImageError: The file cannot be read.
    """
    if not header_of(path).needs_depth:
        return None
    with _header(path) as image:
        if is_packed(image):
            return (1 << PACKED_BITS) - 1
    return int(np.asarray(_decode(path)).max())


def highest_byte(path: Path) -> int | None:
    """The highest of the high bytes of an image of 16 bits a colour, which are all that is read of it.

    Returns:
        None for other images: of these no more than the header is read.

    Raises:
        ImageError: The file cannot be read.
    """
    if not header_of(path).is_deep_colour:
        return None
    return int(np.asarray(_decode(path).convert("RGB")).max())


def file_digest(source: Source) -> str:
    """SHA-256 of a file's bytes; of pixels in memory, of their shape and values.

    A file that has not changed since it was last asked about is not even opened (:mod:`nfbmr.data.digests`).

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
    if isinstance(source, Encoded):
        with _open(source) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    state = None
    with suppress(OSError, ValueError):  # said below, where it is opened
        # Taken before it is read: one that changes meanwhile is read again next time.
        state = digests.state_of(source.stat())
        if (known := digests.kept(source, state)) is not None:
            return known.digest
    with _open(source) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        header = None
        file.seek(0)
        with suppress(Exception):  # it need not be an image, and the digest of a damaged one is right
            header = _said_by(_open_header(file))
    if state is not None:
        digests.keep(source, state, digests.Known(digest, header))
    return digest


def _open(source: Path | Encoded) -> BufferedReader:
    """Open a regular, non-empty file; a pipe would wait for ever."""
    empty = ImageError(
        "the file is empty (0 bytes)",
        where=place_of(source),
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
        content = contents.content_of(source, status)
        return source.open("rb") if content is None else BufferedReader(BytesIO(content))
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
                where=place_of(source),
                fix="export it again as PNG, JPEG or TIFF, or remove it",
            ) from error
        except Exception as error:
            raise _damaged(source, error) from error
        yield image


def _decode(source: Path | Encoded, longest: int | None = None) -> Image.Image:
    """Decode the first frame, upright, in the file's own mode."""
    with _header(source) as image:
        check_pixels(*image.size, MAX_PIXELS, place_of(source))
        try:
            if longest is not None and image.format == "JPEG":
                factor = 1  # a power of two, of which JPEG knows three
                while factor < 8 and max(image.size) > longest * factor:
                    factor *= 2
                image.draft("L", (image.width // factor, image.height // factor))
            image.load()
        except Exception as error:
            raise _damaged(source, error) from error
    return upright(image)


def _open_header(file: BufferedReader) -> Image.Image:
    """Read the header alone, without Pillow's own size check: it warns, and its limit is not ours."""
    file.peek(1)  # a slow disk is waited for outside the lock
    with _OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _damaged(source: Source, error: Exception) -> ImageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImageError(
        f"truncated or damaged ({reason})",
        where=place_of(source),
        fix="copy it again from its source, or remove it",
    )
