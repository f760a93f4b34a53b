"""The one process that drives a sweep or an ablation."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from nfbmr.errors import ConfigError
from tune.paths import PlanPaths


@contextmanager
def only_driver(paths: PlanPaths) -> Iterator[None]:
    """Hold a plan's folder; the kernel lets go of it when this process dies.

    Raises:
        ConfigError: Another process drives it.
    """
    paths.root.mkdir(parents=True, exist_ok=True)
    with paths.lock.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise ConfigError(
                f"another process drives this one (pid {handle.read().strip() or 'unknown'})",
                where=paths.root,
                fix=f"wait for it, or ask it to stop: touch {paths.stop}",
            ) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield
