"""A sweep, top to bottom: check the space, extract what any trial needs, search, choose, score once.

The folder of the sweep is its only memory; going on after any kind of end is the same call again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nfbmr.data.contents import held
from nfbmr.errors import ConfigError, Interrupted, NfbmrError, NothingFinishedError
from nfbmr.evaluation.summary import RunSummary
from nfbmr.paths import RunPaths
from nfbmr.prepare import extract_all, read_data
from nfbmr.resolve import values_of
from nfbmr.stopping import StopRequest
from nfbmr.tracking import Status
from tune.execution.execute import execute
from tune.execution.progress import Progress, ProgressState, duration
from tune.execution.resources import execution_of, gpu_share, on_cluster
from tune.execution.settings import Execution
from tune.execution.stop_condition import stop_when
from tune.execution.trial_spec import TrialResult, TrialSpec
from tune.records.driver import driver_lock
from tune.records.parent import ParentRecord
from tune.records.paths import SweepPaths, find
from tune.records.sweep_summary import SweepSummary
from tune.search.choice import Choice, choose
from tune.search.imported_trials import has_imported
from tune.search.plan import SweepPlan
from tune.search.report import summarise, write_tables
from tune.search.space import pass_key
from tune.search.space_checks import check_space
from tune.search.study import Study

log = logging.getLogger(__name__)


def new_sweep(plan: SweepPlan, *, address: str | None = None) -> SweepSummary:
    """Do a sweep in a folder of its own, ``<output>/<name>``.

    Args:
        plan: What is asked.
        address: Address of the Ray cluster; see :func:`cluster.connection.connect`.

    Raises:
        ConfigError: The space, the resources or the name are refused; nothing was started.
        Interrupted: Ctrl-C, SIGTERM or the stop file; trials have checkpointed.
        NothingFinishedError: Every trial failed.
        NfbmrError: Features cannot be extracted.
    """
    paths = SweepPaths(plan.config.output / plan.name)
    if paths.plan.exists():
        raise ConfigError(
            "there is a sweep of this name already",
            where=paths.root,
            fix=f"go on with it: nfbmr sweep --resume {plan.name}; or choose another --name",
        )
    return execute_sweep(plan, paths, address=address)


def find_sweep(name_or_path: str, output: Path) -> SweepPaths:
    """The folder of an earlier sweep; see :func:`tune.records.paths.find`."""
    return find(name_or_path, output, SweepPaths, what="sweep")


def execute_sweep(plan: SweepPlan, paths: SweepPaths, *, address: str | None = None) -> SweepSummary:
    """Do a sweep, or what is left of it; see :func:`new_sweep`."""
    began = time.monotonic()
    check_space(plan.space, plan.config, plan.chosen)
    _check_points(plan)
    with (
        StopRequest() as stop,
        driver_lock(paths),
        on_cluster(plan.resources, plan.config, address),
        held(),
    ):
        read_data(plan.config)  # refused before the name is taken
        plan.write(paths.plan)
        paths.stop.unlink(missing_ok=True)  # of an earlier driver
        parent = ParentRecord(paths, plan.config, draw=lambda ended: _draw(plan, paths, ended))
        parent.begin(plan.asked(), plan.config)
        status: Status = "failed"
        summary: SweepSummary | None = None
        try:
            with stop_when(lambda: stop.requested or paths.stop.exists()) as asked:
                passes = extract_everything(plan, paths, asked)
            study = Study(paths, plan, lookahead=plan.resources.concurrent or 2)
            study.remember_passes(passes)
            import_trials(study)
            _tell_about_base(study)
            _search(study, parent, stop)
            choice = choose(study)
            tested = _score_chosen(study, choice, stop)
            summary = summarise(study, choice, tested, seconds=time.monotonic() - began)
            write_tables(study, paths, summary)
            summary.write(paths.summary)
            if choice is None:
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


def _draw(plan: SweepPlan, paths: SweepPaths, summary: SweepSummary | None) -> None:
    """Optuna's pictures of a sweep that has ended."""
    from tune.search.plots import draw_study

    near = summary.trust.trials if summary is not None and summary.trust is not None else ()
    draw_study(paths, [goal.number for goal in plan.goals], near=near)


