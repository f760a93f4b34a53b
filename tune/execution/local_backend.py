"""Trials one after another in this process: no cluster, and a debugger steps through them."""

from __future__ import annotations

from functools import partial

from tune.execution.run_trial import run_task
from tune.execution.stop_condition import StopCondition, stop_when
from tune.execution.trial_spec import TrialSource


def run_local(tasks: TrialSource, condition: StopCondition) -> None:
    """Run tasks in this thread.

    Args:
        tasks: What to run.
        condition: When to stop.
    """
    while not condition.come and (task := tasks.next()) is not None:
        with stop_when(lambda: condition.come) as stop:
            outcome = run_task(task, report=partial(tasks.report, task.key), stop=stop)
        tasks.done(outcome)
