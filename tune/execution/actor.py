"""The worker's end: a Ray Tune actor that does one task after another.

It imports Ray when it is imported; whoever imports it is about to use it.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray.tune
import torch
from ray.tune import PlacementGroupFactory

from nfbmr import run as runs
from tune.execution.run_trial import ExecuteRun, run_task
from tune.execution.stop_condition import stop_when
from tune.execution.trial_spec import TrialSpec


@dataclass(frozen=True)
class WorkerEnv:
    """What an actor has to know besides its tasks.

    Attributes:
        folder: Working directory of the driver, from which relative paths are meant.
        stop_file: Its presence asks to checkpoint and stop.
        execute_run: Does a run: in the actor itself, or in several workers.
        threads: Number of threads of torch.
        environment: Variables that trials take from the driver: the tracking server's address.
    """

    folder: Path
    stop_file: Path
    execute_run: ExecuteRun = runs.execute_run
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    def move_in(self) -> None:
        """Make this process one that works there."""
        os.environ.update({**self.environment, "OMP_NUM_THREADS": str(self.threads)})
        if self.folder.is_dir():
            os.chdir(self.folder)


AHEAD = 1
"""Validated epochs that a trial may be ahead of its verdicts."""


class TrialActor(ray.tune.Trainable):
    """Does a task, an epoch a step, and then takes over the next one.

    Ray Tune's own function trainables end a trial by ``sys.exit`` inside its report; here the trial hears the
    verdict, closes its record as pruned, and reports its outcome like any other.
    """

    env: WorkerEnv
    """Set by whoever starts the actors; see :func:`actor_at`."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first task."""
        self.env.move_in()
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Begin the next task."""
        self.config = {}  # what a trial reports is not to repeat its whole configuration
        if torch.cuda.is_available():  # elsewhere it costs half a second and gives nothing back
            gc.collect()
            torch.cuda.empty_cache()
        self._work = _Work(TrialSpec.from_json(json.loads(config["task"])), self.env)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for news: ``reports``, a list of steps and metrics; at the end ``outcome``."""
        news = self._work.news()
        if "error" in news:
            raise RuntimeError(news["error"])
        return news

    def prune(self) -> None:
        """End the task early; it hears of it in the next step."""
        self._work.prune()


def actor_at(env: WorkerEnv, resources: Mapping[str, float]) -> type[TrialActor]:
    """The class of actors that work in an environment: ``ray::Trial`` among a machine's processes.

    Args:
        env: What they have to know.
        resources: ``CPU`` and ``GPU`` of an actor.
    """
    request = PlacementGroupFactory([dict(resources)])

    class Trial(TrialActor):
        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
            return request

    Trial.env = env
    Trial.__qualname__ = Trial.__name__
    return Trial


class _Work:
    """A task in a thread, which runs one validated epoch ahead of its verdicts and no further.

    A verdict takes some ten milliseconds on its way through Ray Tune, and a short epoch is about as long: the
    next one is trained meanwhile. At the end of the last one all verdicts are waited for.
    """

    def __init__(self, task: TrialSpec, env: WorkerEnv) -> None:
        self._task = task
        self._env = env
        self._news: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._verdicts = threading.Semaphore(AHEAD)
        self._asked = 0
        self._pruned = False
        threading.Thread(target=self._run, name=f"trial {task.key}", daemon=True).start()

    def news(self) -> dict[str, Any]:
        """What happened since the last call, one thing at least."""
        if self._asked:  # whoever calls has seen what was told before
            self._verdicts.release(self._asked)
        news = [self._news.get()]
        while not self._news.empty():
            news.append(self._news.get())
        self._asked = sum(map(_wants_verdict, news))
        ends = [item for item in news if "outcome" in item]
        merged: dict[str, Any] = {"reports": [item for item in news if "outcome" not in item]}
        return merged | (ends[0] if ends else {})

    def prune(self) -> None:
        self._pruned = True

    def _run(self) -> None:
        torch.set_num_threads(self._env.threads)  # of this thread: OpenMP keeps it for each
        try:
            with stop_when(self._env.stop_file.exists) as stop:
                outcome = run_task(
                    self._task, report=self._report, stop=stop, execute_run=self._env.execute_run
                )
            self._news.put({"outcome": json.dumps(outcome.as_json()), "done": True})
        except BaseException as error:
            self._news.put({"outcome": None, "error": repr(error)})
            raise

    def _report(self, step: int, metrics: Mapping[str, float]) -> bool:
        report = {"step": step, "metrics": dict(metrics)}
        self._news.put(report)
        if _wants_verdict(report):
            for _ in range(1 if step < self._task.epochs else 1 + AHEAD):
                self._verdicts.acquire()
        return self._pruned


def _wants_verdict(news: Mapping[str, Any]) -> bool:
    return "objective" in news.get("metrics", ())
