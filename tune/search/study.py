"""An Optuna study on disk that hands out trials: who suggests, who is pruned, what a kill leaves undone.

The journal is the only memory. What is suggested for a trial depends on it, on the sweep's seed and on how
many trials were asked for so far, and on nothing that a process holds: a sweep that was killed and is gone on
with suggests what it would have suggested anyway.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nfbmr.methods.registry import sharing_key
from nfbmr.resolve import digest
from tune.execution.trial_spec import TrialResult, TrialSpec
from tune.records.children import child_name, child_tags
from tune.records.paths import SweepPaths
from tune.search.dimension import Settings
from tune.search.history import first_front
from tune.search.imported_trials import import_trials, is_own
from tune.search.plan import SweepPlan
from tune.search.repeats import Copied, Repeats, copied_outcome, end_as, unrecorded
from tune.search.samplers import STARTUP, base_epochs, open_study, sampler_of, scaled_step
from tune.search.space import features_of, pass_key
from tune.search.trial_facts import COPY_OF, ERROR, SETTINGS, facts_of, is_copy, method_of

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

GRACE = 3
"""No trial is pruned before so many of its method were run to their end."""

PRUNED_AT, PASSES = "pruned_at", "passes"
"""Names of Optuna's user attributes."""


class Study:
    """The trials of a sweep: a :class:`tune.execution.trial_spec.TrialSource`.

    Opening the study of an earlier driver goes on with it: trials that it left running are handed out again
    before any other, with their parameters, numbers and folders. A trial with the point of an earlier one is
    not handed out, but ends as that one did (:mod:`tune.search.repeats`).

    Args:
        paths: Paths of the sweep; the caller holds its lock.
        plan: What was asked.
        lookahead: Trials that may be asked for beyond the next, so that two which want the same flow need
            not run at once; only where the sampler does not learn.
    """

    def __init__(self, paths: SweepPaths, plan: SweepPlan, *, lookahead: int = 0) -> None:
        import optuna

        self.paths, self.plan, self.space = paths, plan, plan.space
        self._base_point = plan.base_point
        self.study, self._storage = open_study(paths, plan)
        self._storage.follow(plan.name, is_own)
        self._history = self._storage.history
        self._lookahead = lookahead if plan.sampler in ("qmc", "random") else 0
        self._trials: dict[str, optuna.Trial] = {}
        self._tasks: dict[str, TrialSpec] = {}
        self._ready: list[TrialSpec] = []
        self._busy: dict[str, str] = {}
        self._enqueued = False
        trained, own_trials = self._trained(), self._own_trials()
        self._best = max(trained, key=self._quality, default=None)
        self._trained_of = Counter(map(method_of, trained))
        self._repeats = Repeats(own_trials)
        self._copies = [Copied(self.task_of(t), how) for t, how in unrecorded(own_trials, plan.goals, paths)]
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        for frozen in own_trials:
            if frozen.state.name == "RUNNING":  # what it had not chosen yet is chosen now
                self._seed(frozen.number)
                trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, frozen.number)
                self._offer(optuna.Trial(self.study, trial_id))
        if self._ready:
            log.info("begun, not ended, so first to go on: %s", ", ".join(task.key for task in self._ready))

    # -- Tasks

    def next(self) -> TrialSpec | None:
        """The next trial: those left undone first, then new ones up to the number asked for."""
        if not self._enqueued:  # points to begin with, but for those that the study has already
            for point in self.plan.points:
                self.study.enqueue_trial(dict(point), skip_if_exists=True)
            self._enqueued = True
        # One more where there is none, or all wait for flows that others are training.
        while (
            len(self._ready) <= self._lookahead
            and all(map(self._clashes, self._ready))
            and self.asked < self.plan.trials
        ):
            self._seed(self.asked)
            self._offer(self.study.ask())  # waiting points come first
        if not self._ready:
            return None
        task = next((task for task in self._ready if not self._clashes(task)), self._ready[0])
        self._ready.remove(task)
        self._busy[task.key] = sharing_key(task.config)
        return task

    def take_copies(self) -> list[Copied]:
        """Trials that were ended without a run since the last call."""
        copies, self._copies = self._copies, []
        return copies

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
            if worse and self._trained_of[method_of(trial)] >= GRACE and trial.params != self._base_point:
                trial.set_user_attr(PRUNED_AT, step)
                return True
        return False

    def done(self, outcome: TrialResult) -> None:
        """Tell Optuna how a trial ended; an interrupted one stays running, for whoever goes on."""
        from optuna.trial import TrialState

        self._busy.pop(outcome.key, None)
        if outcome.state == "interrupted":
            return
        trial, error = self._trials[outcome.key], outcome.error
        values: list[float] | None = None
        if outcome.state == "finished":
            numbers = outcome.numbers()
            values = [numbers.get(goal.number, math.nan) for goal in self.plan.goals]
            if not all(map(math.isfinite, values)):
                values = None
                error = "an objective is undefined: " + ", ".join(goal.number for goal in self.plan.goals)
        facts: dict[str, Any] = {"seconds": round(outcome.seconds, 3)}
        if outcome.copy_of is not None:
            facts[COPY_OF] = int(outcome.copy_of)
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
        self._ended(self._frozen_trial(trial))

    # -- what there is to say of it

    @property
    def asked(self) -> int:
        """Trials handed out or about to be, ended or not."""
        return self._history.counts.total() - self._history.counts["WAITING"]

    @property
    def has_more(self) -> bool:
        """Whether there is anything left to run, or to tell of."""
        return bool(self._ready or self._copies) or self.asked < self.plan.trials

    def count(self, state: str) -> int:
        """Own trials in a state, by Optuna's name of it."""
        return self._history.counts[state]

    @property
    def untold(self) -> int:
        """Trials that :meth:`take_copies` has yet to give."""
        return len(self._copies)

    @property
    def counts(self) -> dict[str, int]:
        """Own trials by state, in this project's words."""
        words = {"finished": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "unfinished": "RUNNING"}
        return {word: self.count(state) for word, state in words.items()}

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """This sweep's own trials that were begun, by number."""
        return [trial for trial in self._own_trials() if trial.state.name != "WAITING"]

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
        """The trial run to its end with the best first objective; of equals that with fewest parameters.

        Of several objectives the others come before the parameters, so that it is on the front.
        """
        return self._best

    @property
    def base_trial(self) -> optuna.trial.FrozenTrial | None:
        """The first run of the base configuration, however it ended; None where nothing is anchored."""
        first = next((trial for trial in self.trials if trial.params == self._base_point), None)
        if first is None or not is_copy(first):
            return first
        return self._storage.numbered(first.user_attrs[COPY_OF])

    @property
    def pareto(self) -> list[optuna.trial.FrozenTrial]:
        """Finished trials that no other beats in every objective; empty for a single objective."""
        if len(self.plan.objectives) == 1:
            return []
        finished = self._trained()  # Optuna's own front would have imported trials on it, and points twice
        if not finished:
            return []
        front = first_front(-np.array([self._scores(trial) for trial in finished]))
        return [finished[i] for i in front]

    def task_of(self, trial: optuna.trial.FrozenTrial, *, test: bool = False) -> TrialSpec:
        """A trial as something to run.

        Args:
            trial: Trial of this study.
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
        return sum(1 for _ in self._served())

    def saved_by_passes(self) -> float:
        """Seconds that a pass for every trial would have taken, beyond the passes there were."""
        passes: dict[str, float] = self.study.user_attrs.get(PASSES, {})
        keys: dict[str, str] = {}  # many trials, few sorts of features
        alone = 0.0
        for trial in self._served():
            settings = features_of(trial.user_attrs[SETTINGS])
            name = digest(settings)
            if name not in keys:
                keys[name] = pass_key(self.plan.config_of(settings).features)
            alone += passes.get(keys[name], 0.0)
        return max(0.0, alone - sum(passes.values()))

    def _served(self) -> Iterator[optuna.trial.FrozenTrial]:
        """Trials that were run, and looked for their features in the store."""
        ended = (trial for trial in self.trials if trial.state.name in ("COMPLETE", "PRUNED"))
        return (trial for trial in ended if not is_copy(trial))

    def gpu_peaks(self) -> list[tuple[float, float]]:
        """Bytes that trials took on a GPU at most, and what their GPU has."""
        measured = (trial.user_attrs.get("gpu_memory") for trial in self.trials)
        return [(gpu["peak_bytes"], gpu["total_bytes"]) for gpu in measured if gpu]

    # -- asking

    def _offer(self, trial: optuna.Trial) -> None:
        """Settle a trial's point: it is run, or ends as the earlier one that has the point already."""
        with contextlib.ExitStack() as stack:  # what is chosen is written in one piece
            stack.enter_context(self._storage.together())
            if self.plan.sampler == "tpe":  # it looks at a bounded history
                stack.enter_context(self._storage.narrowed())
            if SETTINGS not in trial.user_attrs:
                trial.set_user_attr(SETTINGS, self.space.suggest(trial))
            task = self.task_of(self._frozen_trial(trial))
            self._trials[task.key], self._tasks[task.key] = trial, task
        now = self._frozen_trial(trial)
        first = self._repeats.first(trial.number, now.user_attrs[SETTINGS])
        if first is None:
            self._ready.append(task)
        elif (earlier := self._storage.numbered(first)).state.name == "RUNNING":
            self._repeats.wait(trial.number, first)
        else:
            self._copy(task.key, earlier)

    def _copy(self, key: str, earlier: optuna.trial.FrozenTrial) -> None:
        """End a trial as an earlier one with its point ended; where that failed, it failed as well."""
        trial, outcome = self._trials[key], copied_outcome(key, earlier, self.plan.goals, self.paths)
        if outcome.state == "failed":
            self.done(outcome)
        else:
            with self._storage.together():
                end_as(self.study, trial, self._frozen_trial(trial), earlier)
            self._ended(self._frozen_trial(trial))
        self._copies.append(Copied(self._tasks[key], outcome))

    def _ended(self, trial: optuna.trial.FrozenTrial) -> None:
        """Take notice of a trial's end, and end those that waited for it."""
        if trial.state.name == "COMPLETE" and not is_copy(trial):
            self._trained_of[method_of(trial)] += 1
            self._best = trial if self._best is None else max(self._best, trial, key=self._quality)
        elif trial.state.name == "FAIL":
            self._repeats.failed(trial)
        for number in self._repeats.released(trial.number):
            self._copy(f"{number:04d}", trial)

    def _seed(self, asked: int) -> None:
        """Make the sampler anew: what it draws depends on the seed and on how many were asked for."""
        from tune.search.new_points import NewPointSampler

        crowd = self._history.crowd()
        self.study.sampler = NewPointSampler(
            self.space,
            self._repeats,
            lambda again: sampler_of(self.plan, asked, crowd, again),
            (self.plan.config.seed, asked),
            self._storage.good_points if self.plan.sampler == "tpe" and asked >= STARTUP else None,
        )

    def _clashes(self, task: TrialSpec) -> bool:
        """Whether a running trial trains the flow that this one wants."""
        return sharing_key(task.config) in self._busy.values()

    def import_trials(self, earlier: Iterable[tuple[Settings, Sequence[float], str]]) -> int:
        """Add trials of another sweep as finished ones; see :mod:`tune.search.imported_trials`."""
        return import_trials(self.study, self.space, earlier)

    # -- reading

    def _own_trials(self) -> list[optuna.trial.FrozenTrial]:
        return list(filter(is_own, self.study.get_trials(deepcopy=False)))

    def _trained(self) -> list[optuna.trial.FrozenTrial]:
        """Those that were run to their end: an earlier one's copy has nothing in its folder."""
        return [t for t in self._own_trials() if t.state.name == "COMPLETE" and not is_copy(t)]

    def _frozen_trial(self, trial: optuna.Trial) -> optuna.trial.FrozenTrial:
        return self._storage.numbered(trial.number)

    def _quality(self, trial: optuna.trial.FrozenTrial) -> tuple[float, ...]:
        return *self._scores(trial), -trial.user_attrs.get("parameters", math.inf), -trial.number

    def _scores(self, trial: optuna.trial.FrozenTrial) -> tuple[float, ...]:
        """Objectives of a finished trial, each the higher the better."""
        pairs = zip(self.plan.goals, trial.values, strict=True)
        return tuple(value if goal.maximise else -value for goal, value in pairs)
