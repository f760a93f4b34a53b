"""Signs of life on a terminal: long work says that it goes on, and what it is.

Progress bars of tqdm are drawn when something is done; what takes long at once looks as if it hung. So a
bar's time goes on by itself here (:func:`ticking`), and work without a bar says what it is (:func:`working`).
Where standard error is no terminal, nothing is said, as tqdm does with ``disable=None``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

EVERY = 1.0
"""Seconds until the first word, and between one and the next."""

_ticking: set[int] = set()  # bars on the terminal: they speak for whatever is around them


@contextmanager
def ticking(bar: tqdm[Any]) -> Iterator[tqdm[Any]]:
    """A progress bar that is drawn anew every second, and closed when the block ends.

    Example:
        >>> from tqdm import tqdm
        >>> with ticking(tqdm(total=2, disable=True)) as bar:
        ...     bar.update(2)
    """
    with bar:
        if bar.disable:
            yield bar
            return
        _ticking.add(id(bar))
        try:
            with _meanwhile(lambda done: _tick(bar, done)):
                yield bar
        finally:
            _ticking.discard(id(bar))


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say what is going on and for how long while a block runs; what is quick, or has a bar, says nothing.

    Args:
        what: Is being done: ``"reading images"``.
    """
    isatty = getattr(sys.stderr, "isatty", None)  # a program around us may have put anything there, or None
    if isatty is None or not isatty():
        yield
        return
    with _meanwhile(lambda done: _tell(what, done)):
        yield


@contextmanager
def _meanwhile(do: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do something in a thread until the block ends."""
    done = threading.Event()
    thread = threading.Thread(target=do, args=(done,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tick(bar: tqdm[Any], done: threading.Event) -> None:
    while not done.wait(EVERY):
        bar.refresh()


def _tell(what: str, done: threading.Event) -> None:
    began = time.monotonic()
    line: tqdm[Any] | None = None
    while not done.wait(EVERY):
        if _ticking:
            if line is not None:
                line.close()
            line = None
            continue
        if line is None:
            from tqdm import tqdm

            line = tqdm(bar_format="{desc}", leave=False)
        line.set_description_str(f"{what} ... {time.monotonic() - began:.0f} s")
    if line is not None:
        line.close()
