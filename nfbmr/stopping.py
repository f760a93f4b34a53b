"""Ctrl-C and SIGTERM: as a request that work reads between its steps, or as a handler's for a while."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from nfbmr.errors import Interrupted

log = logging.getLogger(__name__)

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_handled(handle: Callable[[int], object] | None = None) -> Iterator[None]:
    """Have SIGINT and SIGTERM handled for as long as the block runs, and as before once it has ended.

    Handlers can be set in the main thread alone; elsewhere the block changes nothing.

    Args:
        handle: Called with the signal's number; None keeps the handlers there are, whatever the block does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        if handle is not None:
            for number in _SIGNALS:
                signal.signal(number, lambda number, _: handle(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def until_stopped(steps: Iterable[T], stop: StopRequest | None, what: str) -> Iterator[T]:
    """Steps of work, with a look before each whether to stop.

    Args:
        steps: Steps of the work.
        stop: Who says so; None: nobody.
        what: What is done, for the message: "images were scored".

    Raises:
        Interrupted: A stop was asked for.
    """
    for step in steps:
        if stop is not None and stop.requested:
            raise Interrupted(f"stopped while {what}", fix="run the same command again: features are kept")
        yield step


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

    @property
    def requested(self) -> bool:
        """Whether to checkpoint and stop."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Request a stop from the program itself."""
        self._asked.set()

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until a stop is asked for; whether it is."""
        return self._asked.wait(seconds)

    def __enter__(self) -> StopRequest:
        self._handling = signals_handled(self._on_signal)
        self._handling.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handling.__exit__(kind, error, trace)

    def _on_signal(self, number: int) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked.set()
        log.warning(
            "%s: stopping after this step; Ctrl-C once more stops at once", signal.Signals(number).name
        )
