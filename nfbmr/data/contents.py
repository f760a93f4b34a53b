"""Contents of image files, held in memory while a run lasts: its steps decode one reading of the disk.

Features, audit, synthetic defects and heat maps decode the same files at different times and in different
ways. What fits is held as it is on the disk, compressed; nothing goes to make room, since every step walks
through all files in one order. A file that has been written anew is read again (:mod:`nfbmr.data.digests`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nfbmr.data.digests import State, is_settled, state_of

MOST_BYTES = 128_000_000
"""That are held in a process; files beyond are read by each step that decodes them."""


@contextmanager
def held(most_bytes: int = MOST_BYTES) -> Iterator[None]:
    """Hold what is read within the block; blocks inside it share what it holds.

    Args:
        most_bytes: That are held; files beyond are read anew by whoever asks.
    """
    _CONTENTS.begin(most_bytes)
    try:
        yield
    finally:
        _CONTENTS.end()


def content_of(path: Path, status: os.stat_result) -> bytes | None:
    """The bytes of a file, read at most once; None where they are not held, nor will be.

    Args:
        path: The file.
        status: Of it, asked for just now.

    Raises:
        OSError: It cannot be read.
    """
    where, state = path.absolute(), state_of(status)
    content = _CONTENTS.get(where, state)
    if content is None and is_settled(state) and _CONTENTS.has_room(status.st_size):
        content = path.read_bytes()
        _CONTENTS.put(where, state, content)
    return content


class _Contents:
    """Bytes by file, of all threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._room = 0
        self._files: dict[Path, tuple[State, bytes]] = {}

    def begin(self, most_bytes: int) -> None:
        with self._lock:
            if not self._blocks:
                self._room = most_bytes
            self._blocks += 1

    def end(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                self._files.clear()
                self._room = 0

    def get(self, path: Path, state: State) -> bytes | None:
        with self._lock:
            known_state, content = self._files.get(path, (None, b""))
            return content if known_state == state else None

    def has_room(self, size: int) -> bool:
        with self._lock:
            return size <= self._room

    def put(self, path: Path, state: State, content: bytes) -> None:
        with self._lock:
            _, older = self._files.pop(path, (None, b""))
            self._room += len(older)
            if len(content) <= self._room:
                self._files[path] = (state, content)
                self._room -= len(content)


_CONTENTS = _Contents()
