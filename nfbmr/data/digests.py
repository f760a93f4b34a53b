"""Digests and headers of image files, kept in this machine's cache: what has not changed is not read again.

They count while the file has the same number, size and times: the one of its last change of any kind
cannot be set back. Of one that changed a moment ago nothing is kept: within a tick of the clock it might
change once more. A folder's are lines of a file that is only ever added to, so that several processes may; a
line that is damaged is passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from nfbmr.addresses import cache_folder

_SETTLED_NS = 2_000_000_000
_FOLDERS = 4096
_WRITING = threading.Lock()

_VERSION = 3
"""Raised when something else is said of a header."""

DEEP_COLOUR = ";16"
"""Ending of the mode of an image of 16 bits a colour."""

State = tuple[int, int, int, int]
"""What tells that a file is still the same: numbers of its status."""


class Header(NamedTuple):
    """What the header of an image file says.

    Attributes:
        height: Of the image as it is seen, EXIF rotation applied, in pixels.
        width: Likewise.
        mode: Pillow's name for how pixels are stored; with ``;16`` where it has 16 bits a colour.
        needs_depth: Whether its values are integers of more than 8 bits, whose range the file does not say.
        is_negative: Whether zero is white in its deep values.
    """

    height: int
    width: int
    mode: str
    needs_depth: bool
    is_negative: bool

    @property
    def is_deep_colour(self) -> bool:
        """Whether it has 16 bits a colour, of which the high bytes alone are read."""
        return self.mode.endswith(DEEP_COLOUR) and not self.mode.startswith("I")


class Known(NamedTuple):
    """What is kept of a file: the SHA-256 of its bytes, and its header where it is an image."""

    digest: str
    header: Header | None


def state_of(status: os.stat_result) -> State:
    """What tells whether a file has been written anew: its number, its bytes, two times in nanoseconds."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_settled(state: State) -> bool:
    """Whether the last change is long enough ago that another one would be seen."""
    return time.time_ns() - max(state[2:]) >= _SETTLED_NS


def kept(path: Path, state: State) -> Known | None:
    """What is known of a file in this state; None where that is nothing."""
    where = path.absolute()
    entry = _known(where.parent, cache_folder()).get(where.name)
    return entry[1] if entry is not None and entry[0] == state else None


def keep(path: Path, state: State, known: Known) -> None:
    """Keep what is known of a file; where the cache cannot be written, it is read again next time."""
    if not is_settled(state):
        return
    where, cache = path.absolute(), cache_folder()
    with _WRITING:
        _known(where.parent, cache)[where.name] = (state, known)
        with contextlib.suppress(OSError):
            lines = _lines(where.parent, cache)
            lines.parent.mkdir(parents=True, exist_ok=True)
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps([where.name, state, *known]) + "\n")


@lru_cache(maxsize=_FOLDERS)
def _known(folder: Path, cache: Path) -> dict[str, tuple[State, Known]]:
    known: dict[str, tuple[State, Known]] = {}
    try:
        lines = _lines(folder, cache).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return known
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
            name, (number, size, changed, touched), digest, said = json.loads(line)
            header = None
            if said is not None:
                height, width, mode, needs_depth, is_negative = said
                header = Header(int(height), int(width), str(mode), bool(needs_depth), bool(is_negative))
            if len(digest) == 2 * hashlib.sha256().digest_size:
                state = (int(number), int(size), int(changed), int(touched))
                known[str(name)] = (state, Known(str(digest), header))
    return known


def _lines(folder: Path, cache: Path) -> Path:
    return cache / f"digests-{_VERSION}" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]}.jsonl"
