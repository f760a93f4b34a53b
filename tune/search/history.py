"""What a study knows of its trials without looking at all of them: counts, and what a sampler may look at.

TPE models the best tenth of all trials, 25 at most, against the others. The 25 are looked at whatever the
study's size; of the others, as many as a study of :data:`WINDOW` trials would have, evenly spaced over the
sweep, each with the weight of those that it stands for: without it TPE would think that less was tried than
was, and look for something new too rarely. For a single objective a suggestion then costs the same at the ten
thousandth trial as at the :data:`WINDOW`-th; for several it grows with their front. What is looked at follows
from the journal alone, in whatever order trials have ended.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import optuna

WINDOW = 350
"""Ended trials that a sampler looks at; up to so many it sees every one."""

ELITE = 25
"""The best of them, all of which are looked at: as many as Optuna's TPE calls good, at most."""


class History:
    """The trials of a study by state, and the window that a sampler looks at.

    Args:
        maximise: For each objective whether more is better.
        is_own: Whether a trial counts as one of this sweep.
    """

    def __init__(self, maximise: Sequence[bool], is_own: Callable[[optuna.trial.FrozenTrial], bool]) -> None:
        self.counts: Counter[str] = Counter()
        self._signs = np.array([-1.0 if more else 1.0 for more in maximise])
        self._is_own = is_own
        self._states: dict[int, str] = {}
        self._open: dict[str, set[int]] = {"WAITING": set(), "RUNNING": set()}
        self._ended: list[optuna.trial.FrozenTrial] = []  # by number; failed ones teach nothing
        self._numbers: list[int] = []  # of those
        self._best: list[tuple[float, int]] = []  # the better of finished trials, of a single objective
        self._best_pruned: list[tuple[tuple[float, float], int]] = []

    def update(self, trial: optuna.trial.FrozenTrial) -> None:
        """Take in a trial as it is now."""
        number, state = trial.number, trial.state.name
        before = self._states.get(number)
        if before == state:
            return
        if before in self._open:
            self._open[before].discard(number)
        if self._is_own(trial):
            self.counts[state] += 1
            if before is not None:
                self.counts[before] -= 1
        self._states[number] = state
        if state in self._open:
            self._open[state].add(number)
        elif state in ("COMPLETE", "PRUNED"):
            at = bisect_left(self._numbers, number)
            self._numbers.insert(at, number)
            self._ended.insert(at, trial)
        if state == "PRUNED":
            # How good it was, the lower the better: how far it came, then what it reached there.
            reached = (1.0, 0.0)
            if trial.intermediate_values:
                step, value = max(trial.intermediate_values.items())
                reached = -float(step), math.inf if math.isnan(value) else float(self._signs[0] * value)
            insort(self._best_pruned, (reached, number))
            del self._best_pruned[ELITE:]
        elif state == "COMPLETE" and len(self._signs) == 1:
            insort(self._best, (float(self._signs[0] * trial.values[0]), number))
            del self._best[ELITE:]

    def numbers(self, state: str) -> list[int]:
        """Numbers of trials that are waiting or running, in order."""
        return sorted(self._open[state])

    @property
    def overflows(self) -> bool:
        """Whether there are more ended trials than a sampler looks at."""
        return len(self._ended) > WINDOW

    def good(self) -> list[int]:
        """Numbers of the trials that TPE calls good, for one objective: the best tenth of the ended."""
        return [number for _, number in self._best[: math.ceil(len(self._ended) / 10)]]

    def crowd(self, size: int = WINDOW) -> float:
        """How many trials each of the window stands for, but the best; 1 where none is left out.

        Args:
            size: Of the window, as of :meth:`window`.
        """
        return max(1.0, (len(self._ended) - ELITE) / (size - ELITE))

    def window(self, size: int = WINDOW) -> list[optuna.trial.FrozenTrial]:
        """The ended trials that a sampler looks at, by number.

        Args:
            size: How many at most; more than twice :data:`ELITE`.
        """
        if len(self._ended) <= size:
            return list(self._ended)
        if len(self._signs) > 1:
            elite = self._nondominated()
        else:  # pruned ones where too few have finished
            elite = {number for _, number in self._best}
            elite |= {number for _, number in self._best_pruned[: ELITE - len(elite)]}
        best = sorted(bisect_left(self._numbers, number) for number in elite)
        count = size - len(best)
        others = len(self._ended) - len(best)
        chosen = [*best]
        passed = 0
        for i in range(count):  # by position, as a list of all the others would take longer than the rest
            at = i * others // count + passed
            while passed < len(best) and best[passed] <= at:
                passed += 1
                at += 1
            chosen.append(at)
        return [self._ended[at] for at in sorted(chosen)]

    def _nondominated(self) -> set[int]:
        """Numbers of the best fronts, as many of the last one as there is room for, evenly along it."""
        complete = [trial for trial in self._ended if trial.state.name == "COMPLETE"]
        if not complete:
            return set()
        losses_NM = np.array([trial.values for trial in complete]) * self._signs
        left = np.arange(len(complete))
        chosen: list[int] = []
        while len(left) and len(chosen) < ELITE:
            front = left[first_front(losses_NM[left])]
            along = front[np.lexsort(losses_NM[front].T[::-1])]
            count = min(len(along), ELITE - len(chosen))
            chosen += [int(along[i * len(along) // count]) for i in range(count)]
            left = np.setdiff1d(left, front)
        return {complete[i].number for i in chosen}


def weights_of(crowd: float) -> Callable[[int], np.ndarray]:
    """Optuna's weights of observations, the older the less, where each stands for several.

    Args:
        crowd: For how many, as :meth:`History.crowd` says.

    Returns:
        Of a number of observations their weights, the oldest first; up to :data:`ELITE` stand for themselves.
    """

    def weights(n: int) -> np.ndarray:
        return np.ones(n) if n <= ELITE else crowd * np.linspace(1.0 / n, 1.0, n)

    return weights


def first_front(losses_NM: np.ndarray) -> np.ndarray:
    """Which points no other beats in every number, as indices; of M numbers each, the lower the better.

    Example:
        >>> first_front(np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 2.0]])).tolist()
        [0, 1]
    """
    left = np.lexsort(losses_NM.T[::-1])
    at = 0
    while at < len(left):
        point_M = losses_NM[left[at]]
        # Kept: whatever is better somewhere, and its equals.
        keep = (losses_NM[left] < point_M).any(axis=1) | (losses_NM[left] == point_M).all(axis=1)
        at = int(keep[:at].sum()) + 1
        left = left[keep]
    return np.sort(left)
