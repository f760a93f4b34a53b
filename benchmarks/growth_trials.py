"""What a trial's bookkeeping costs as a study grows, beside raw Optuna on the same journal.

A journal of random trials is made up to each count, with all that a sweep writes of them; then a sweep's
study and raw Optuna (its own TPE sampler with the same options, its own journal) go on with a copy of it,
trial by trial in turns. Nothing is trained.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from nfbmr.config import Config
from nfbmr.evaluation.summary import DatasetFacts, RunSummary, SelectionFacts
from nfbmr.nesting import flatten
from tune.execution.trial_spec import TrialResult, TrialSpec
from tune.records.parent import ParentRecord
from tune.records.paths import SweepPaths
from tune.search.plan import SweepPlan
from tune.search.samplers import STARTUP
from tune.search.space import Space
from tune.search.study import Study
from tune.search.sweep import TrackedTrials
from tune.search.trial_facts import SETTINGS

WARM = 2
"""Trials of each way at each count that are not counted: the first ones read what later ones remember."""

DISTINCT = 1000
"""Made trials of which longer journals consist, again and again."""

SPACES = {
    "default": None,
    "conditional": """
        method: {choice: [nf, nf-bmr]}
        flow.blocks: {int: [2, 8], step: 2}
        flow.hidden: {int: [64, 512], log: true}
        flow.kernels: {choice: [[1], [3]]}
        train.flow.lr: {float: [2e-4, 4e-3], log: true}
        mapping.residual_blocks: {int: [1, 4], when: {method: nf-bmr}}
        mapping.latent: {int: [64, 512], log: true, when: {method: nf-bmr}}
    """,
}


class Silent:
    """Takes the place of the line of progress."""

    def started(self) -> None:
        """Say nothing."""

    def ended(self, *_: Any) -> None:
        """Say nothing."""

    def repeated(self, *_: Any) -> None:
        """Say nothing."""


class Memory(BaseJournalBackend):
    """A journal that nobody waits for, to make long ones with."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Everything after the first so many."""
        yield from self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries, as a file would give them back."""
        self.logs += [json.loads(json.dumps(log)) for log in logs]


def space_named(name: str) -> Space:
    """A space that is measured on."""
    text = SPACES[name]
    return Space.load("default") if text is None else Space.parse(text, name)


def plan_of(root: Path, space: Space, trials: int = 10**6) -> SweepPlan:
    """A sweep by TPE in a folder; no other end than whoever asks."""
    config = Config.model_validate(
        {"data": {"path": str(root)}, "tracking": {"kind": "folder"}, "output": str(root)}
    )
    return SweepPlan("grown", config, space, trials)


def value_of(settings: Mapping[str, Any]) -> float:
    """A made-up AUROC: smooth in every number, with a preference among the words."""
    total = 0.0
    for name, value in settings.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            total += math.cos(math.log(abs(value) + 1e-6) + len(name))
        else:
            total += (sum(map(ord, f"{name}{value}")) % 7) / 7
    return 0.5 + 0.49 * math.tanh(total / max(1, len(settings)))


def finished(task: TrialSpec, value: float) -> TrialResult:
    """A trial's result, without the trial."""
    reached = {"value": value, "low": value - 0.05, "high": min(1.0, value + 0.05)}
    summary = RunSummary(
        run_id=task.run_id, run_dir=str(task.folder), method=task.config.method,
        dataset=DatasetFacts(name="none"), split="none", seed=0, test_peeked=False,
        metrics={"validation": {"image_auroc": reached}}, threshold=0.0,
        selection=SelectionFacts(
            on="validation", auroc=None, parts=(), weights=(), reduction="", false_reject_rate=0.05
        ),
        timings={}, config={}, parameters={"flow": 1000}, reused={"flow": False}, saved_seconds={"flow": 0.0},
    )  # fmt: skip
    return TrialResult(task.key, "finished", summary, seconds=1.0)


