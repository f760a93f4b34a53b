"""Small grey pictures of image files, kept in this machine's cache under the digest of the file.

A picture is decoded once on a machine, whatever the run, the split and the folder it is found in. Files are
written whole or not at all, so several processes may share the cache; one that is damaged, or cannot be
written, is made anew. The pictures used longest ago go first when there are more than `MOST_BYTES`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.addresses import cache_folder
from nfbmr.data.images import file_digest, load_small

LONGEST = 256
"""Most pixels of a picture's longer side."""

_MOST_BYTES = 512_000_000
_VERSION = "1"


def thumbnail(path: Path) -> tuple[NDArray[np.uint8], str]:
    """The small picture of an image file, and the file's digest.

    Args:
        path: The file.

    Returns:
        Grey values (H, W), uint8, neither side above `LONGEST`, and the SHA-256 of the file's bytes.

    Raises:
        ImageError: It cannot be read.
    """
    digest = file_digest(path)
    kept = _folder() / digest[:2] / f"{digest}.png"
    small_HW = _read(kept)
    if small_HW is None:
        small_HW = np.asarray(load_small(path, LONGEST))
        buffer = BytesIO()
        Image.fromarray(small_HW).save(buffer, "PNG", compress_level=1)
        keep(kept, buffer.getvalue())
    return small_HW, digest


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache whole, or not at all: a cache that cannot be written is done without."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def prune(folder: Path | None = None, most: int = _MOST_BYTES) -> None:
    """Remove the files used longest ago until the cache holds four fifths of what it may.

    Args:
        folder: The folder of the cache; nothing means that of the thumbnails.
        most: Bytes from which there is something to remove.
    """
    by_age: list[tuple[float, int, Path]] = []
    for file in (folder or _folder()).glob("*/*"):
        with contextlib.suppress(OSError):
            status = file.stat()
            by_age.append((status.st_mtime, status.st_size, file))
    total = sum(size for _, size, _ in by_age)
    if total <= most:
        return
    for _, size, file in sorted(by_age):
        with contextlib.suppress(OSError):
            file.unlink()
            total -= size
        if total <= 0.8 * most:
            return


def _folder() -> Path:
    return cache_folder() / f"thumbnails-{_VERSION}"


def _read(path: Path) -> NDArray[np.uint8] | None:
    """A kept picture, marked as used; None where there is none, or it is damaged.

    No `.npy` file: numpy parses the header of one with `ast`, and in Python 3.11.7 two threads that do so at
    once may end in a SystemError.
    """
    try:
        with Image.open(BytesIO(path.read_bytes()), formats=("PNG",)) as image:
            if image.mode != "L" or max(image.size) > LONGEST:
                return None
            small_HW = np.array(image)
        os.utime(path)
    # A damaged chunk is a SyntaxError to Pillow.
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError):
        return None
    return small_HW
