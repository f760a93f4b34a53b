"""An Optuna study on disk that hands out trials: who suggests, who is pruned, what a kill leaves undone.

The journal is the only memory. What is suggested for a trial depends on it, on the sweep's seed and on how
many trials were asked for so far, and on nothing that a process holds: a sweep that was killed and is gone on
with suggests what it would have suggested anyway.
"""

from __future__ import annotations

import logging
import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfbmr.config import FeatureConfig
from nfbmr.methods.table import sharing_key
from nfbmr.resolve import digest
from tune.children import child_name, child_tags
from tune.paths import SweepPaths
from tune.plan import SweepPlan
from tune.space import Settings, with_settings
from tune.suggesting import open_study, sampler_of
from tune.tasks import Outcome, Task

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

GRACE = 3
"""No trial is pruned before so many are finished."""

SETTINGS, ERROR, PRUNED_AT, BORROWED, PASSES = "settings", "error", "pruned_at", "from", "passes"
"""Names of Optuna's user attributes."""


class Study:
    """The trials of a sweep: a :class:`tune.tasks.Tasks`.

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
        self.study = open_study(paths, plan)
        self._lookahead = lookahead if plan.sampler in ("qmc", "random") else 0
        self._trials: dict[str, optuna.Trial] = {}
        self._tasks: dict[str, Task] = {}
        self._ready: list[Task] = []
        self._busy: dict[str, str] = {}
        self._enqueue()
        for frozen in self._frozen("RUNNING"):
            self._ready.append(self._again(frozen))
        if self._ready:
            keys = ", ".join(task.key for task in self._ready)
            log.info("begun and not ended, so first to go on: %s", keys)

    # -- Tasks

    def next(self) -> Task | None:
        """The next trial: those left undone first, then new ones up to the number asked for."""
        while self._wants_another() and self.asked < self.plan.trials:
            self._ready.append(self._ask())
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
        scaled = scaled_step(step, self._tasks[key].epochs, self._base_epochs)
        if scaled in self._frozen_trial(trial).intermediate_values:
            return False
        trial.report(float(objective), scaled)
        # Asked in any case: the pruner writes down what the trial reached at each rung.
        if trial.should_prune() and self.count("COMPLETE") >= GRACE:
            trial.set_user_attr(PRUNED_AT, step)
            return True
        return False

    def done(self, outcome: Outcome) -> None:
        """Tell Optuna how a trial ended; an interrupted one stays running, for whoever goes on."""
        from optuna.trial import TrialState

        self._busy.pop(outcome.key, None)
        if outcome.state == "interrupted":
            return
        trial = self._trials[outcome.key]
        error, values = outcome.error, None
        if outcome.state == "finished":
            values = self._values(outcome.summary or {})
            if values is None:
                error = "an objective is undefined: " + ", ".join(goal.number for goal in self.plan.goals)
        trial.set_user_attr("seconds", round(outcome.seconds, 3))
        for name, value in _facts(outcome.summary or {}).items():
            trial.set_user_attr(name, value)
        if error is not None:
            trial.set_user_attr(ERROR, error)
        if values is not None:
            self.study.tell(trial.number, values)
        elif outcome.state == "pruned":
            self.study.tell(trial.number, state=TrialState.PRUNED)
        else:
            self.study.tell(trial.number, state=TrialState.FAIL)

    # -- what there is to say of it

    @property
    def asked(self) -> int:
        """Trials handed out or about to be, ended or not."""
        return sum(1 for trial in self._own() if trial.state.name != "WAITING")

    @property
    def has_more(self) -> bool:
        """Whether there is anything left to run."""
        return bool(self._ready) or self.asked < self.plan.trials

    def count(self, state: str) -> int:
        """Own trials in a state, by Optuna's name of it."""
        return sum(1 for trial in self._own() if trial.state.name == state)

    @property
    def counts(self) -> dict[str, int]:
        """Own trials by state, in this project's words."""
        found = Counter(trial.state.name for trial in self._own())
        words = {"finished": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "unfinished": "RUNNING"}
        return {word: found[state] for word, state in words.items()}

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
        found: str | None = self._frozen_trial(self._trials[key]).user_attrs.get(ERROR)
        return found

    @property
    def best(self) -> optuna.trial.FrozenTrial | None:
        """The finished trial with the best first objective; of equals the one with fewest parameters.

        Of several objectives the others come before the parameters, so that it is on the front.
        """

        def quality(trial: optuna.trial.FrozenTrial) -> tuple[float, ...]:
            return *self._scores(trial), -trial.user_attrs.get("parameters", math.inf), -trial.number

        return max(self._frozen("COMPLETE"), key=quality, default=None)

    @property
    def pareto(self) -> list[optuna.trial.FrozenTrial]:
        """Finished trials that no other beats in every objective; empty for a single objective."""
        if len(self.plan.objectives) == 1:
            return []
        finished = self._frozen("COMPLETE")  # Optuna's own front would have borrowed trials on it
        scores = [self._scores(trial) for trial in finished]

        def beaten(own: tuple[float, ...]) -> bool:
            return any(other != own and all(map(operator.ge, other, own)) for other in scores)

        return [trial for trial, own in zip(finished, scores, strict=True) if not beaten(own)]

    def task_of(self, trial: optuna.trial.FrozenTrial, *, test: bool = False) -> Task:
        """A trial as something to run.

        Args:
            trial: Of this study.
            test: Whether the test set is scored at its end.
        """
        key, settings = f"{trial.number:04d}", dict(trial.user_attrs[SETTINGS])
        name = child_name(key, settings)
        return Task(
            key=key,
            config=with_settings(self.plan.config, settings),
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
        alone = (
            passes.get(pass_key(self.task_of(trial).config.features), 0.0)
            for trial in self.trials
            if trial.state.name in ("COMPLETE", "PRUNED")
        )
        return max(0.0, sum(alone) - sum(passes.values()))

    def gpu_peaks(self) -> list[tuple[float, float]]:
        """Bytes that trials took on a GPU at most, and what their GPU has."""
        found = (trial.user_attrs.get("gpu_memory") for trial in self.trials)
        return [(gpu["peak_bytes"], gpu["total_bytes"]) for gpu in found if gpu]

    # -- asking

    def _ask(self) -> Task:
        """A new trial; waiting points come first."""
        self._seed(self.asked)
        return self._settle(self.study.ask())

    def _again(self, frozen: optuna.trial.FrozenTrial) -> Task:
        """A trial that an earlier driver left running; what it had not chosen yet is chosen now."""
        import optuna

        self._seed(frozen.number)
        return self._settle(optuna.Trial(self.study, frozen._trial_id))

    def _settle(self, trial: optuna.Trial) -> Task:
        if SETTINGS not in trial.user_attrs:
            trial.set_user_attr(SETTINGS, self.space.suggest(trial))
        task = self.task_of(self._frozen_trial(trial))
        self._trials[task.key], self._tasks[task.key] = trial, task
        return task

    def _seed(self, asked: int) -> None:
        """Make the sampler anew: what it draws depends on the seed and on how many were asked for."""
        self.study.sampler = sampler_of(self.plan, asked)

    def _wants_another(self) -> bool:
        """Whether to ask for one more: there is none, or all wait for flows that others are training."""
        if len(self._ready) > self._lookahead:
            return False
        return all(map(self._clashes, self._ready))

    def _clashes(self, task: Task) -> bool:
        """Whether a running trial trains the flow that this one wants."""
        return sharing_key(task.config) in self._busy.values()

    def _enqueue(self) -> None:
        """Points to begin with and the trials of an earlier sweep; once, whatever is killed in between."""
        for point in self.plan.start:
            self.study.enqueue_trial(dict(point), skip_if_exists=True)

    def borrow(self, found: Iterable[tuple[Settings, Sequence[float], str]]) -> int:
        """Add trials of another sweep as finished ones, for the sampler to learn from.

        Args:
            found: Settings, objective values and the run each comes from; one that is here already, or
                outside the space, is left out.

        Returns:
            How many were added.
        """
        import optuna

        there = {trial.user_attrs.get(BORROWED) for trial in self.study.get_trials(deepcopy=False)}
        added = 0
        for settings, values, source in found:
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

    @property
    def _base_epochs(self) -> int:
        config, folder = self.plan.config, self.paths.root
        return Task("", config, folder, "", "", "").epochs

    def _own(self) -> list[optuna.trial.FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if BORROWED not in trial.user_attrs]

    def _frozen(self, state: str) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self._own() if trial.state.name == state]

    def _frozen_trial(self, trial: optuna.Trial) -> optuna.trial.FrozenTrial:
        return self.study.get_trials(deepcopy=False)[trial.number]

    def _scores(self, trial: optuna.trial.FrozenTrial) -> tuple[float, ...]:
        """Objectives of a finished trial, each the higher the better."""
        pairs = zip(self.plan.goals, trial.values, strict=True)
        return tuple(value if goal.maximise else -value for goal, value in pairs)

    def _values(self, summary: Mapping[str, Any]) -> list[float] | None:
        """The objectives of a finished trial; None where one is undefined."""
        from tune.parent import numbers_of

        numbers = numbers_of(summary)
        values = [numbers.get(goal.number, math.nan) for goal in self.plan.goals]
        return values if all(map(math.isfinite, values)) else None


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


def _facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the tables say of a trial, besides its objective."""
    if not summary:
        return {}
    return {
        "parameters": sum((summary.get("parameters") or {}).values()),
        "flow_reused": bool((summary.get("reused") or {}).get("flow")),
        "saved_seconds": round(sum((summary.get("saved_seconds") or {}).values()), 3),
        "validation": (summary.get("metrics") or {}).get("validation", {}).get("image_auroc"),
        "gpu_memory": summary.get("gpu_memory"),
    }
