"""Trials of an earlier sweep in a study: the sampler learns from them, and nothing else counts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tune.search.dimension import Settings
from tune.search.space import Space
from tune.search.trial_facts import SETTINGS

if TYPE_CHECKING:
    import optuna

IMPORTED_FROM = "from"
"""Name of the attribute that holds which run of the earlier sweep a trial is."""


def is_own(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial was not imported from an earlier sweep."""
    return IMPORTED_FROM not in trial.user_attrs


def has_imported(study: optuna.Study, params: Mapping[str, Any]) -> bool:
    """Whether a trial of an earlier sweep is this point, in the sampler's terms."""
    trials = study.get_trials(deepcopy=False)
    return any(trial.params == dict(params) for trial in trials if not is_own(trial))


def import_trials(
    study: optuna.Study, space: Space, earlier: Iterable[tuple[Settings, Sequence[float], str]]
) -> int:
    """Add trials of another sweep as finished ones.

    Args:
        study: That learns from them.
        space: That is searched.
        earlier: Settings, objective values and the run each comes from; one that is here already, or outside
            the space, is left out.

    Returns:
        How many were added.
    """
    import optuna

    there = {trial.user_attrs.get(IMPORTED_FROM) for trial in study.get_trials(deepcopy=False)}
    added = 0
    for settings, values, source in earlier:
        params = space.params_of(settings)
        if params is None or source in there:
            continue
        trial = optuna.trial.create_trial(
            params=params,
            distributions=space.distributions(params),
            values=list(values),
            user_attrs={IMPORTED_FROM: source, SETTINGS: space.settings_of(params)},
        )
        study.add_trial(trial)
        added += 1
    return added
