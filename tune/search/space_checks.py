"""Whether a space can be searched from a configuration: everything that can be known beforehand.

A trial's configuration is looked at as it would be run, its method's own defaults included. Where a space has
more points than can be looked at, every value is, with every method.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nfbmr import yaml_text
from nfbmr.config import Config, FeatureConfig
from nfbmr.errors import BackboneError, ConfigError
from nfbmr.fields import alternatives, keys
from nfbmr.resolve import digest
from tune.execution.method_settings import problem_with, with_settings
from tune.search.dimension import Dimension, Settings
from tune.search.space import Space

NOT_SEARCHED = {
    "data": "it says which images are used, and trials on different ones cannot be compared; "
    "run a sweep for each value",
    "selection.on": "a search must not see the test set",
    "selection.defects": "it makes the images that trials are judged on, which must be the same for all",
    "selection.per_image": "it makes the images that trials are judged on, which must be the same for all",
    "selection.false_reject_rate": "it sets the threshold, which the objective does not look at",
    "evaluation": "it measures and draws, and changes no model",
    "tracking": "all trials are recorded in one place",
    "output": "trials lie in the sweep's folder",
    "store": "trials share features and stages through one store",
    "seed": "the best of several seeds is luck; compare seeds with nfbmr ablate --seeds",
    "train.device": "where a trial runs is said by --resources",
}
"""Keys and sections that no sweep searches, and why."""

MAX_FEATURES = 64
"""Feature configurations that one sweep may need; each is a pass over all pictures."""


MAX_COMBINATIONS = 256
"""Combinations of what decides whether a method can run that are looked at; of more the first ones."""


def check_space(space: Space, base: Config, chosen: Collection[str] = ()) -> None:
    """Refuse a space that cannot be searched from a configuration, before anything starts.

    Args:
        space: What is to be searched.
        base: The configuration that trials start from.
        chosen: Keys of it that the user chose; see :func:`tune.execution.method_settings.user_layer`.

    Raises:
        ConfigError: Every unknown or forbidden key, empty range, wrong type, value that the configuration
            refuses, and method that cannot run with its settings, each with its line.
    """
    problems = sorted(dict.fromkeys([*space.problems, *_Check(space, base, tuple(chosen)).problems()]))
    if not problems:
        return
    lines = [
        f"{space.origin}:{line}: {what}" if line else f"{space.origin}: {what}" for line, what in problems
    ]
    fix = "mend the space; its form is described in docs/sweeps.md, its keys by nfbmr config --describe"
    if len(lines) == 1:
        raise ConfigError(lines[0], fix=fix)
    listed = "".join(f"\n  - {line}" for line in lines)
    raise ConfigError(f"the space has {len(lines)} problems:{listed}", fix=fix)


@dataclass(frozen=True)
class _Check:
    """A space and what its trials begin from."""

    space: Space
    base: Config
    chosen: tuple[str, ...]
    _reported: set[str] = field(default_factory=set)
    _made: dict[str, Config | ConfigError] = field(default_factory=dict)

    def problems(self) -> list[tuple[int, str]]:
        """All of them, with their lines; what needs sound settings is looked at where they are."""
        # Methods first: what is wrong with one of them would be found with every other dimension again.
        others = [d for d in self.space.dimensions if d not in self._methods]
        problems = [(d.line, what) for d in (*self._methods, *others) for what in self._of_one(d)]
        problems += _set_twice(self.space)
        for check in (self._of_features, self._of_methods):
            if not problems and not self.space.problems:
                problems += check()
        return problems

    @cached_property
    def _methods(self) -> list[Dimension]:
        """Dimensions that choose the method."""
        return [d for d in self.space.dimensions if d.sets("method")]

    def _of_one(self, dimension: Dimension) -> Iterator[str]:
        """What is wrong with one dimension: its keys, then every corner, with every method."""
        touched = dict.fromkeys(key for label in dimension.corners() for key in dimension.settings(label))
        refused = []
        for key in touched:
            section, _, field_name = key.partition(".")
            names = (f"{section}.{field_name.partition('.')[0]}", section)
            why = next((NOT_SEARCHED[name] for name in names if name in NOT_SEARCHED), None)
            if why is not None:
                refused.append(f"{key}: is not searched: {why}")
        yield from refused
        if dimension.kind == "float" and float not in alternatives(keys()[dimension.name].annotation):
            yield f"{dimension.name}: takes {keys()[dimension.name].allowed}, so float makes no sense"
            return
        if refused:
            return
        for _, settings in self.space.combinations([dimension, *self._methods], corners=True):
            try:
                self._config(settings)
            except ConfigError as error:
                _, *listed = error.what.split("\n  - ")
                where = re.compile(rf" \({re.escape(self.space.origin)}\)")
                for problem in (where.sub("", line) for line in listed or [error.what]):
                    if problem not in self._reported:
                        self._reported.add(problem)
                        yield problem

    def _config(self, settings: Settings) -> Config:
        """What a trial with these settings runs; made once."""
        key = repr(sorted(settings.items()))
        if key not in self._made:
            try:
                self._made[key] = with_settings(self.base, settings, self.chosen, origin=self.space.origin)
            except ConfigError as error:
                self._made[key] = error
        made = self._made[key]
        if isinstance(made, ConfigError):
            raise made
        return made

    def _of_features(self) -> Iterator[tuple[int, str]]:
        """Too many feature configurations, backbones and taps that do not exist."""
        for dimension in self.space.dimensions:
            if dimension.name.startswith("features."):
                labels = dimension.labels()
                if labels is None or len(labels) > MAX_FEATURES:
                    count = "uncountably many" if labels is None else len(labels)
                    yield (
                        dimension.line,
                        f"{dimension.name}: takes {count} values, and features would be extracted for each; "
                        "give a step, or a choice",
                    )
                    return
        settings = self.space.feature_settings()
        distinct = {
            features.model_dump_json(): features
            for combination in settings[:MAX_COMBINATIONS]
            for features in (self._config(combination).features,)
        }
        if len(distinct) > MAX_FEATURES or len(settings) > MAX_COMBINATIONS:
            many = max(len(distinct), len(settings) if len(settings) > MAX_COMBINATIONS else 0)
            yield 0, f"{many} combinations of features.* would each be extracted; search fewer of them"
            return
        yield from self._missing_taps(distinct.values())

    def _missing_taps(self, wanted: Iterable[FeatureConfig]) -> Iterator[tuple[int, str]]:
        from nfbmr.features.models import blank_model
        from nfbmr.features.taps import resolve_taps

        models: dict[str, Any] = {}
        reported = set()
        names = ("features.taps", "features.backbone")
        line = next((d.line for d in self.space.dimensions if d.name in names), 0)
        for features in wanted:
            try:
                if features.backbone not in models:
                    models[features.backbone] = blank_model(features.backbone)
                resolve_taps(models[features.backbone], features.taps, features.backbone)
            except BackboneError as error:
                if error.what not in reported:
                    reported.add(error.what)
                    yield line, error.what + (f"; {error.fix}" if error.fix else "")

    def _of_methods(self) -> Iterator[tuple[int, str]]:
        """Methods that cannot run with their settings: each reason once, with the first point that has it."""
        seen: set[str] = set()
        reasons: dict[str, tuple[int, str]] = {}
        # All that decides whether a method can run together, the rest one by one.
        deciding = [d for d in self.space.dimensions if d.sets("method", "features.", "scoring.")]
        combined = itertools.islice(self.space.combinations(deciding, corners=True), MAX_COMBINATIONS)
        singly = (
            self.space.combinations([dimension, *self._methods], corners=True)
            for dimension in self.space.dimensions
        )
        for labels, settings in itertools.chain(combined, itertools.chain.from_iterable(singly)):
            config = self._config(settings)
            what = digest(config.model_dump(mode="json", exclude={"data", "seed", "train", "evaluation"}))
            if what in seen:
                continue
            seen.add(what)
            reason = problem_with(config)
            if reason is not None and reason not in reasons:
                shown = ", ".join(f"{name}={yaml_text.inline(label)}" for name, label in labels.items())
                about = (
                    shown if "method" in labels else f"{shown or 'the base configuration'} ({config.method})"
                )
                line = max((d.line for d in self.space.dimensions if d.name in labels), default=0)
                reasons[reason] = (line, f"{about}: {reason}")
        yield from reasons.values()


def _set_twice(space: Space) -> Iterator[tuple[int, str]]:
    """Keys that two dimensions set, unless their conditions never hold together."""
    setters: dict[str, list[Dimension]] = {}
    for dimension in space.dimensions:
        for key in dict.fromkeys(k for label in dimension.corners() for k in dimension.settings(label)):
            for other in setters.setdefault(key, []):
                common = other.when.keys() & dimension.when.keys()
                if all(set(other.when[name]) & set(dimension.when[name]) for name in common):
                    yield dimension.line, f"{key}: is set by {other.name} and by {dimension.name}"
                    break
            setters[key].append(dimension)
