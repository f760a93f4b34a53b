"""Optuna's TPE for a space without conditions, which is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial


class FlatTPESampler(TPESampler):
    """TPE over dimensions that every trial has, all at once; it suggests what Optuna's own does.

    Optuna's looks through all trials for the dimensions that they share. A sampler that is made anew for each
    trial would do so each time, and that takes longer than suggesting.

    Args:
        space: All dimensions, by name.
        options: Options of :class:`optuna.samplers.TPESampler`, but ``multivariate``.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], **options: Any) -> None:
        super().__init__(multivariate=True, **options)
        # In the order in which Optuna's own would draw them.
        self._known = {name: space[name] for name in sorted(space) if not space[name].single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See :class:`optuna.samplers.BaseSampler`."""
        return dict(self._known)
