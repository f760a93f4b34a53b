"""Whether a space can be searched from a configuration: everything that can be known beforehand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nfbmr.config import Config
from nfbmr.errors import BackboneError, ConfigError
from nfbmr.fields import alternatives, keys
from nfbmr.resolve import Layer, resolve
from tune.space import Dimension, Space, with_settings

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
    "store": "trials share features and flows through one store",
    "seed": "the best of several seeds is luck; compare seeds with nfbmr ablate --seeds",
    "train.device": "where a trial runs is said by --resources",
}
"""Keys and sections that no sweep searches, and why."""

MAX_FEATURES = 64
"""Feature configurations that one sweep may need; each is a pass over all pictures."""


def check(space: Space, base: Config) -> None:
    """See :meth:`tune.space.Space.check`."""
    problems = sorted([*space.problems, *_found(space, base)])
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


def _found(space: Space, base: Config) -> list[tuple[int, str]]:
    problems = [(d.line, what) for d in space.dimensions for what in _of_one(d, space, base)]
    problems += _set_twice(space)
    if not problems and not space.problems:
        problems += _of_features(space, base)
    return problems


def _of_one(dimension: Dimension, space: Space, base: Config) -> Iterator[str]:
    """What is wrong with one dimension: its keys, then every corner."""
    touched = dict.fromkeys(key for label in dimension.corners() for key in dimension.settings(label))
    refused = [f"{key}: is not searched: {why}" for key in touched if (why := _why_not(key))]
    yield from refused
    if dimension.kind == "float" and float not in alternatives(keys()[dimension.name].annotation):
        yield f"{dimension.name}: takes {keys()[dimension.name].allowed}, so float makes no sense"
        return
    if refused:
        return
    told = set()
    for label in dimension.corners():
        for problem in _refused_by_config(dimension.settings(label), space.origin, base):
            if problem not in told:
                told.add(problem)
                yield problem


def _why_not(key: str) -> str | None:
    parts = key.split(".")
    return next((NOT_SEARCHED[k] for n in (2, 1) if (k := ".".join(parts[:n])) in NOT_SEARCHED), None)


def _refused_by_config(settings: dict[str, Any], origin: str, base: Config) -> list[str]:
    from nfbmr.methods.table import MethodDefaults

    try:
        resolve(
            [Layer("base", base.model_dump(mode="json")), Layer(origin, settings)],
            methods=MethodDefaults(),
        )
    except ConfigError as error:
        _, *listed = error.what.split("\n  - ")
        where = re.compile(rf" \({re.escape(origin)}\)")
        return [where.sub("", problem) for problem in (listed or [error.what])]
    return []


def _set_twice(space: Space) -> Iterator[tuple[int, str]]:
    """Keys that two dimensions set."""
    setters: dict[str, str] = {}
    for dimension in space.dimensions:
        for key in dict.fromkeys(k for label in dimension.corners() for k in dimension.settings(label)):
            if key in setters:
                yield dimension.line, f"{key}: is set by {setters[key]} and by {dimension.name}"
            setters.setdefault(key, dimension.name)


def _of_features(space: Space, base: Config) -> Iterator[tuple[int, str]]:
    """Too many feature configurations, backbones and taps that do not exist."""
    for dimension in space.dimensions:
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
    settings = space.feature_settings()
    if len(settings) > MAX_FEATURES:
        yield 0, f"{len(settings)} combinations of features.* would each be extracted; search fewer of them"
        return
    yield from _missing_taps(space, base, settings)


def _missing_taps(space: Space, base: Config, settings: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    from nfbmr.features.backbone import resolve_taps
    from nfbmr.features.weights import new_model

    models: dict[str, Any] = {}
    told = set()
    line = next((d.line for d in space.dimensions if d.name in ("features.taps", "features.backbone")), 0)
    for one in settings:
        features = with_settings(base, one).features
        try:
            if features.backbone not in models:
                models[features.backbone] = new_model(features.backbone)
            resolve_taps(models[features.backbone], features.taps, features.backbone)
        except BackboneError as error:
            if error.what not in told:
                told.add(error.what)
                yield line, error.what + (f"; {error.fix}" if error.fix else "")
