"""Digests of image files, kept in this machine's cache: what has not changed is not read again to be named.

A digest counts while the file has the same number, size and times: the one of its last change of any kind
cannot be set back. One that changed a moment ago is not kept: within a tick of the clock it might change once
more. A folder's digests are lines of a file that is only ever added to, so that several processes may; a line
that is damaged is passed over.
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

from nfbmr.addresses import cache_folder

_SETTLED_NS = 2_000_000_000
_FOLDERS = 4096
_WRITING = threading.Lock()

State = tuple[int, int, int, int]
"""What tells that a file is still the same: numbers of its status."""


def state_of(status: os.stat_result) -> State:
    """What tells whether a file has been written anew: its number, its bytes, two times in nanoseconds."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def kept(path: Path, state: State) -> str | None:
    """The digest of a file in this state; None where it is not known."""
    where = path.absolute()
    known = _known(where.parent, cache_folder()).get(where.name)
    return known[1] if known is not None and known[0] == state else None


def keep(path: Path, state: State, digest: str) -> None:
    """Keep a file's digest; where the cache cannot be written, the file is read again next time."""
    if time.time_ns() - max(state[2:]) < _SETTLED_NS:
        return
    where, cache = path.absolute(), cache_folder()
    with _WRITING:
        _known(where.parent, cache)[where.name] = (state, digest)
        with contextlib.suppress(OSError):
            lines = _lines(where.parent, cache)
            lines.parent.mkdir(parents=True, exist_ok=True)
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps([where.name, state, digest]) + "\n")


@lru_cache(maxsize=_FOLDERS)
def _known(folder: Path, cache: Path) -> dict[str, tuple[State, str]]:
    known: dict[str, tuple[State, str]] = {}
    try:
        lines = _lines(folder, cache).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return known
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            name, (number, size, changed, touched), digest = json.loads(line)
            if len(digest) == 2 * hashlib.sha256().digest_size:
                known[str(name)] = ((int(number), int(size), int(changed), int(touched)), str(digest))
    return known


def _lines(folder: Path, cache: Path) -> Path:
    return cache / "digests" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]}.jsonl"
