"""The driver's end of Ray Tune: it places trials, restarts them, and keeps nothing that matters.

Tune asks a searcher for the next trial and tells callbacks what happened; all three classes here pass that on
to :class:`tune.execution.trial_spec.TrialSource` through one :class:`TrialBroker`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import ray.tune
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from cluster.ray_environment import passed_on
from nfbmr import run as runs
from nfbmr.errors import ConfigError
from nfbmr.paths import RunPaths
from nfbmr.records import close_abandoned
from nfbmr.trackers import kind_of
from tune.execution.actor import WorkerEnv, actor_at
from tune.execution.run_trial import ExecuteRun
from tune.execution.settings import Execution
from tune.execution.stop_condition import StopCondition
from tune.execution.trial_spec import TrialResult, TrialSource, TrialSpec

log = logging.getLogger(__name__)

T = TypeVar("T")

DRIVER_CPU = 0.01
"""Of a trial whose work is done by workers of its own: 0 is refused, 1 would be taken from them."""


def run_on_ray(
    tasks: TrialSource, how: Execution, condition: StopCondition, execute_run: ExecuteRun | None = None
) -> None:
    """Run tasks on the cluster that this process is connected to.

    Args:
        tasks: What to run; called from this thread alone.
        how: With which resources.
        condition: When to stop. Tune's files go beside its file, into ``ray/``.
        execute_run: Does a run; by default in the trial's actor, or in as many workers as `how` says.

    Raises:
        ConfigError: No node has the resources of a trial.
    """
    fits(how)
    if execute_run is None:
        execute_run = runs.execute_run
        if how.workers > 1:
            from cluster.training import trainer

            execute_run = partial(
                trainer.execute_run, workers=how.workers, gpus_per_worker=how.gpus, cpus_per_worker=how.cpus
            )
    folder = condition.file.parent.resolve()
    shutil.rmtree(folder / "ray", ignore_errors=True)
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "1000")  # the broker decides how many
    broker = TrialBroker(tasks, how, condition)
    env = WorkerEnv(
        folder=Path.cwd(),
        stop_file=condition.file.resolve(),
        execute_run=execute_run,
        threads=int(os.environ.get("OMP_NUM_THREADS", max(1, int(how.cpus)))),
        environment=passed_on(),
    )
    alone = how.workers == 1
    trainable = actor_at(env, {"CPU": how.cpus, "GPU": how.gpus} if alone else {"CPU": DRIVER_CPU})
    tuner = ray.tune.Tuner(
        trainable,
        tune_config=ray.tune.TuneConfig(
            search_alg=TaskSearcher(broker),
            scheduler=PassthroughScheduler(broker),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=ray.tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            failure_config=ray.tune.FailureConfig(max_failures=0),  # the broker tries again
            # A trial's checkpoints are in its run folder.
            checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            callbacks=[ReportCallback(broker)],
            verbose=0,
        ),
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what people are told is ours
    try:
        tuner.fit()
    except TuneError:
        if broker.problem is not None:  # the planner's own error, not Tune's wrapping of its text
            raise broker.problem from None
        raise
    finally:
        broker.close()


def fits(how: Execution) -> int:
    """Trials that the cluster has room for at a time, if nobody else uses it.

    Raises:
        ConfigError: None.
    """
    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in known if node["Alive"]]
    room = sum(min(_times(node, "CPU", how.cpus), _times(node, "GPU", how.gpus)) for node in nodes)
    trials = int(room // how.workers)
    besides = ""
    if how.workers > 1:  # the trial itself takes a little beside its workers, who would wait for it for ever
        cpus = sum(node.get("CPU", 0.0) for node in nodes)
        trials = min(trials, int((cpus + 1e-9) // (how.workers * how.cpus + DRIVER_CPU)))
        besides = f", and {DRIVER_CPU:g} cpus for the trial itself"
    if trials < 1:
        has = ", ".join(sorted({f"{n.get('CPU', 0):g} cpus and {n.get('GPU', 0):g} GPUs" for n in nodes}))
        each = f"{how.cpus:g} cpus and {how.gpus:g} GPUs"
        raise ConfigError(
            f"no node has room for a trial of {each}"
            if how.workers == 1
            else f"the cluster has no room for {how.workers} workers of {each}{besides}",
            where=f"nodes have {has}",
            fix="ask for less (--resources, --workers-per-trial), or add nodes",
        )
    return trials


def _times(node: dict[str, float], name: str, amount: float) -> float:
    return math.inf if amount == 0 else (node.get(name, 0.0) + 1e-9) // amount


class TrialBroker:
    """Passes on between Tune, which knows trials by its own ids, and whoever plans them.

    A task whose worker was lost is handed out again, as a new trial of Tune's: its own way of recovery gives
    up trials whose actor dies while it takes over the next one.
    """

    def __init__(self, tasks: TrialSource, how: Execution, condition: StopCondition) -> None:
        self.condition = condition
        self.problem: BaseException | None = None
        self._tasks = tasks
        self._how = how
        self._running: dict[str, TrialSpec] = {}
        self._again: deque[TrialSpec] = deque()
        self._exhausted = False
        self._lost: Counter[str] = Counter()
        self._out_of_memory: Counter[str] = Counter()
        self._abandoned: list[TrialSpec] = []
        self._limit, self._limit_known = 1, -math.inf

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its searchers and callbacks to disk, and nobody reads them."""
        return {}

    def next(self, trial_id: str) -> TrialSpec | str | None:
        """A task; None: not now; :attr:`Searcher.FINISHED`: there are no more."""
        if self.condition.come:  # hand out nothing more; what waited for another attempt can be gone on with
            self._exhausted = True
            while self._again:
                self._abandoned.append(self._again.popleft())
                self._kept(partial(self._tasks.done, TrialResult(self._abandoned[-1].key, "interrupted")))
        limit = self._how.concurrent
        if limit is None:  # as many as the cluster has room for, which may change
            if time.monotonic() - self._limit_known > 1.0:
                try:
                    self._limit = fits(self._how)
                except ConfigError:  # the only node that had room is gone; another may come
                    self._limit = 1
                self._limit_known = time.monotonic()
            limit = self._limit
        if len(self._running) >= limit:
            return None
        task = self._again.popleft() if self._again else None
        if task is None and not self._exhausted:
            task = self._kept(self._tasks.next)
            self._exhausted = task is None
        if task is not None:
            self._running[trial_id] = task
            return task
        # While a trial runs, its worker may be lost: Tune must not take this for the end.
        return None if self._running else str(Searcher.FINISHED)

    def reported(self, trial: Trial, result: dict[str, Any]) -> None:
        """Take a trial's news out of what it reported, so that Tune need not remember them."""
        key = self._running[trial.trial_id].key
        for report in result.pop("reports", ()):
            if self._kept(partial(self._tasks.report, key, report["step"], report["metrics"])):
                cast(Any, trial.temporary_state.ray_actor).prune.remote()
        if outcome := result.pop("outcome", None):
            self._done(trial, TrialResult.from_json(json.loads(outcome)))

    def lost(self, trial: Trial) -> None:
        """A worker is gone: the task is tried again, unless that was once too often."""
        task = self._running.get(trial.trial_id)
        if task is None:
            return
        error = trial.get_pickled_error() or trial.get_error()
        memory = out_of_memory(error)
        self._lost[task.key] += 1
        self._out_of_memory[task.key] += memory
        what = "ran out of memory" if memory else "lost its worker"
        if self._lost[task.key] > self._how.retries or self._out_of_memory[task.key] > 1:
            self._abandoned.append(task)
            reason = f"{what}, after {self._lost[task.key]} attempts ({_first_line(error)})"
            self._done(trial, TrialResult(task.key, "failed", error=reason))
        else:
            log.warning("trial %s %s and is tried again (%s)", task.key, what, _first_line(error))
            del self._running[trial.trial_id]
            self._again.append(task)

    def dropped(self, trial: Trial) -> None:
        """A trial that never got its resources, and now need not start."""
        task = self._running.get(trial.trial_id)
        if task is not None:
            self._abandoned.append(task)
            self._done(trial, TrialResult(task.key, "interrupted"))

    def close(self) -> None:
        """Finish the records of trials whose workers are gone for good."""
        self._abandoned += self._running.values()
        journals = [RunPaths(task.folder).journal for task in self._abandoned]
        closed = [folder for folder in journals if folder.exists() and close_abandoned(folder)]
        if closed and any(kind_of(task.config.tracking) == "mlflow" for task in self._abandoned):
            from mlflow_server.tracking.sync import sync

            sync(closed)

    def _done(self, trial: Trial, outcome: TrialResult) -> None:
        del self._running[trial.trial_id]
        self._kept(partial(self._tasks.done, outcome))

    def _kept(self, call: Callable[[], T]) -> T:
        """Keep the planner's own error: Tune passes on its text alone."""
        try:
            return call()
        except BaseException as problem:
            self.problem = problem
            raise


