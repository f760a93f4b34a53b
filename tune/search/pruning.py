"""Pruning where a sweep searches methods: a trial is compared with trials of its own method alone."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FrozenTrial

from tune.search.trial_facts import method_of


class WithinMethod(optuna.pruners.BasePruner):
    """Another pruner's decision, made among the trials of the same method.

    What an epoch's own map finds says how a method comes on, not how it will end: the levels of one are
    joined after the last epoch, and another has no more than its map. Where `method` is not searched, all
    trials are of one method.

    Args:
        pruner: Which decides.
    """

    def __init__(self, pruner: optuna.pruners.BasePruner) -> None:
        self._pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial ends here."""
        return self._pruner.prune(_SameMethod(study, method_of(trial)), trial)  # type: ignore[arg-type]


class _SameMethod:
    """A study that shows the trials of one method."""

    def __init__(self, study: optuna.Study, method: object) -> None:
        self._study, self._method = study, method

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        """Those of the method; arguments as Optuna's."""
        return [t for t in self._study.get_trials(*args, **kwargs) if method_of(t) == self._method]
