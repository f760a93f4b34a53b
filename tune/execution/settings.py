"""On what trials are run, and how many at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nfbmr.errors import ConfigError


@dataclass(frozen=True)
class Execution:
    """How trials are run.

    Attributes:
        backend: ``ray``, or ``local``: one after another in this process, without Ray; a debugger steps
            through it.
        concurrent: Trials at a time, at most; None: as many as the cluster has room for, also when it grows.
        cpus: Cores of a trial; of each worker, where a trial has several.
        gpus: Likewise; may be a fraction.
        workers: Processes of a trial. One trains in Ray Tune's own actor, which the next trial takes over;
            several train with Ray Train.
        time_budget: Seconds after which running trials checkpoint and stop, and no more are handed out.
        retries: How often a trial is tried again whose worker or node was lost. It goes on with its folder.
            Errors of a trial's own are not tried again, and one that ran out of memory once only.

    Example:
        >>> Execution(concurrent=4, gpus=0.25).backend
        'ray'
    """

    backend: Literal["ray", "local"] = "ray"
    concurrent: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    workers: int = 1
    time_budget: float | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: A number is out of range.
        """
        for name, value, least in (
            ("concurrent", self.concurrent, 1),
            ("workers", self.workers, 1),
            ("gpus", self.gpus, 0),
            ("retries", self.retries, 0),
            ("time_budget", self.time_budget, 0),
        ):
            if value is not None and value < least:
                raise ConfigError(f"{value} is less than {least}", where=name, fix=f"give {least} or more")
        if self.cpus <= 0:
            raise ConfigError(f"a trial cannot run on {self.cpus:g} cpus", where="cpus", fix="give 1 or more")
        if self.gpus > 1 and self.gpus % 1:
            raise ConfigError(
                f"{self.gpus} GPUs of one trial", where="gpus", fix="give a fraction of one, or whole ones"
            )
        if self.backend == "local" and self.workers > 1:
            raise ConfigError(
                "several workers of one trial need Ray", where="workers", fix="leave out --local"
            )
