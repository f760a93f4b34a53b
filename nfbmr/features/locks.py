"""Locks on files, which the system frees when a process dies. They hold on one machine alone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from nfbmr.errors import OutputError


def open_lock(path: Path) -> int:
    """Open a lock's file, made if need be; a store that can only be read is opened for reading.

    Raises:
        OutputError: It can neither be made nor opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise OutputError(
                f"cannot use the store ({error.strerror})",
                where=path.parent,
                fix="choose another folder (store=...), or free some space",
            ) from error


def try_lock(handle: int) -> bool:
    """Take an exclusive lock without waiting; False if somebody holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a process holds this lock now."""
    try:
        # Over NFS only a file that is open for writing can be locked exclusively.
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # a store that can only be read
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)