class TaskSearcher(Searcher):
    """Where Tune asks for trials."""

    def __init__(self, broker: TrialBroker) -> None:
        super().__init__()
        self._broker = broker

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration: its task, as text."""
        task = self._broker.next(trial_id)
        return {"task": json.dumps(task.as_json())} if isinstance(task, TrialSpec) else task

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Known already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is to be kept."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""


class PassthroughScheduler(FIFOScheduler):
    """Starts trials as they come, without looking at all earlier ones; after a stop it starts none."""

    def __init__(self, broker: TrialBroker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._broker = broker

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose none: Tune's queue is in the right order. After a stop, drop what waits for resources."""
        if self._broker.condition.come:
            for trial in list(tune_controller.get_live_trials()):
                if trial.status == Trial.PENDING and trial.temporary_state.ray_actor is None:
                    tune_controller.stop_trial(trial)


class ReportCallback(ray.tune.Callback):
    """Where Tune tells what happened."""

    def __init__(self, broker: TrialBroker) -> None:
        self._broker = broker

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Epochs, or the end."""
        self._broker.reported(trial, result)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A worker was lost."""
        self._broker.lost(trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial is over; unless it never began, its outcome is known already."""
        self._broker.dropped(trial)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether Ray's memory monitor ended the worker."""
    return isinstance(error, ray.exceptions.OutOfMemoryError) or "memory pressure" in str(error)


def _first_line(error: BaseException | None) -> str:
    return (
        str(error).strip().splitlines()[0] if error is not None and str(error).strip() else "no reason given"
    )
