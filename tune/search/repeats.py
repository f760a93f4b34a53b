"""Points that a search suggests again: which trial had each first, and how a later one ends as that did.

A trial is decided by its settings and the sweep's seed, so running a point again would find the same numbers.
A trial with the settings of an earlier one is not run: it ends with that one's reports, values and state. If
the earlier one is still running the later waits for it. A trial that failed says nothing of its point (a
machine may have been to blame), so a point that only failed is run again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from nfbmr.evaluation.summary import RunSummary
from nfbmr.paths import RunPaths
from nfbmr.resolve import digest
from tune.execution.trial_spec import TrialResult, TrialSpec
from tune.records.children import STATUS, record_of
from tune.records.paths import SweepPaths
from tune.search.plan import Objective
from tune.search.space import Space
from tune.search.trial_facts import COPIED, COPY_OF, ERROR, SETTINGS, is_copy
from tune.search.untried import UntriedPoints

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


FEW = 10_000
"""Points of a space that are looked through for those that nobody has tried."""


class Copied(NamedTuple):
    """A trial that was not run, as an earlier one had its point.

    Attributes:
        task: What would have been run.
        outcome: How it ended, as the earlier one did.
    """

    task: TrialSpec
    outcome: TrialResult


class Repeats:
    """Which points a sweep has tried, by their settings.

    Args:
        trials: The sweep's own so far, by number.

    Example:
        >>> repeats = Repeats([])
        >>> repeats.first(0, {"flow.blocks": 4}), repeats.first(1, {"flow.blocks": 8})
        (None, None)
        >>> repeats.first(2, {"flow.blocks": 4}), repeats.has({"flow.blocks": 6})
        (0, False)
    """

    def __init__(self, trials: Iterable[FrozenTrial]) -> None:
        self._first: dict[str, int] = {}
        self._tried: set[str] = set()
        self._untried: UntriedPoints | None = None
        self._looked = False  # for those of a small space
        self._waiting: defaultdict[int, list[int]] = defaultdict(list)
        for trial in trials:
            if SETTINGS not in trial.user_attrs:
                continue
            settings = trial.user_attrs[SETTINGS]
            self._tried.add(digest(settings))
            if trial.state.name in ("COMPLETE", "PRUNED") and not is_copy(trial):
                self.first(trial.number, settings)

    def has(self, settings: Mapping[str, Any]) -> bool:
        """Whether a trial has had these settings, however it ended."""
        return digest(settings) in self._tried

    def untried(self, space: Space) -> UntriedPoints | None:
        """Points of a small space that no trial has had; None for a large one.

        Args:
            space: Which; the same at every call.
        """
        if not self._looked:
            self._looked, self._untried = True, UntriedPoints.of(space, FEW, self._tried)
        return self._untried

    def first(self, number: int, settings: Mapping[str, Any]) -> int | None:
        """The earlier trial with these settings, which has not failed; None: this one is the first.

        Args:
            number: Number of the trial that has them now.
            settings: Dotted keys to values.
        """
        key = digest(settings)
        self._tried.add(key)
        if self._untried is not None:
            self._untried.tried(key)
        first = self._first.setdefault(key, number)
        return None if first == number else first

    def wait(self, number: int, first: int) -> None:
        """A trial ends when the one that it repeats does."""
        self._waiting[first].append(number)

    def failed(self, trial: FrozenTrial) -> None:
        """A trial failed: whoever has its point next is run."""
        key = digest(trial.user_attrs[SETTINGS])
        if self._first.get(key) == trial.number:
            del self._first[key]

    def released(self, first: int) -> list[int]:
        """Numbers of the trials that waited for one that has ended; each is named once."""
        return self._waiting.pop(first, [])


def end_as(study: optuna.Study, trial: optuna.Trial, now: FrozenTrial, first: FrozenTrial) -> None:
    """End a trial as an earlier one with the same point has ended.

    It reports what that one did, up to the epoch where it was pruned, and reaches the same values. The pruner
    is not asked, so that a point does not compete with itself.

    Args:
        study: Study of both.
        trial: The later one, which is running.
        now: The same, as the storage has it: an attempt of its own may have reported something.
        first: The earlier one, finished or pruned.
    """
    from optuna.trial import TrialState

    for step, value in sorted(first.intermediate_values.items()):
        if step not in now.intermediate_values:
            trial.report(value, step)
    facts = {name: first.user_attrs[name] for name in COPIED if name in first.user_attrs}
    for name, fact in {**facts, "seconds": 0.0, COPY_OF: first.number}.items():
        trial.set_user_attr(name, fact)
    if first.state == TrialState.COMPLETE:
        study.tell(trial, first.values)
    else:
        study.tell(trial, state=TrialState.PRUNED)


def copied_outcome(
    key: str, earlier: FrozenTrial, goals: Iterable[Objective], paths: SweepPaths
) -> TrialResult:
    """How a trial ended that repeats an earlier one: with its summary and costs, and in no time.

    Where the earlier one failed this one did as well, which had waited for it.

    Args:
        key: Key of the later trial.
        earlier: Ended.
        goals: Objectives of the study.
        paths: Paths of the sweep.
    """
    of = f"{earlier.number:04d}"
    if earlier.state.name == "FAIL":
        error = f"its point is that of trial {of}, which failed: {earlier.user_attrs.get(ERROR)}"
        return TrialResult(key, "failed", error=error, copy_of=of)
    finished = earlier.state.name == "COMPLETE"
    fitted = RunPaths(paths.trial(earlier.number)).fitted
    values = zip(goals, earlier.values if finished else (), strict=False)
    return TrialResult(
        key,
        "finished" if finished else "pruned",
        RunSummary.read(fitted) if finished and fitted.exists() else None,
        cost={
            goal.number.removeprefix("cost."): value
            for goal, value in values
            if goal.number.startswith("cost.")
        },
        copy_of=of,
    )


def unrecorded(
    trials: Iterable[FrozenTrial], goals: Iterable[Objective], paths: SweepPaths
) -> Iterator[tuple[FrozenTrial, TrialResult]]:
    """Trials that ended as earlier ones did, and have no whole record: the driver was killed in between.

    Args:
        trials: The sweep's own.
        goals: Objectives of the study.
        paths: Paths of the sweep.

    Yields:
        Each with how it ended, by number.
    """
    by_number = {trial.number: trial for trial in trials}
    for number, trial in sorted(by_number.items()):
        if not is_copy(trial) or not trial.state.is_finished():
            continue
        outcome = copied_outcome(f"{number:04d}", by_number[trial.user_attrs[COPY_OF]], goals, paths)
        if record_of(RunPaths(paths.trial(number)).journal).status != STATUS[outcome.state]:
            yield trial, outcome
