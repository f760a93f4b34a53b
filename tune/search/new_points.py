"""Points that were not tried yet: a sampler that is asked again where it suggests an old one.

Samplers draw, and in a space of few values they draw a point again that they have seen: TPE above all, which
looks around the best ones. Running it again would tell nothing. So the sampler is asked again, with another
seed, and of TPE's candidates (it takes the best of 24) six and then one are looked at: the first that is
drawn around the good points. In a small space it is asked again once, and if that gives nothing new, a point
is drawn from those that are left; TPE for one objective is not asked again there, which would cost as much as
the first time, but one of the good trials is drawn, and one of the points that are left nearest to it.
Only where all are tried is an old one suggested, the first that is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler

from tune.search.dimension import Dimension
from tune.search.repeats import Repeats
from tune.search.space import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState

AGAIN = 4
"""Times that a sampler is asked for another point; once where those that are left can be counted."""


class NewPointSampler(BaseSampler):
    """Suggests what another sampler does, but for points that were tried.

    Without an old point in its way it suggests exactly what the other one would.

    Args:
        space: What is searched.
        tried: Which points were tried.
        sampler: Makes the sampler for each time that it is asked, counted from 0.
        seed: Seed of the choice among points that are left.
        good: The points to look for another near one of; None, or none of them: the sampler is asked.
    """

    def __init__(
        self,
        space: Space,
        tried: Repeats,
        sampler: Callable[[int], BaseSampler],
        seed: Sequence[int],
        good: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        self._space, self._tried, self._sampler, self._seed = space, tried, sampler, seed
        self._good = good or tuple
        self.first = sampler(0)

    def reseed_rng(self) -> None:
        """Nothing: seeds follow from the sweep's alone."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """See :class:`optuna.samplers.BaseSampler`."""
        self.first.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """See :class:`optuna.samplers.BaseSampler`."""
        self.first.after_trial(study, trial, state, values)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All dimensions: whole points are compared."""
        return {dimension.name: dimension.distribution() for dimension in self._space.dimensions}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point, new if there is one; dimensions that do not apply in it are left out."""
        fixed = trial.system_attrs.get("fixed_params", {})  # a point that was asked for, or a part of one
        draft = _Draft(self.first, study, trial, fixed)
        if self._is_new(draft) or fixed.keys() >= draft.params.keys():  # or all of it was asked for
            return draft.params
        untried = self._tried.untried(self._space)
        if untried is not None:
            if not untried.any(fixed):  # asking again would cost as much for every trial that is to come
                return draft.params
            draw = np.random.default_rng([*self._seed, trial.number])
            if good := self._good():
                return _one_of(untried.near(good[int(draw.integers(len(good)))], fixed), draw)
        for time in range(1, 1 + (AGAIN if untried is None else 1)):
            another = _Draft(self._sampler(time), study, trial, fixed)
            if self._is_new(another):
                return another.params
        return draft.params if untried is None else _one_of(untried.agreeing(fixed), draw)

    def _is_new(self, draft: _Draft) -> bool:
        """Let all of a point be drawn: whether nobody has tried it."""
        return not self._tried.has(self._space.chosen_by(draft.choose))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See :class:`optuna.samplers.BaseSampler`."""
        return self.first.sample_independent(study, trial, param_name, param_distribution)


class _Draft:
    """A point that a sampler draws, as Optuna's trials have it drawn, before anything is written down."""

    def __init__(
        self, sampler: BaseSampler, study: Study, trial: FrozenTrial, fixed: Mapping[str, Any]
    ) -> None:
        self.params: dict[str, Any] = {}
        self._sampler, self._study, self._trial, self._fixed = sampler, study, trial, fixed
        self._relative: dict[str, Any] | None = None

    def choose(self, dimension: Dimension) -> Any:
        """The value of a dimension: asked for, the only one, drawn with others, or drawn alone."""
        name, distribution = dimension.name, dimension.distribution()
        if name in self._fixed:
            value = self._fixed[name]
        elif distribution.single():
            value = (dimension.labels() or dimension.corners())[0]
        elif name in self._drawn:
            value = self._drawn[name]
        else:
            value = self._sampler.sample_independent(self._study, self._trial, name, distribution)
        # The type that a storage would give back: numbers of NumPy's have another name in a digest.
        self.params[name] = distribution.to_external_repr(distribution.to_internal_repr(value))
        return self.params[name]

    @property
    def _drawn(self) -> Mapping[str, Any]:
        """What the sampler draws together, once one of them is wanted."""
        if self._relative is None:
            space = self._sampler.infer_relative_search_space(self._study, self._trial)
            self._relative = self._sampler.sample_relative(self._study, self._trial, space)
        return self._relative


def _one_of(points: Sequence[dict[str, Any]], draw: np.random.Generator) -> dict[str, Any]:
    return points[int(draw.integers(len(points)))]
