r"""An append-only record on disk: one JSON object a line, one write a line.

A line is in the kernel's hands when :meth:`Journal.append` returns, so ``kill -9`` of the process loses
nothing that was logged. What a full disk or a power cut leaves half written is one unfinished line: readers
skip it, and the next writer starts on a fresh one.

Numbers that JSON cannot say are written as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which
``float`` reads back, so that any JSON reader can follow a journal.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfbmr.errors import OutputError
from nfbmr.locks import lock_open_file

FILE = "journal.jsonl"
"""A journal's name in the folder of its run."""


def now() -> int:
    """Milliseconds since 1970, the clock of every entry."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Entry:
    """One line of a journal.

    Attributes:
        kind: What was logged: ``start``, ``params``, ``metrics``, ``tags``, ``artifact``, ...
        time: When, in milliseconds since 1970.
        fields: The rest of the line.
        end: The byte after the line: a reader that has dealt with this entry goes on from there.
    """

    kind: str
    time: int
    fields: Mapping[str, Any]
    end: int


class Journal:
    """The writing end, safe for several threads and several processes.

    It holds a shared lock on the file while it is open, and the kernel drops that with the process: this is
    how :func:`abandoned` tells a run that goes on from one whose process is gone.

    Args:
        folder: Made where it is missing.
        exclusive: Only where nobody else is writing.

    Raises:
        OutputError: The folder cannot be written.
        BlockingIOError: `exclusive`, and somebody is writing.
    """

    def __init__(self, folder: Path, *, exclusive: bool = False) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        try:
            lock_open_file(self._fd, shared=not exclusive, wait=not exclusive)
        except BlockingIOError:
            os.close(self._fd)
            raise
        size = os.fstat(self._fd).st_size
        self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def append(self, kind: str, /, at: int | None = None, **fields: Any) -> None:
        """Add one entry; it is on its way to the disk when this returns.

        Args:
            kind: What is logged.
            at: When, in milliseconds since 1970; now, where it is not given.
            fields: Anything JSON can say, and floats that it cannot.

        Raises:
            OutputError: The disk is full, or the folder was taken away.
        """
        line = encode({"kind": kind, "time": now() if at is None else at, **fields})
        with self._lock:
            data = b"\n" + line if self._torn else line
            try:
                self._torn = True
                while data:
                    data = data[os.write(self._fd, data) :]
                self._torn = False
            except OSError as error:
                raise _cannot_write(self.path, error) from error

    def sync(self) -> None:
        """Wait until the disk itself has everything."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Give the file, and the lock on it, back."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def abandoned(folder: Path) -> bool:
    """Whether surely no process has this journal open for writing."""
    try:
        # Over NFS only a file that is open for writing can be locked exclusively.
        fd = os.open(folder / FILE, os.O_RDWR)
    except OSError:  # not ours to write
        fd = os.open(folder / FILE, os.O_RDONLY)
    try:
        return lock_open_file(fd, wait=False)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def entries(folder: Path, start: int = 0) -> Iterator[Entry]:
    """The entries after byte `start`, in the order they were written.

    Half-written lines are skipped, and a last line without its end is left for when it has one. Memory does
    not grow with the journal.
    """
    path = folder / FILE
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        end = start
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                fields = json.loads(line)
                entry = Entry(fields.pop("kind"), fields.pop("time"), fields, end)
            except (ValueError, KeyError, AttributeError):
                continue
            yield entry


def encode(value: Mapping[str, Any]) -> bytes:
    r"""One line of strict JSON.

    ASCII throughout, because a file name may hold bytes that are not text, and must come back as it was.

    Example:
        >>> encode({"loss": float("nan"), "name": "kräftig"})
        b'{"loss": "NaN", "name": "kr\\u00e4ftig"}\n'
    """
    return json.dumps(_plain(value), allow_nan=False).encode("ascii") + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write the tracking journal ({error.strerror or error})",
        where=path,
        fix="free some space or choose another folder, then run the same command again: it goes on",
    )