def _check_points(plan: SweepPlan) -> None:
    """Refuse more points to begin with than there are trials."""
    if len(plan.points) <= plan.trials:
        return
    base = len(plan.points) - len(plan.start)
    raise ConfigError(
        f"{len(plan.points)} points to start with{', the base configuration first' if base else ''}, "
        f"and {plan.trials} trials",
        where="--start",
        fix=f"give --trials {len(plan.points)} or more" + (", or --no-base-trial" if base else ""),
    )


def _tell_about_base(study: Study) -> None:
    """Say where the sweep does not begin with the base configuration, though it should."""
    if not study.plan.base_trial:
        return
    point = study.plan.base_point
    if point is None:
        log.info("the space does not contain the base configuration, so no trial is it: %s",
                 "; ".join(study.space.lacks(values_of(study.plan.config))))  # fmt: skip
    elif study.base_trial is None and has_imported(study.study, point):
        log.info("the warm start has the base configuration already: it is not run again")


# -- features


def extract_everything(plan: SweepPlan, paths: SweepPaths, stop: StopRequest) -> dict[str, float]:
    """Extract what any trial may ask for; taps of one backbone and preprocessing in a single pass.

    A cluster of several machines does it together; one machine does it in this process.

    Args:
        plan: What is asked.
        paths: Paths of the sweep.
        stop: Asks to stop.

    Returns:
        Seconds by :func:`pass_key`.

    Raises:
        NfbmrError: Images, backbone, taps or weights that cannot be used: before the first trial.
        Interrupted: A stop was asked for; what is extracted is stored.
    """
    wanted = plan.space.feature_configs(plan.config, plan.chosen)
    taps = sum(len(features.taps) for features in wanted)
    log.info("features: %d taps in %d passes, before the first trial", taps, len(wanted))
    workers, gpus = 1, 0.0
    if plan.resources.backend == "ray":
        from cluster.training.trainer import extract, spare_workers

        gpus = 1.0 if execution_of(plan.resources).gpus else 0.0
        workers = spare_workers(gpus)
    if workers > 1:
        log.info("features: %d workers extract them", workers)
        seconds = extract(
            plan.config,
            wanted,
            stop,
            workers=workers,
            folder=paths.root / "extraction",
            resume_command=f"nfbmr sweep --resume {_how_to_name(plan, paths)}",
            gpus_per_worker=gpus,
        )
    else:
        seconds = extract_all(plan.config, wanted, stop)
    return {pass_key(features): took for features, took in zip(wanted, seconds, strict=True)}


# -- the search


class TrackedTrials:
    """The study's trials on their way: with their cost, their progress and the parent's record."""

    def __init__(
        self, study: Study, parent: ParentRecord, progress: Progress, limit: int | None = None
    ) -> None:
        self._study, self._parent, self._progress = study, parent, progress
        self._left = limit

    def next(self) -> TrialSpec | None:
        """The next trial."""
        if self._left == 0:
            return None
        task = self._study.next()
        self._tell_copies()
        if task is not None:
            self._left = None if self._left is None else self._left - 1
            self._progress.started()
        return task

    def report(self, key: str, step: int, metrics: Mapping[str, float]) -> bool:
        """An epoch ended."""
        return self._study.report(key, step, metrics)

    def done(self, outcome: TrialResult) -> None:
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
        self._tell_copies()

    def _tell_copies(self) -> None:
        """Record and count trials that ended as earlier ones did."""
        for task, outcome in self._study.take_copies():
            self._parent.copied(task, outcome)
            self._progress.repeated(task.key, outcome.copy_of or "", outcome.state)


def _search(study: Study, parent: ParentRecord, stop: StopRequest) -> None:
    """Run trials until all are done or the time is spent."""
    plan, began = study.plan, time.monotonic()
    if not study.has_more:
        log.info("all %d trials are done already", plan.trials)
        return
    ended = sum(study.counts.values()) - study.counts["unfinished"]
    state = ProgressState(plan.trials, before=ended - study.untold)
    if state.before:
        log.info("done already: %d of %d trials", state.before, plan.trials)
    with Progress(state) as progress:
        how = execution_of(plan.resources)
        if plan.resources.gpus == "auto" and how.backend == "ray":
            how = _probe(study, parent, progress, how, stop)
        if how.time_budget is not None:  # less what the probe took of it
            how = replace(how, time_budget=max(0.0, how.time_budget - (time.monotonic() - began)))
        execute(TrackedTrials(study, parent, progress), how, stop, stop_file=study.paths.stop)
    budget = plan.resources.time_budget
    spent = budget is not None and time.monotonic() - began >= budget
    if stop.requested or (study.paths.stop.exists() and not spent):
        raise Interrupted("stopped", where=study.paths.root)
    if spent and progress.state.done < plan.trials:
        log.info(
            "%s spent: %d of %d trials are done", duration(budget or 0), progress.state.done, plan.trials
        )


