"""The one process that drives a sweep or an ablation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nfbmr.errors import ConfigError
from nfbmr.locks import always, file_lock
from tune.records.paths import PlanPaths


@contextmanager
def driver_lock(paths: PlanPaths) -> Iterator[None]:
    """Hold a plan's folder; the kernel lets go of it when this process dies.

    Raises:
        ConfigError: Another process drives it.
    """

    def held() -> ConfigError:
        return ConfigError(
            f"another process drives this one (pid {paths.lock.read_text().strip() or 'unknown'})",
            where=paths.root,
            fix=f"wait for it, or ask it to stop: touch {paths.stop}",
        )

    with file_lock(paths.lock, held=held, give_up=always):
        paths.lock.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
