"""An Optuna study on disk that hands out trials: who suggests, who is pruned, what a kill leaves undone.

The journal is the only memory. What is suggested for a trial depends on it, on the sweep's seed and on how
many trials were asked for so far, and on nothing that a process holds: a sweep that was killed and is gone on
with suggests what it would have suggested anyway.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nfbmr.config import FeatureConfig
from nfbmr.methods.table import sharing_key
from nfbmr.resolve import digest
from tune.execution.trial_spec import TrialResult, TrialSpec
from tune.records.children import child_name, child_tags
from tune.records.paths import SweepPaths
from tune.search.dimension import Settings
from tune.search.history import first_front
from tune.search.plan import SweepPlan
from tune.search.samplers import base_epochs, open_study, sampler_of
from tune.search.space import features_of
from tune.search.trial_facts import facts_of

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

GRACE = 3
"""No trial is pruned before so many are finished."""

SETTINGS, ERROR, PRUNED_AT, BORROWED, PASSES = "settings", "error", "pruned_at", "from", "passes"
"""Names of Optuna's user attributes."""


class Study:
    """The trials of a sweep: a :class:`tune.execution.trial_spec.TrialSource`.

    Opening the study of an earlier driver goes on with it: trials that it left running are handed out again
    before any other, with their parameters, numbers and folders.

    Args:
        paths: Of the sweep; the caller holds its lock.
        plan: What was asked.
        lookahead: Trials that may be asked for beyond the next, so that two which want the same flow need
            not run at once; only where the sampler does not learn.
    """

    def __init__(self, paths: SweepPaths, plan: SweepPlan, *, lookahead: int = 0) -> None:
        self.paths, self.plan, self.space = paths, plan, plan.space
        self._base_point = plan.base_point
        self.study, self._storage = open_study(paths, plan)
        self._storage.follow(plan.name, _is_own)
        self._history = self._storage.history
        self._lookahead = lookahead if plan.sampler in ("qmc", "random") else 0
        self._trials: dict[str, optuna.Trial] = {}
        self._tasks: dict[str, TrialSpec] = {}
        self._ready: list[TrialSpec] = []
        self._busy: dict[str, str] = {}
        self._enqueued = False
        self._best = max(self._frozen("COMPLETE"), key=self._quality, default=None)
        for frozen in self._frozen("RUNNING"):
            self._ready.append(self._again(frozen))
        if self._ready:
            keys = ", ".join(task.key for task in self._ready)
            log.info("begun and not ended, so first to go on: %s", keys)

    # -- Tasks

    def next(self) -> TrialSpec | None:
        """The next trial: those left undone first, then new ones up to the number asked for."""
        self._enqueue()
        while self._wants_another() and self.asked < self.plan.trials:
            self._seed(self.asked)
            with self._suggesting():
                self._ready.append(self._settle(self.study.ask()))  # waiting points come first
        if not self._ready:
            return None
        task = next((task for task in self._ready if not self._clashes(task)), self._ready[0])
        self._ready.remove(task)
        self._busy[task.key] = sharing_key(task.config)
        return task

    def report(self, key: str, step: int, metrics: Mapping[str, float]) -> bool:
        """Tell Optuna of a validated epoch; whether successive halving ends the trial here.

        Steps are scaled to the epochs of the base configuration, so that trials of other lengths are compared
        at the same share of their course.
        """
        trial, objective = self._trials[key], metrics.get("objective")
        if PRUNED_AT in trial.user_attrs:  # decided before the driver was killed
            return True
        if not self.plan.prune or len(self.plan.objectives) > 1 or objective is None:
            return False
        scaled = scaled_step(step, self._tasks[key].epochs, base_epochs(self.plan))
        if scaled in self._frozen_trial(trial).intermediate_values:
            return False
        with self._storage.together():
            trial.report(float(objective), scaled)
            # Asked in any case: the pruner writes down what the trial reached at each rung.
            worse = trial.should_prune()
            if worse and self.count("COMPLETE") >= GRACE and trial.params != self._base_point:
                trial.set_user_attr(PRUNED_AT, step)
                return True
        return False

    def done(self, outcome: TrialResult) -> None:
        """Tell Optuna how a trial ended; an interrupted one stays running, for whoever goes on."""
        from optuna.trial import TrialState

        self._busy.pop(outcome.key, None)
        if outcome.state == "interrupted":
            return
        trial = self._trials[outcome.key]
        error, values = outcome.error, None
        if outcome.state == "finished":
            values = self._values(outcome)
            if values is None:
                error = "an objective is undefined: " + ", ".join(goal.number for goal in self.plan.goals)
        facts: dict[str, Any] = {"seconds": round(outcome.seconds, 3)}
        if outcome.summary is not None:
            facts |= facts_of(outcome.summary)
        if error is not None:
            facts[ERROR] = error
        with self._storage.together():
            for name, value in facts.items():
                trial.set_user_attr(name, value)
            if values is not None:
                self.study.tell(trial, values)
            elif outcome.state == "pruned":
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, state=TrialState.FAIL)
        if values is not None:
            ended = self._frozen_trial(trial)
            self._best = ended if self._best is None else max(self._best, ended, key=self._quality)

    # -- what there is to say of it

    @property
    def asked(self) -> int:
        """Trials handed out or about to be, ended or not."""
        return self._history.counts.total() - self._history.counts["WAITING"]

    @property
    def has_more(self) -> bool:
        """Whether there is anything left to run."""
        return bool(self._ready) or self.asked < self.plan.trials

    def count(self, state: str) -> int:
        """Own trials in a state, by Optuna's name of it."""
        return self._history.counts[state]

    @property
    def counts(self) -> dict[str, int]:
        """Own trials by state, in this project's words."""
        words = {"finished": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "unfinished": "RUNNING"}
        return {word: self.count(state) for word, state in words.items()}

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """This sweep's own trials that were begun, by number."""
        return [trial for trial in self._own() if trial.state.name != "WAITING"]

    def value_of(self, key: str) -> float | None:
        """The first objective of a trial, where it has one."""
        trial = self._frozen_trial(self._trials[key])
        return trial.values[0] if trial.state.name == "COMPLETE" else None

    def error_of(self, key: str) -> str | None:
        """What was wrong with a trial that failed."""
        error: str | None = self._frozen_trial(self._trials[key]).user_attrs.get(ERROR)
        return error

    @property
    def best(self) -> optuna.trial.FrozenTrial | None:
        """The finished trial with the best first objective; of equals the one with fewest parameters.

        Of several objectives the others come before the parameters, so that it is on the front.
        """
        return self._best

    @property
    def base_trial(self) -> optuna.trial.FrozenTrial | None:
        """The first trial with the base configuration, however it ended; None where nothing is anchored."""
        if self._base_point is None:
            return None
        return next((trial for trial in self.trials if trial.params == self._base_point), None)

    @property
    def pareto(self) -> list[optuna.trial.FrozenTrial]:
        """Finished trials that no other beats in every objective; empty for a single objective."""
        if len(self.plan.objectives) == 1:
            return []
        finished = self._frozen("COMPLETE")  # Optuna's own front would have borrowed trials on it
        if not finished:
            return []
        front = first_front(-np.array([self._scores(trial) for trial in finished]))
        return [finished[i] for i in front]

    def task_of(self, trial: optuna.trial.FrozenTrial, *, test: bool = False) -> TrialSpec:
        """A trial as something to run.

        Args:
            trial: Of this study.
            test: Whether the test set is scored at its end.
        """
        key, settings = f"{trial.number:04d}", dict(trial.user_attrs[SETTINGS])
        name = child_name(key, settings)
        return TrialSpec(
            key=key,
            config=self.plan.config_of(settings),
            folder=self.paths.trial(trial.number),
            run_id=f"{self.plan.name}-{key}",
            run_name=name,
            parent_id=self.plan.name,
            test=test,
            tags=child_tags(self.plan.name, key, settings),
        )

    # -- what trials share

    def remember_passes(self, seconds: Mapping[str, float]) -> None:
        """Keep what extraction took, by :func:`pass_key`; a pass that found all stored does not count."""
        known: dict[str, float] = self.study.user_attrs.get(PASSES, {})
        longest = {key: max(value, known.get(key, 0.0)) for key, value in seconds.items()}
        self.study.set_user_attr(PASSES, known | longest)

    @property
    def feature_hits(self) -> int:
        """Trials that found all their features in the store."""
        return sum(1 for trial in self.trials if trial.state.name in ("COMPLETE", "PRUNED"))

    def saved_by_passes(self) -> float:
        """Seconds that a pass for every trial would have taken, beyond the passes there were."""
        passes: dict[str, float] = self.study.user_attrs.get(PASSES, {})
        keys: dict[str, str] = {}  # many trials, few sorts of features
        alone = 0.0
        for trial in self.trials:
            if trial.state.name in ("COMPLETE", "PRUNED"):
                settings = features_of(trial.user_attrs[SETTINGS])
                name = digest(settings)
                if name not in keys:
                    keys[name] = pass_key(self.plan.config_of(settings).features)
                alone += passes.get(keys[name], 0.0)
        return max(0.0, alone - sum(passes.values()))

    def gpu_peaks(self) -> list[tuple[float, float]]:
        """Bytes that trials took on a GPU at most, and what their GPU has."""
        measured = (trial.user_attrs.get("gpu_memory") for trial in self.trials)
        return [(gpu["peak_bytes"], gpu["total_bytes"]) for gpu in measured if gpu]

    # -- asking

    def _again(self, frozen: optuna.trial.FrozenTrial) -> TrialSpec:
        """A trial that an earlier driver left running; what it had not chosen yet is chosen now."""
        import optuna

        self._seed(frozen.number)
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, frozen.number)
        with self._suggesting():
            return self._settle(optuna.Trial(self.study, trial_id))

    @contextlib.contextmanager
    def _suggesting(self) -> Iterator[None]:
        """What is chosen meanwhile is written in one piece; TPE looks at a bounded history."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._storage.together())
            if self.plan.sampler == "tpe":
                stack.enter_context(self._storage.narrowed())
            yield

    def _settle(self, trial: optuna.Trial) -> TrialSpec:
        if SETTINGS not in trial.user_attrs:
            trial.set_user_attr(SETTINGS, self.space.suggest(trial))
        task = self.task_of(self._frozen_trial(trial))
        self._trials[task.key], self._tasks[task.key] = trial, task
        return task

    def _seed(self, asked: int) -> None:
        """Make the sampler anew: what it draws depends on the seed and on how many were asked for."""
        self.study.sampler = sampler_of(self.plan, asked, self._history.crowd)

    def _wants_another(self) -> bool:
        """Whether to ask for one more: there is none, or all wait for flows that others are training."""
        if len(self._ready) > self._lookahead:
            return False
        return all(map(self._clashes, self._ready))

    def _clashes(self, task: TrialSpec) -> bool:
        """Whether a running trial trains the flow that this one wants."""
        return sharing_key(task.config) in self._busy.values()

    def _enqueue(self) -> None:
        """Points to begin with, the base configuration first; once, whatever is killed in between.

        What the study has already, of an earlier sweep for one, is not run again.
        """
        if not self._enqueued:
            for point in self.plan.points:
                self.study.enqueue_trial(dict(point), skip_if_exists=True)
        self._enqueued = True

    def has_imported(self, params: Mapping[str, Any]) -> bool:
        """Whether a trial of an earlier sweep is this point, in the sampler's terms."""
        trials = self.study.get_trials(deepcopy=False)
        return any(trial.params == dict(params) for trial in trials if BORROWED in trial.user_attrs)

    def import_trials(self, earlier: Iterable[tuple[Settings, Sequence[float], str]]) -> int:
        """Add trials of another sweep as finished ones, for the sampler to learn from.

        Args:
            earlier: Settings, objective values and the run each comes from; one that is here already, or
                outside the space, is left out.

        Returns:
            How many were added.
        """
        import optuna

        there = {trial.user_attrs.get(BORROWED) for trial in self.study.get_trials(deepcopy=False)}
        added = 0
        for settings, values, source in earlier:
            params = self.space.params_of(settings)
            if params is None or source in there:
                continue
            trial = optuna.trial.create_trial(
                params=params,
                distributions=self.space.distributions(params),
                values=list(values),
                user_attrs={BORROWED: source, SETTINGS: self.space.settings_of(params)},
            )
            self.study.add_trial(trial)
            added += 1
        return added

    # -- reading

    def _own(self) -> list[optuna.trial.FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return list(filter(_is_own, trials))

    def _frozen(self, state: str) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self._own() if trial.state.name == state]

    def _frozen_trial(self, trial: optuna.Trial) -> optuna.trial.FrozenTrial:
        return self._storage.numbered(trial.number)

    def _quality(self, trial: optuna.trial.FrozenTrial) -> tuple[float, ...]:
        return *self._scores(trial), -trial.user_attrs.get("parameters", math.inf), -trial.number

    def _scores(self, trial: optuna.trial.FrozenTrial) -> tuple[float, ...]:
        """Objectives of a finished trial, each the higher the better."""
        pairs = zip(self.plan.goals, trial.values, strict=True)
        return tuple(value if goal.maximise else -value for goal, value in pairs)

    def _values(self, outcome: TrialResult) -> list[float] | None:
        """The objectives of a finished trial; None where one is undefined."""
        numbers = outcome.numbers()
        values = [numbers.get(goal.number, math.nan) for goal in self.plan.goals]
        return values if all(map(math.isfinite, values)) else None


def _is_own(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial was not borrowed from an earlier sweep."""
    return BORROWED not in trial.user_attrs


def pass_key(features: FeatureConfig) -> str:
    """Equal for feature configurations that one pass of the backbone serves."""
    return digest(features.model_dump(mode="json", exclude={"taps"}))


def scaled_step(step: int, epochs: int, base: int) -> int:
    """A trial's step on the scale of the base configuration.

    Example:
        >>> [scaled_step(step, 60, 30) for step in (1, 2, 3, 60)]
        [1, 1, 2, 30]
    """
    return math.ceil(step * base / max(epochs, 1))
