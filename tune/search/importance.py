r"""What a sweep's objective depended on, with its uncertainty; and whether trials suffice to say so.

The importance of a dimension is the share of the objective's variance among trials that goes with it, alone
or together with others: its total Sobol index. It is measured on trials that the model of the objective (a
forest) was not made from, so a dimension that means nothing comes out around zero, and below it as often as
above:

.. math:: S_d = \frac{E[(y - f(x_{d \to shuffled}))^2] - E[(y - f(x))^2]}{2 Var(y)}

(Breiman, Machine Learning 45, 2001; the factor of two: Gregorutti et al., Statistics and Computing 27, 2017.)
Trials are drawn with replacement :data:`RESAMPLES` times, f is made of those drawn and the expectations are
over those that were not; the interval is that of the values this gives.

Shapes: N trials, C columns that dimensions are coded in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nfbmr.evaluation.intervals import Estimate
from nfbmr.text import count
from tune.search.trial_facts import is_copy

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Floats = NDArray[np.float64]
"""Real numbers, float64."""

FEWEST_TRIALS = 20
"""Finished trials that importances take at least."""
TRIALS_A_DIMENSION = 3
"""Trials that importances take: so many, and so many for each dimension. Of fewer, those that are left out of
a resample (a good third) say nothing."""

RESAMPLES, TREES, SHUFFLES = 100, 20, 5
"""Resamples of the trials, trees of a forest, and shuffles of a dimension's values."""
TAIL = 0.025
"""Share of the draws outside of an interval, at each end."""


@dataclass(frozen=True)
class Readiness:
    """Whether finished trials suffice to say what the objective depended on.

    Attributes:
        finished: Trials with an objective, those of an earlier sweep among them; of trials with one point
            the first.
        names: What was searched in them.
        varied: Those of the names that took more than one value.
    """

    finished: int
    names: tuple[str, ...]
    varied: tuple[str, ...]

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial]) -> Readiness:
        """Of all trials of a study."""
        complete = [trial for trial in trials if trial.state.name == "COMPLETE" and not is_copy(trial)]
        names = sorted({name for trial in complete for name in trial.params})
        varied = [name for name in names if len({str(trial.params.get(name)) for trial in complete}) > 1]
        return cls(len(complete), tuple(names), tuple(varied))

    @property
    def needed(self) -> int:
        """Finished trials that it takes."""
        return max(FEWEST_TRIALS, TRIALS_A_DIMENSION * len(self.names))

    @property
    def enough(self) -> bool:
        """Whether there are so many, and anything to compare."""
        return self.finished >= self.needed and bool(self.varied)

    def missing(self, begun: int, resume: str) -> str | None:
        """What is not drawn and how to get it, in a sentence; None where it is drawn.

        Args:
            begun: Trials that this took so far: those that are pruned or fail have to be counted in.
            resume: The command that goes on with the sweep.

        Example:
            >>> sentence = Readiness(4, ("a", "b"), ("a", "b")).missing(8, "nfbmr sweep --resume tiles")
            >>> sentence.partition("To get there: ")[2]
            'nfbmr sweep --resume tiles --trials 40'
        """
        if self.enough or self.finished >= self.needed:
            return None
        rate = max(1.0, begun / max(1, self.finished))
        trials = begun + math.ceil((self.needed - self.finished) * rate)
        return (
            f"What the objective depends on is not drawn (importance, slice, parallel): "
            f"{count(self.finished, 'trial')} finished, and it takes {self.needed} to tell "
            f"{count(len(self.names), 'dimension')} from chance. To get there: {resume} --trials {trials}"
        )


class Importance(NamedTuple):
    """A dimension's share of the objective's variance, with its interval of 95 %."""

    name: str
    estimate: Estimate

    @property
    def certain(self) -> bool:
        """Whether it is told from none at all."""
        return self.estimate.has_interval and self.estimate.low > 0


def importances(
    trials: Sequence[FrozenTrial], values: Sequence[float], names: Sequence[str], *, seed: int = 0
) -> list[Importance]:
    """Importances of dimensions, the largest first.

    Args:
        trials: Finished ones.
        values: The objective of each.
        names: The dimensions; one that a trial did not have counts as a value of its own.
        seed: Seed of the resamples, the forests and the shuffles.
    """
    x_NC, owner_C = coded(trials, names)
    y_N = np.asarray(values, dtype=np.float64)
    draws = np.asarray(list(_draws(x_NC, owner_C, y_N, len(names), np.random.default_rng(seed))))
    measured = []
    for d, name in enumerate(names):
        if not len(draws):
            measured.append(Importance(name, Estimate(math.nan, math.nan, math.nan)))
            continue
        low, high = np.quantile(draws[:, d], [TAIL, 1 - TAIL])
        measured.append(Importance(name, Estimate(float(draws[:, d].mean()), float(low), float(high))))
    return sorted(measured, key=lambda importance: -importance.estimate.value)


def _draws(
    x_NC: Floats, owner_C: NDArray[np.int64], y_N: Floats, dimensions: int, rng: np.random.Generator
) -> Iterator[list[float]]:
    """The importance of each dimension, resample by resample; none where the objective does not vary."""
    from sklearn.ensemble import RandomForestRegressor

    variance = float(y_N.var())
    if variance == 0:
        return
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(y_N), size=len(y_N))
        left = np.setdiff1d(np.arange(len(y_N)), drawn)
        if len(left) < 2 or np.ptp(y_N[drawn]) == 0:
            continue
        forest = RandomForestRegressor(
            TREES, min_samples_leaf=2, random_state=int(rng.integers(2**31)), n_jobs=1
        ).fit(x_NC[drawn], y_N[drawn])
        shuffled = []
        for d in range(dimensions):
            for _ in range(SHUFFLES):  # one dimension's values dealt anew among the trials
                dealt = x_NC[left].copy()
                dealt[:, owner_C == d] = x_NC[left][rng.permutation(len(left))][:, owner_C == d]
                shuffled.append(dealt)
        predicted = forest.predict(np.concatenate([x_NC[left], *shuffled])).reshape(-1, len(left))
        error, *errors = ((predicted - y_N[left]) ** 2).mean(1)
        means = np.asarray(errors).reshape(dimensions, SHUFFLES).mean(1)
        yield ((means - error) / (2 * variance)).tolist()


def coded(trials: Sequence[FrozenTrial], names: Sequence[str]) -> tuple[Floats, NDArray[np.int64]]:
    """Dimensions as numbers: (N, C), and the dimension that each column is of, (C,).

    Numbers stay numbers (their logarithm where they were drawn so), a choice is a column each.
    """
    columns: list[list[float]] = []
    owners: list[int] = []
    for d, name in enumerate(names):
        # None where a trial did not have the dimension.
        pairs: list[tuple[Any, Any]] = [(t.params.get(name), t.distributions.get(name)) for t in trials]
        if any(hasattr(distribution, "choices") for _, distribution in pairs):
            labels = [None if distribution is None else str(value) for value, distribution in pairs]
            known = sorted({label for label in labels if label is not None})
            columns += [[float(label == choice) for label in labels] for choice in known]
        else:
            numbers = [
                None if of is None else math.log(value) if getattr(of, "log", False) else float(value)
                for value, of in pairs
            ]
            lowest = min((number for number in numbers if number is not None), default=0.0)
            columns.append([lowest - 1.0 if number is None else number for number in numbers])
        owners += [d] * (len(columns) - len(owners))
    return np.asarray(columns, dtype=np.float64).T, np.asarray(owners)
