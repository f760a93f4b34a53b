"""One task in this process: a run that goes on with what its folder holds, and ends as an outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nfbmr import run as runs
from nfbmr.errors import ConfigError, Interrupted, NfbmrError, Pruned
from nfbmr.evaluation.summary import RunSummary
from nfbmr.locks import file_lock
from nfbmr.methods.fitting import OnEpoch
from nfbmr.methods.registry import trained_sections
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from nfbmr.run import Run
from nfbmr.run_logger import RunLogger
from nfbmr.stopping import StopRequest
from nfbmr.trackers import make_tracker
from nfbmr.tracking import Tracker
from tune.execution.trial_spec import State, TrialResult, TrialSpec

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds without progress that the end of a trial waits for the tracking server; what has not arrived, the
driver sends (:class:`tune.records.parent.ParentRecord`)."""

Report = Callable[[int, Mapping[str, float]], bool]
"""Told of each epoch: epochs of all stages so far, and its metrics. Whether to prune."""


class ExecuteRun(Protocol):
    """Does a run: :func:`nfbmr.run.execute_run`, or its namesake of ``cluster.training``."""

    def __call__(
        self,
        run: Run,
        tracking: Callable[[Run], Tracker],
        stop: StopRequest,
        *,
        test: bool,
        on_epoch: OnEpoch | None,
    ) -> RunSummary:
        """Do it, and return its summary."""
        ...


def run_task(
    task: TrialSpec, *, report: Report, stop: StopRequest, execute_run: ExecuteRun = runs.execute_run
) -> TrialResult:
    """Do a task, or what is left of it.

    Every error of its own is an outcome: what is wrong with one trial does not concern the others.

    Args:
        task: Which. A folder that holds its result already is only read.
        report: Told of each epoch of both stages, also of a flow that the store had.
        stop: Asks it to checkpoint and stop.
        execute_run: Does the run.
    """
    begun = time.perf_counter()
    state: State
    summary, error = None, None
    try:
        with _attempt_lock(task.folder, stop):
            run, tracking = _opened(task), Tracking(task)
            result, journal = run.paths.summary if task.test else run.paths.fitted, run.paths.journal
            if result.exists() and journal.exists() and read_record(journal).status != "finished":
                # It was killed between its result and the end of its record.
                tracker = tracking(run)
                RunLogger(run.paths, run.config, tracker).end(RunSummary.read(result))
                tracker.finish("finished")
            summary = execute_run(run, tracking, stop, test=task.test, on_epoch=_on_epoch(task, report))
        state = "finished"
    except Pruned:
        state = "pruned"
    except Interrupted:
        state = "interrupted"
    except _ReportError as problem:
        raise problem.__cause__ or problem from None
    except NfbmrError as problem:
        state, error = "failed", str(problem)
    except Exception as problem:
        state, error = "failed", f"{type(problem).__name__}: {problem}"
        log.exception("trial %s failed", task.key)
    return TrialResult(task.key, state, summary, error, time.perf_counter() - begun)


class _ReportError(Exception):
    """An error of whoever plans trials, which is not the trial's."""


@dataclass(frozen=True)
class Tracking:
    """Opens the record of a task's run, wherever the task is run: it can be sent to a worker."""

    task: TrialSpec

    def __call__(self, run: Run) -> Tracker:
        """Open it, or go on with it."""
        tracking = run.config.tracking.model_copy(update={"run_name": self.task.run_name})
        return make_tracker(
            tracking,
            run.paths,
            run.run_id,
            parent_id=self.task.parent_id,
            tags=dict(self.task.tags),
            patience=PATIENCE,
        )


def _opened(task: TrialSpec) -> Run:
    if not RunPaths(task.folder).config.exists():
        return runs.new_run(task.config, run_id=task.run_id, folder=task.folder)
    run = runs.open_run(task.folder)
    if run.run_id != task.run_id:
        raise ConfigError(
            f"the folder of another run ({run.run_id})",
            where=task.folder,
            fix="give the sweep another --name",
        )
    return run


def _on_epoch(task: TrialSpec, report: Report) -> OnEpoch:
    """Number the epochs of all stages in one row, and prune where `report` says so."""
    before, epochs = {}, 0
    for stage, section in trained_sections(task.config).items():
        before[stage] = epochs
        epochs += section.epochs

    def on_epoch(stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        if stage not in before:  # not validated: nothing to compare trials by
            return
        try:
            prune = report(before[stage] + epoch, metrics)
        except Exception as problem:
            raise _ReportError from problem
        if prune:
            raise Pruned("other trials do better", where=task.key)

    return on_epoch


@contextmanager
def _attempt_lock(folder: Path, stop: StopRequest) -> Iterator[None]:
    """Wait until an earlier attempt has really ended; the kernel lets go of its lock when it dies."""
    with file_lock(
        RunPaths(folder).lock,
        held=lambda: Interrupted("stopped while an earlier attempt still ran", where=folder),
        give_up=lambda: stop.requested,
    ):
        yield
