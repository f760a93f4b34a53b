"""Finding and ending processes by what they are, never by their name.

Every process of a private cluster has the cluster's mark in its environment, and hands it on to what it
starts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

MARK = "NFBMR_CLUSTER_MARK"
STOP_SECONDS = 20.0


def marked(mark: str) -> list[Any]:
    """The processes of a cluster: those that carry its mark in their environment, and all below them.

    Ray's workers overwrite their environment with a title; they are found as children of their node.
    """
    import psutil

    found = {
        member.pid: member
        for process in psutil.process_iter()
        if has_mark(process.pid, mark)
        for member in family(process.pid)
    }
    return list(found.values())


def has_mark(pid: int | None, mark: str) -> bool:
    """Whether a process is there and carries a mark."""
    import psutil

    if pid is None or pid == os.getpid():
        return False
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


def family(pid: int) -> list[Any]:
    """A process and all below it."""
    import psutil

    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def end(processes: Sequence[Any], *, first: Sequence[int] = ()) -> list[int]:
    """Ask processes to end, those named `first` before the others, and insist after a while."""
    import psutil

    def tell(some: Sequence[Any], seconds: float, *, kill: bool = False) -> list[Any]:
        for process in some:
            with contextlib.suppress(psutil.Error):
                if kill:
                    process.kill()
                else:
                    process.terminate()
        return psutil.wait_procs(some, timeout=seconds)[1]

    tell([process for process in processes if process.pid in first], STOP_SECONDS)
    left = [process for process in processes if process.is_running()]
    tell(tell(left, 3.0), 5.0, kill=True)
    return sorted(process.pid for process in processes)