def journals(
    plan: SweepPlan,
    counts: Sequence[int],
    folder: Path,
    value: Callable[[Mapping[str, Any]], float] = value_of,
) -> dict[int, Path]:
    """Journals of random trials, one a count, as a sweep would have written them.

    Args:
        plan: Of the sweep.
        counts: Numbers of trials.
        folder: Where they go, made here.
        value: Of a trial's settings.
    """
    folder.mkdir(parents=True)
    memory = Memory()
    study = optuna.create_study(
        study_name=plan.name,
        storage=JournalStorage(memory),
        directions=["maximize" if goal.maximise else "minimize" for goal in plan.goals],
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    head = len(memory.logs)
    ends = [head]
    for _ in range(min(max(counts), DISTINCT)):
        trial = study.ask()
        settings = plan.space.suggest(trial)
        facts = {
            SETTINGS: settings, "seconds": 1.0, "parameters": 1000, "flow_reused": False,
            "saved_seconds": 0.0, "validation": {"value": 0.5, "low": 0.4, "high": 0.6},
            "gpu_memory": None,
        }  # fmt: skip
        for name, fact in facts.items():
            trial.set_user_attr(name, fact)
        study.tell(trial, value(settings))
        ends.append(len(memory.logs))
    made: dict[int, Path] = {}
    for count in sorted(counts):
        made[count] = folder / f"{count}.journal"
        with made[count].open("w", encoding="utf-8") as file:
            for log in memory.logs[:head]:
                file.write(json.dumps(log) + "\n")
            for number in range(count):
                source = number % DISTINCT
                for log in memory.logs[ends[source] : ends[source + 1]]:
                    shifted = log | {"trial_id": number} if "trial_id" in log else log
                    file.write(json.dumps(shifted) + "\n")
    return made


class Ours:
    """A sweep's bookkeeping: the study alone, or with all records of trial and parent."""

    def __init__(self, root: Path, journal: Path, space: Space, *, records: bool) -> None:
        plan = plan_of(root, space)
        paths = SweepPaths(root / plan.name)
        paths.root.mkdir(parents=True)
        shutil.copy(journal, paths.study)
        began = time.perf_counter()
        self.study = Study(paths, plan)
        self.opened = time.perf_counter() - began
        self._source: Any = self.study
        self._parent: ParentRecord | None = None
        if records:
            self._parent = ParentRecord(paths, plan.config)
            self._parent.begin(plan.asked(), plan.config)
            self._source = TrackedTrials(self.study, self._parent, Silent())  # type: ignore[arg-type]

    def trial(self) -> None:
        """One trial: asked for, handed out, ended."""
        task = self._source.next()
        self._source.done(finished(task, value_of(flatten(task.config.model_dump()))))

    def close(self) -> None:
        """End the parent's record."""
        if self._parent is not None:
            self._parent.end(None, "finished")


class Raw:
    """The same with Optuna's own calls and nothing else."""

    def __init__(self, root: Path, journal: Path, space: Space) -> None:
        root.mkdir(parents=True)
        copy = root / "raw.journal"
        shutil.copy(journal, copy)
        sampler = optuna.samplers.TPESampler(
            seed=0, n_startup_trials=STARTUP, constant_liar=True, multivariate=True, group=space.conditional
        )
        began = time.perf_counter()
        storage = JournalStorage(JournalFileBackend(str(copy)))
        self.study = optuna.load_study(study_name="grown", storage=storage, sampler=sampler)
        self.opened = time.perf_counter() - began
        self._space = space

    def trial(self) -> None:
        """One trial: asked for, all parameters suggested, told."""
        trial = self.study.ask()
        self.study.tell(trial, value_of(self._space.suggest(trial)))

    def close(self) -> None:
        """Nothing is open."""


def measured(ways: Mapping[str, Callable[[], None]], trials: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each way, called in turns: by the clock, and of this process's CPU."""
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(WARM + trials):
        for name, way in ways.items():
            at, used = time.perf_counter(), time.process_time()
            way()
            if turn >= WARM:
                wall[name].append(time.perf_counter() - at)
                cpu[name].append(time.process_time() - used)
    return {name: {"wall_ms": 1e3 * median(wall[name]), "cpu_ms": 1e3 * median(cpu[name])} for name in ways}


def bookkeeping(root: Path, counts: Sequence[int], trials: int, space_name: str) -> list[dict[str, Any]]:
    """A row a count: what a trial costs there, in each way, and what opening the study took."""
    space = space_named(space_name)
    rows = []
    with quiet():
        made = journals(plan_of(root, space), counts, root / "journals")
        for count, journal in made.items():
            here = root / f"at-{count}"
            ways: dict[str, Ours | Raw] = {
                "raw": Raw(here / "raw", journal, space),
                "study": Ours(here / "study", journal, space, records=False),
                "sweep": Ours(here / "sweep", journal, space, records=True),
            }
            gc.collect()
            row = measured({name: way.trial for name, way in ways.items()}, trials)
            for name, way in ways.items():
                row[name]["open_s"] = way.opened
                way.close()
            ratio = row["study"]["wall_ms"] / row["raw"]["wall_ms"]
            rows.append({"space": space_name, "count": count, **row, "ratio": ratio})
            shutil.rmtree(here)
    return rows


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's word for each trial, and for options that it calls experimental or old."""
    import warnings

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings(action="ignore"):
        yield
    optuna.logging.set_verbosity(before)
