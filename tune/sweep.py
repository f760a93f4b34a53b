"""A sweep, top to bottom: check the space, extract what any trial needs, search, score the best once.

The folder of the sweep is its only memory; going on after any kind of end is the same call again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nfbmr.config import FeatureConfig
from nfbmr.errors import ConfigError, Interrupted, NfbmrError
from nfbmr.paths import RunPaths, read_json, write_json
from nfbmr.preparation import extract_all, read_data
from nfbmr.tracking import Status
from nfbmr.training.stopping import StopRequest
from tune.driver import only_driver
from tune.ending import stop_when
from tune.execution import Execution, execute
from tune.parent import ParentRecord
from tune.paths import SweepPaths, find
from tune.plan import SweepPlan
from tune.progress import Progress, Standing, duration
from tune.resources import execution_of, gpu_share, on_cluster
from tune.study import Study, pass_key
from tune.sweep_report import summarise, write_tables
from tune.tasks import Outcome, Task

log = logging.getLogger(__name__)


def new_sweep(plan: SweepPlan, *, address: str | None = None) -> dict[str, Any]:
    """Do a sweep in a folder of its own, ``<output>/<name>``.

    Args:
        plan: What is asked.
        address: Of the Ray cluster; see :func:`cluster.connection.connect`.

    Returns:
        The summary, as ``--json`` prints it.

    Raises:
        ConfigError: The space, the resources or the name are refused; nothing was started.
        Interrupted: Ctrl-C, SIGTERM or the stop file; trials have checkpointed.
        NfbmrError: Features cannot be extracted, or no trial finished.
    """
    paths = SweepPaths(plan.config.output / plan.name)
    if paths.plan.exists():
        raise ConfigError(
            "there is a sweep of this name already",
            where=paths.root,
            fix=f"go on with it: nfbmr sweep --resume {plan.name}; or choose another --name",
        )
    return carry_out(plan, paths, address=address)


def find_sweep(name_or_path: str, output: Path) -> SweepPaths:
    """The folder of an earlier sweep; see :func:`tune.paths.find`."""
    return find(name_or_path, output, SweepPaths, what="sweep")


def carry_out(plan: SweepPlan, paths: SweepPaths, *, address: str | None = None) -> dict[str, Any]:
    """Do a sweep, or what is left of it; see :func:`new_sweep`."""
    began = time.monotonic()
    plan.space.check(plan.config)
    if len(plan.start) > plan.trials:
        raise ConfigError(
            f"{len(plan.start)} points to start with, and {plan.trials} trials", where="--start"
        )
    with StopRequest() as stop, only_driver(paths), on_cluster(plan.resources, plan.config, address):
        read_data(plan.config)  # refused before the name is taken
        plan.write(paths.plan)
        paths.stop.unlink(missing_ok=True)  # of an earlier driver
        parent = ParentRecord(paths, plan.config)
        parent.begin(plan.asked(), plan.config)
        status: Status = "failed"
        summary: dict[str, Any] = {}
        try:
            with stop_when(lambda: stop.requested or paths.stop.exists()) as asked:
                passes = extract_everything(plan, paths, asked)
            study = Study(paths, plan, lookahead=plan.resources.concurrent or 2)
            study.remember_passes(passes)
            borrow(study)
            _search(study, parent, stop)
            tested = _score_best(study, stop)
            summary = summarise(study, tested, seconds=time.monotonic() - began)
            write_tables(study, paths)
            write_json(paths.summary, summary)
            if study.best is None:
                raise _nothing_finished(study)
            status = "finished"
        except (Interrupted, KeyboardInterrupt) as stopped:
            status = "killed"
            raise Interrupted(
                "the sweep is stopped; trials have checkpointed",
                where=paths.root,
                fix=f"go on with: nfbmr sweep --resume {_how_to_name(plan, paths)}",
            ) from stopped
        finally:
            parent.end(summary, status)
    return summary


# -- features


def extract_everything(plan: SweepPlan, paths: SweepPaths, stop: StopRequest) -> dict[str, float]:
    """Extract what any trial may ask for; taps of one backbone and preprocessing in a single pass.

    A cluster of several machines does it together; one machine does it in this process.

    Args:
        plan: What is asked.
        paths: Of the sweep.
        stop: Asks to stop.

    Returns:
        Seconds by :func:`pass_key`.

    Raises:
        NfbmrError: Images, backbone, taps or weights that cannot be used: before the first trial.
        Interrupted: A stop was asked for; what is extracted is stored.
    """
    wanted = plan.space.feature_configs(plan.config)
    taps = sum(len(features.taps) for features in wanted)
    log.info("features: %d taps in %d passes, before the first trial", taps, len(wanted))
    seconds = _extracted(plan, paths, wanted, stop)
    return {pass_key(features): took for features, took in zip(wanted, seconds, strict=True)}


def _extracted(
    plan: SweepPlan, paths: SweepPaths, wanted: Sequence[FeatureConfig], stop: StopRequest
) -> list[float]:
    if plan.resources.backend == "ray":
        from cluster.training import extract, spare_workers

        gpus = 1.0 if execution_of(plan.resources).gpus else 0.0
        workers = spare_workers(gpus)
        if workers > 1:
            log.info("features: %d workers extract them", workers)
            return extract(
                plan.config,
                wanted,
                stop,
                workers=workers,
                folder=paths.root / "extraction",
                again=f"nfbmr sweep --resume {_how_to_name(plan, paths)}",
                gpus_per_worker=gpus,
            )
    return extract_all(plan.config, wanted, stop)


# -- the search


class Driven:
    """The study's trials on their way: with their cost, their progress and the parent's record."""

    def __init__(
        self, study: Study, parent: ParentRecord, progress: Progress, limit: int | None = None
    ) -> None:
        self._study, self._parent, self._progress = study, parent, progress
        self._left = limit

    def next(self) -> Task | None:
        """The next trial."""
        if self._left == 0:
            return None
        task = self._study.next()
        if task is not None:
            self._left = None if self._left is None else self._left - 1
            self._progress.started()
        return task

    def report(self, key: str, step: int, metrics: Mapping[str, float]) -> bool:
        """An epoch ended."""
        return self._study.report(key, step, metrics)

    def done(self, outcome: Outcome) -> None:
        """A trial ended."""
        outcome = with_cost(outcome, self._study)
        self._study.done(outcome)
        error = self._study.error_of(outcome.key)
        if error is not None and outcome.state == "finished":  # without the number that was searched for
            outcome = replace(outcome, state="failed", error=error)
        self._parent.outcome(outcome)
        best = self._study.best
        value = self._study.value_of(outcome.key)
        self._progress.ended(
            outcome.key,
            outcome.state,
            value,
            None if best is None else (best.values[0], f"{best.number:04d}"),
            error,
        )


def _search(study: Study, parent: ParentRecord, stop: StopRequest) -> None:
    """Run trials until all are done or the time is spent."""
    plan, began = study.plan, time.monotonic()
    if not study.has_more:
        log.info("all %d trials are done already", plan.trials)
        return
    standing = Standing(plan.trials, before=sum(study.counts.values()) - study.counts["unfinished"])
    if standing.before:
        log.info("done already: %d of %d trials", standing.before, plan.trials)
    with Progress(standing) as progress:
        how = execution_of(plan.resources)
        if plan.resources.gpus == "auto" and how.backend == "ray":
            how = _probe(study, parent, progress, how, stop)
        if how.time_budget is not None:  # less what the probe took of it
            how = replace(how, time_budget=max(0.0, how.time_budget - (time.monotonic() - began)))
        execute(Driven(study, parent, progress), how, stop, stop_file=study.paths.stop)
    budget = plan.resources.time_budget
    spent = budget is not None and time.monotonic() - began >= budget
    if stop.requested or (study.paths.stop.exists() and not spent):
        raise Interrupted("stopped", where=study.paths.root)
    if spent and progress.standing.done < plan.trials:
        log.info(
            "%s spent: %d of %d trials are done", duration(budget or 0), progress.standing.done, plan.trials
        )


def with_cost(outcome: Outcome, study: Study) -> Outcome:
    """Add ``cost`` to a finished trial's summary: its parameters, and its latency where that is asked for."""
    if outcome.state != "finished" or outcome.summary is None:
        return outcome
    from nfbmr.methods.cost import latency_ms, parameters_of

    summary = dict(outcome.summary)
    cost: dict[str, float] = {"parameters": parameters_of(summary)}
    if "latency" in study.plan.objectives:
        try:
            cost["latency_ms"] = latency_ms(RunPaths(Path(summary["run_dir"])).model)
        except Exception as error:  # a GPU that trials have filled, say: the others go on
            log.warning("the latency of trial %s cannot be measured: %s", outcome.key, error)
    return replace(outcome, summary=summary | {"cost": cost})


