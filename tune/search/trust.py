"""How far a sweep's choice can be trusted: which finished trials its objective cannot tell from the best.

All trials are judged on the same validation images, so what tells two apart is the standard error of their
*difference*, part by part (:func:`nfbmr.scoring.ranking.difference_error`). Where a run did not keep what
each part adds, the standard error of the best one's own interval stands in; it is larger. Two of them are
allowed for, since the best of many trials is partly the luckiest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from nfbmr.errors import OutputError
from nfbmr.paths import RunPaths, read_json
from nfbmr.scoring.ranking import difference_error
from tune.records.paths import SweepPaths
from tune.search.trial_facts import validation_auroc

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

ERRORS = 2
"""Standard errors that two trials must differ by to be told apart."""

_MEASURES = {
    "paired": "two standard errors of the paired difference",
    "interval": "two standard errors of the best",
    None: "an error that is not known",
}


@dataclass(frozen=True)
class Trust:
    """Which trials are as good as the best, as far as validation data can tell.

    Attributes:
        finished: Trials that were compared.
        near: Numbers of those within two standard errors of the best; the best itself comes first.
        error: What the standard error is of: the ``paired`` difference, the best one's own ``interval``, or
            None where neither is known; near are then those that reach the same.
        anchored: Whether the base configuration is one of those near, so that the choice is no guess
            (:mod:`tune.search.choice`).
    """

    finished: int
    near: tuple[int, ...]
    error: Literal["paired", "interval"] | None
    anchored: bool = False

    @property
    def measure(self) -> str:
        """What trials were told apart by, in words."""
        return _MEASURES[self.error]

    @property
    def sentence(self) -> str:
        """What it means.

        Example:
            >>> print(Trust(12, (3, 0, 7), "paired").sentence)
            3 of 12 finished trials cannot be told from the best (within two standard errors of the paired \
difference): the choice among them is a guess.
            >>> Trust(1, (0,), "paired").sentence
            'One trial finished: there was nothing to choose among.'
        """
        if self.finished == 1:
            return "One trial finished: there was nothing to choose among."
        if self.error is None:
            return (
                "How many of the finished trials cannot be told from the best is not known: they have no "
                "intervals (evaluation.bootstrap=0)."
            )
        if len(self.near) == 1:
            return f"The best of {self.finished} finished trials leads the others by over {self.measure}."
        guess = "" if self.anchored else ": the choice among them is a guess"
        return (
            f"{len(self.near)} of {self.finished} finished trials cannot be told from the best (within "
            f"{self.measure}){guess}."
        )


def trust_of(paths: SweepPaths, trials: Sequence[FrozenTrial], best: FrozenTrial, confidence: float) -> Trust:
    """Compare finished trials with the best one, by the first objective: an AUROC, the higher the better.

    Args:
        paths: Paths of the sweep: what each part adds to a trial's AUROC lies in its folder.
        trials: The finished ones.
        best: Among them.
        confidence: Confidence of the intervals that trials have.
    """
    import torch

    of_best = _influence(paths, best)
    spare, auroc = None, validation_auroc(best)
    if auroc.has_interval:
        spare = (auroc.high - auroc.low) / (2 * NormalDist().inv_cdf((1 + confidence) / 2))
    near, pairs = [best.number], []
    for trial in trials:
        if trial.number == best.number:
            continue
        error, influence = None, _influence(paths, trial)
        if of_best is not None and influence is not None and of_best.keys() == influence.keys():
            both = [
                torch.tensor([values[unit] for unit in sorted(of_best)]) for values in (of_best, influence)
            ]
            error = difference_error(*both)
        pairs.append(error is not None)
        error = error if error is not None else spare or 0.0
        if best.values[0] - trial.values[0] <= ERRORS * error:
            near.append(trial.number)
    if all(pairs) and of_best is not None:
        return Trust(len(trials), tuple(near), "paired")
    return Trust(len(trials), tuple(near), None if spare is None else "interval")


def _influence(paths: SweepPaths, trial: FrozenTrial) -> Mapping[str, float] | None:
    try:
        values: Mapping[str, float] = read_json(RunPaths(paths.trial(trial.number)).influence)
    except OutputError:  # an earlier version's
        return None
    return values
