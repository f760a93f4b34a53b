"""Running trials: on a Ray cluster, or one after another in this process.

Whoever plans them (:class:`tune.execution.trial_spec.TrialSource`) hands out tasks and hears how they went;
nothing of a sweep's state lives here or in Ray. One suite, ``tests/tune/execution/test_execution.py``, runs
over both backends.
"""

from __future__ import annotations

from pathlib import Path

from nfbmr.stopping import StopRequest
from tune.execution.settings import Execution
from tune.execution.stop_condition import StopCondition
from tune.execution.trial_spec import TrialSource


def execute(tasks: TrialSource, how: Execution, stop: StopRequest, *, stop_file: Path) -> None:
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
    condition = StopCondition(stop, stop_file, how.time_budget)
    if how.backend == "local":
        from tune.execution.local_backend import run_local

        run_local(tasks, condition)
    else:
        from cluster.connection import connect

        with connect():
            from tune.execution.ray_backend import run_on_ray

            run_on_ray(tasks, how, condition)