# -- the best


class _Single:
    """One task, and how it ended: a :class:`tune.tasks.Tasks`."""

    def __init__(self, task: Task) -> None:
        self._task: Task | None = task
        self.outcome: Outcome | None = None

    def next(self) -> Task | None:
        task, self._task = self._task, None
        return task

    def report(self, key: str, step: int, metrics: Mapping[str, float]) -> bool:
        return False

    def done(self, outcome: Outcome) -> None:
        self.outcome = outcome


def _score_best(study: Study, stop: StopRequest) -> Mapping[str, Any] | None:
    """Go on with the best trial's run to its end: the one time that its test set is read.

    Its checkpoints are whole, so nothing is trained again; report and model are recorded with it.
    """
    best = study.best
    if best is None:
        return None
    finished = RunPaths(study.paths.trial(best.number)).summary
    if finished.exists():
        summary: dict[str, Any] = read_json(finished)
        return summary
    log.info("best: trial %04d, %s %.4f; its test set is scored now, once", best.number,
             study.plan.goals[0].name, best.values[0])  # fmt: skip
    single = _Single(study.task_of(best, test=True))
    how = replace(execution_of(study.plan.resources), concurrent=1, time_budget=None)
    execute(single, how, stop, stop_file=study.paths.stop)
    outcome = single.outcome
    if outcome is None or outcome.state == "interrupted":
        raise Interrupted("stopped before the best trial was scored", where=study.paths.root)
    if outcome.summary is None:
        raise NfbmrError(
            f"the best trial, {best.number:04d}, could not be scored on the test set: {outcome.error}",
            where=study.paths.trial(best.number),
            fix=f"mend what is wrong, then: nfbmr sweep --resume {study.plan.name}",
        )
    return outcome.summary


