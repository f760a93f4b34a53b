"""Trials one after another in this process: no cluster, and a debugger steps through them."""

from __future__ import annotations

from functools import partial

from tune.ending import Ending, stop_when
from tune.tasks import Tasks
from tune.trial import run_task


def run_here(tasks: Tasks, ending: Ending) -> None:
    """Run tasks in this thread.

    Args:
        tasks: What to run.
        ending: When to stop.
    """
    while not ending.come and (task := tasks.next()) is not None:
        with stop_when(lambda: ending.come) as stop:
            outcome = run_task(task, report=partial(tasks.report, task.key), stop=stop)
        tasks.done(outcome)