def with_cost(outcome: TrialResult, study: Study) -> TrialResult:
    """A finished trial with its cost: its parameters, and its latency where that is asked for."""
    if outcome.state != "finished" or outcome.summary is None:
        return outcome
    from nfbmr.methods.latency import latency_ms

    cost: dict[str, float] = {"parameters": outcome.summary.total_parameters}
    if "latency" in study.plan.objectives:
        try:
            cost["latency_ms"] = latency_ms(RunPaths(Path(outcome.summary.run_dir)).model)
        except Exception as error:  # a GPU that trials have filled, say: the others go on
            log.warning("the latency of trial %s cannot be measured: %s", outcome.key, error)
    return replace(outcome, cost=cost)


# -- the chosen trial


class _Single:
    """One task, and how it ended: a :class:`tune.execution.trial_spec.TrialSource`."""

    def __init__(self, task: TrialSpec) -> None:
        self._task: TrialSpec | None = task
        self.outcome: TrialResult | None = None

    def next(self) -> TrialSpec | None:
        task, self._task = self._task, None
        return task

    def report(self, key: str, step: int, metrics: Mapping[str, float]) -> bool:
        return False

    def done(self, outcome: TrialResult) -> None:
        self.outcome = outcome


def _score_chosen(study: Study, choice: Choice | None, stop: StopRequest) -> RunSummary | None:
    """Go on with the chosen trial's run to its end: the one time that its test set is read.

    Its checkpoints are whole, so nothing is trained again; report and model are recorded with it.
    """
    if choice is None:
        return None
    chosen = choice.chosen
    finished = RunPaths(study.paths.trial(chosen.number)).summary
    if finished.exists():
        return RunSummary.read(finished)
    log.info("chosen: trial %04d, %s %.4f; its test set is scored now, once", chosen.number,
             study.plan.goals[0].name, chosen.values[0])  # fmt: skip
    single = _Single(study.task_of(chosen, test=True))
    how = replace(execution_of(study.plan.resources), concurrent=1, time_budget=None)
    execute(single, how, stop, stop_file=study.paths.stop)
    outcome = single.outcome
    if outcome is None or outcome.state == "interrupted":
        raise Interrupted("stopped before the chosen trial was scored", where=study.paths.root)
    if outcome.summary is None:
        raise NfbmrError(
            f"the chosen trial, {chosen.number:04d}, could not be scored on the test set: {outcome.error}",
            where=study.paths.trial(chosen.number),
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
            TrackedTrials(study, parent, progress, limit=1),
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


def import_trials(study: Study) -> None:
    """Learn from the sweep that the plan names, where it names one."""
    if study.plan.warm_start is None:
        return
    from tune.search.warm_start import trials_of

    earlier = trials_of(study.plan.warm_start, study.plan)
    added = study.import_trials(earlier)
    log.info(
        "warm start: %d trials of %s, %d outside this space",
        added,
        study.plan.warm_start,
        len(earlier) - added,
    )


def _nothing_finished(study: Study) -> NothingFinishedError:
    counts = study.counts
    errors = [trial.user_attrs["error"] for trial in study.trials if "error" in trial.user_attrs]
    ended = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none was begun"
    return NothingFinishedError(
        f"no trial finished ({ended})" + (f"; the first error was: {errors[0]}" if errors else ""),
        where=study.paths.root,
        fix="mend what is wrong, or give it more time, and begin another sweep",
    )


def _how_to_name(plan: SweepPlan, paths: SweepPaths) -> str:
    """What ``--resume`` takes: the name where the folder is in its usual place."""
    return plan.name if paths.root == Path("runs") / plan.name else str(paths.root)