# -- the rest


def _probe(
    study: Study, parent: ParentRecord, progress: Progress, how: Execution, stop: StopRequest
) -> Execution:
    """Run one trial alone on a whole GPU; what it took sizes the others."""
    if how.gpus == 0:
        log.info("gpu=auto: the cluster has no GPU; trials run on processors")
        return how
    peaks = study.gpu_peaks()
    if not peaks:
        log.info("gpu=auto: the first trial runs alone and is measured")
        execute(
            Driven(study, parent, progress, limit=1),
            replace(how, concurrent=1),
            stop,
            stop_file=study.paths.stop,
        )
        peaks = study.gpu_peaks()
    if not peaks:
        log.warning("gpu=auto: the first trial could not be measured; each gets a whole GPU")
        return how
    share = max(gpu_share(peak, total) for peak, total in peaks)
    log.info("gpu=auto: each trial gets %g of a GPU", share)
    return replace(how, gpus=share)


def borrow(study: Study) -> None:
    """Learn from the sweep that the plan names, where it names one."""
    if study.plan.warm_start is None:
        return
    from tune.warm_start import trials_of

    found = trials_of(study.plan.warm_start, study.plan)
    added = study.borrow(found)
    log.info(
        "warm start: %d trials of %s, %d outside this space", added, study.plan.warm_start, len(found) - added
    )


def _nothing_finished(study: Study) -> NfbmrError:
    counts = study.counts
    errors = [trial.user_attrs["error"] for trial in study.trials if "error" in trial.user_attrs]
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none was begun"
    return NfbmrError(
        f"no trial finished ({told})" + (f"; the first error was: {errors[0]}" if errors else ""),
        where=study.paths.root,
        fix="mend what is wrong, or give it more time, and begin another sweep",
    )


def _how_to_name(plan: SweepPlan, paths: SweepPaths) -> str:
    """What ``--resume`` takes: the name where the folder is in its usual place."""
    return plan.name if paths.root == Path("runs") / plan.name else str(paths.root)
