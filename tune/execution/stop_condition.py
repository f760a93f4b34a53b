"""When to stop: for whoever hands out trials, and for the trials themselves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nfbmr.stopping import StopRequest

log = logging.getLogger(__name__)

EVERY = 0.5
"""Seconds between two looks at a stop file."""


class StopCondition:
    """Whether to hand out no more trials; running ones are told through a file.

    Args:
        stop: Asked by Ctrl-C.
        file: Tells running trials; made when the end has come. Somebody else making it has the same effect.
        time_budget: Seconds from now.
    """

    def __init__(self, stop: StopRequest, file: Path, time_budget: float | None = None) -> None:
        self.file = file
        self._stop = stop
        self._deadline = None if time_budget is None else time.monotonic() + time_budget
        self._come = False
        self._looked = 0.0
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)

    @property
    def come(self) -> bool:
        """Whether it has come; it never goes away again."""
        if self._come:
            return True
        now = time.monotonic()
        if self._stop.requested:
            self._come = True
        elif self._deadline is not None and now >= self._deadline:
            log.info("the time budget is spent: running trials checkpoint and stop")
            self._come = True
        elif now - self._looked >= EVERY:
            self._looked = now
            self._come = self.file.exists()
        if self._come:
            self.file.touch()
        return self._come


@contextmanager
def stop_when(condition: Callable[[], bool]) -> Iterator[StopRequest]:
    """A stop request that a thread makes as soon as `condition` is true.

    Example:
        >>> with stop_when(lambda: True) as stop:
        ...     time.sleep(0.1)
        ...     stop.requested
        True
    """
    stop, over = StopRequest(), threading.Event()

    def watch() -> None:
        while not over.is_set():
            if condition():
                stop.ask()
                return
            over.wait(EVERY)

    thread = threading.Thread(target=watch, name="nfbmr-stop", daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        over.set()
        thread.join()
