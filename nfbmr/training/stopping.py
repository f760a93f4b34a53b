"""Ctrl-C and SIGTERM as a request that the training loop reads between steps."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While the block runs, the first SIGINT or SIGTERM only sets :attr:`requested`.

    A second Ctrl-C stops at once, as without this class. Handlers can be set in the main thread alone;
    elsewhere (a worker, a notebook's thread) the block changes nothing and :meth:`ask` is the way to set
    the flag.

    Example:
        >>> with StopRequest() as stop:
        ...     stop.ask()
        ...     stop.requested
        True
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether to checkpoint and stop."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Request a stop from the program itself."""
        self._asked.set()

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked.set()
        log.warning(
            "%s: stopping after this step; Ctrl-C once more stops at once", signal.Signals(number).name
        )
