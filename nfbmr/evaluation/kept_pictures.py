"""Pictures that are drawn once: the same numbers give the same picture, byte for byte.

A finished picture lies in the machine's cache under a digest of all that it was drawn from: the numbers, the
pixels, the lettering, this package's code and the versions of what draws. A run again in which nothing has
changed copies its pictures, and loads neither matplotlib nor scikit-learn. The pictures used longest ago go
first when there are more than `_MOST_BYTES`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfbmr.addresses import cache_folder
from nfbmr.data import thumbnails
from nfbmr.disk_cache import code_digest, versions
from nfbmr.paths import atomic

_LIBRARIES = ("matplotlib", "Pillow", "numpy", "scipy", "scikit-learn")
_FOLDER = "pictures"
_MOST_BYTES = 256_000_000


def drawn_once(draw: Callable[..., Path], path: Path, *data: Any, **options: Any) -> Path:
    """Draw a picture, or copy the one that was drawn of the same before.

    Args:
        draw: Writes the picture: ``draw(*data, path, **options)``; what it is given decides every pixel.
        path: The picture to write.
        data: Numbers, text, arrays, and sequences, mappings and dataclasses of these.
        options: Values of the same kinds.

    Returns:
        `path`.

    Raises:
        OutputError: The disk is full or the folder cannot be written.
    """
    sha = hashlib.sha256(repr((draw.__module__, draw.__qualname__, path.suffix)).encode())
    try:
        _feed(sha, [data, options, code_digest(), versions(*_LIBRARIES)])
    except _UnsureError:
        return draw(*data, path, **options)
    digest = sha.hexdigest()[:32]
    kept = cache_folder() / _FOLDER / digest[:2] / f"{digest}{path.suffix}"
    content = _read(kept)
    if content is not None:
        with atomic(path) as temporary:
            temporary.write_bytes(content)
        return path
    draw(*data, path, **options)
    thumbnails.keep(kept, _sealed(path.read_bytes()))
    thumbnails.prune(cache_folder() / _FOLDER, _MOST_BYTES)
    return path


class _UnsureError(Exception):
    """What decides the picture cannot be told from the data alone."""


def _feed(sha: Any, value: Any) -> None:
    """Add a value to a digest, with its kind, so that no two differ in nothing but where they are cut."""
    match value:
        case str() if not value.isascii():
            raise _UnsureError  # letters beyond these depend on the fonts that are installed
        case None | bool() | int() | float() | str():
            sha.update(f"{value!r};".encode())
        case np.ndarray() if value.dtype != object:
            sha.update(f"{value.dtype.str}{value.shape};".encode())
            sha.update(np.ascontiguousarray(value).data)
        case np.generic():
            _feed(sha, np.asarray(value))
        case Mapping():
            _feed(sha, list(value.items()))
        case list() | tuple():
            sha.update(f"{len(value)}[".encode())
            for item in value:
                _feed(sha, item)
        case _ if is_dataclass(value) and not isinstance(value, type):
            _feed(sha, [type(value).__qualname__, *(getattr(value, field.name) for field in fields(value))])
        case _:
            raise _UnsureError


def _sealed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def _read(path: Path) -> bytes | None:
    """A kept picture, marked as used; None where there is none, or where it is damaged."""
    with suppress(OSError):
        sealed = path.read_bytes()
        content = sealed[: -hashlib.sha256().digest_size]
        if sealed == _sealed(content):
            os.utime(path)
            return content
    return None
