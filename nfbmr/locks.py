"""Locks on files: held by one process at a time, and freed by the system when it dies, however it dies.

They hold on one machine, and on several where the file system says so (NFS with its lock daemon). Where a
file system has no locks at all, nothing is refused for that: work goes on without, and the log says so once.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nfbmr.errors import NfbmrError, OutputError

log = logging.getLogger(__name__)

EVERY = 0.2
"""Seconds between two attempts at a lock that somebody holds."""

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


def always() -> bool:
    """For ``give_up``: do not wait at all."""
    return True


def never() -> bool:
    """For ``give_up``: wait as long as it takes."""
    return False


@contextmanager
def file_lock(
    path: Path,
    *,
    held: Callable[[], NfbmrError] = lambda: NfbmrError("another process holds this lock"),
    give_up: Callable[[], bool] = never,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold a lock for as long as the block runs.

    Args:
        path: Its file; made where it is missing, and left there.
        held: Makes the error that says who has it, once waiting is given up.
        give_up: Asked while somebody else has it.
        on_wait: Called once, before waiting.

    Raises:
        NfbmrError: What `held` makes.
        OutputError: The file cannot be made.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lock"
        >>> with file_lock(path):
        ...     is_locked(path)
        True
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    waiting = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            break
        except Timeout:
            if give_up():
                raise held() from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise _unusable(path, error) from error
            _warn_without_locks(str(path))
            break
        if not waiting:
            on_wait()
        waiting = True
        time.sleep(EVERY)
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may be gone, and the lock with it
            lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock now; False where there is none, or no telling."""
    try:
        # Over NFS only a file that is open for writing can be locked exclusively.
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # a folder that can only be read
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lock_open_file(fd, wait=False)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def open_lock_file(path: Path) -> int:
    """Open the file of a lock for :func:`lock_open_file`, made if need be; for reading, if only that goes.

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
            raise _unusable(path, error) from error


def lock_open_file(fd: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Lock a file that is open, until it is closed.

    Args:
        fd: File descriptor of the file.
        shared: Together with others that share it, rather than alone.
        wait: For whoever excludes this.

    Returns:
        Whether it is locked now; False on a file system without locks.

    Raises:
        BlockingIOError: Somebody else has it, and it was not to be waited for.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno != errno.EBADF:  # NFS, and a file that is open for reading alone
            _warn_without_locks(f"file {fd}")
        return False
    return True


def _unusable(path: Path, error: OSError) -> OutputError:
    reason = (error.strerror or str(error)).lower()
    fix = "choose another folder, or free some space"
    return OutputError(f"its lock cannot be had ({reason})", where=path.parent, fix=fix)


@functools.cache
def _no_locks() -> None:
    log.warning("a file system here has no locks: nothing keeps two processes from the same folder")


def _warn_without_locks(what: str) -> None:
    log.debug("no lock on %s", what)
    _no_locks()
