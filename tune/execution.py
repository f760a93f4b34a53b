"""Running trials: on a Ray cluster, or one after another in this process.

Whoever plans them (:class:`tune.tasks.Tasks`) hands out tasks and hears how they went; nothing of a sweep's
state lives here or in Ray. One suite, ``tests/tune/test_execution.py``, runs over both backends.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nfbmr.errors import ConfigError
from nfbmr.training.stopping import StopRequest
from tune.ending import Ending
from tune.tasks import Tasks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """How trials are run.

    Attributes:
        backend: ``ray``, or ``here``: one after another in this process, without Ray; a debugger steps
            through it.
        concurrent: Trials at a time, at most; None: as many as the cluster has room for, also when it grows.
        cpus: Of a trial; of each worker, where a trial has several.
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

    backend: Literal["ray", "here"] = "ray"
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
        if self.backend == "here" and self.workers > 1:
            raise ConfigError(
                "several workers of one trial need Ray", where="workers", fix="leave out --local"
            )


def execute(tasks: Tasks, how: Execution, stop: StopRequest, *, stop_file: Path) -> None:
    """Run tasks until there are no more, or until a stop.

    A stop is a request in `stop` (Ctrl-C), the end of the time budget, or somebody else making `stop_file`:
    nothing more is handed out, running trials checkpoint and end as ``interrupted``. A second Ctrl-C ends at
    once.

    With backend ``ray``, a cluster that this process is connected to (:func:`cluster.connection.connect`) is
    used, else one is joined or started for as long as this takes.

    Args:
        tasks: What to run. Called from this thread alone.
        how: On what.
        stop: Asks to stop.
        stop_file: How trials elsewhere hear of a stop: on a path that every node sees. One that is left from
            before is removed.

    Raises:
        ConfigError: Nobody has such resources, or the cluster does not answer.
        MissingPackageError: Ray is not installed.
    """
    ending = Ending(stop, stop_file, how.time_budget)
    if how.backend == "here":
        from tune.here import run_here

        run_here(tasks, ending)
    else:
        from cluster.connection import connect

        with connect():
            from tune.ray_tune import run_on_ray

            run_on_ray(tasks, how, ending)
