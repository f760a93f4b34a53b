"""What a sweep searches: a YAML file over configuration keys.

::

    flow.blocks: {int: [2, 8], step: 2}
    flow.hidden: {int: [64, 512], log: true}
    train.flow.lr: {float: [1e-4, 1e-2], log: true}
    features.taps: {choice: [[blocks.4], [blocks.5], [blocks.4, blocks.5]]}
    method: {choice: [nf, nf-bmr]}
    mapping.residual_blocks: {int: [1, 4], when: {method: nf-bmr}}
    light:                                   # no key: a name for a choice among settings of several keys
      preset:
        as-it-is: {}
        even: {features.photometric: brightness, features.views: [flip-h]}

Keys may also stand in their sections (``flow: {blocks: ...}``). Ranges include both ends. ``when`` names
dimensions above it, and the values (one, or a list) with which this one is searched at all.

Reading never raises: what is wrong is kept, so that :func:`tune.search.space_checks.check_space` lists all of
it at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfbmr import yaml_text
from nfbmr.config import Config, FeatureConfig
from nfbmr.errors import ConfigError
from nfbmr.fields import did_you_mean
from nfbmr.resolve import digest
from tune.execution.method_settings import with_settings
from tune.search.dimension import Dimension, Settings
from tune.search.space_parser import ParsedSpace, parse_file, parse_text

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Space:
    """All dimensions, in the order of the file.

    Attributes:
        dimensions: What is searched.
        origin: File or name that it was read from.
        text: The file's content, for the record.
        problems: What was wrong with it, by line.

    Example:
        >>> space = Space.parse("flow.blocks: {int: [2, 4]}", "my.yaml")
        >>> [str(dimension) for dimension in space.dimensions]
        ['flow.blocks: 2 to 4']
    """

    dimensions: tuple[Dimension, ...]
    origin: str = "space"
    text: str = ""
    problems: tuple[tuple[int, str], ...] = ()

    @classmethod
    def load(cls, name_or_path: str | Path = "default") -> Space:
        """Read a named space or a file; what is wrong is kept for `check_space`."""
        return cls._parsed(parse_file(name_or_path), str(name_or_path))

    @classmethod
    def parse(cls, text: str, origin: str = "space") -> Space:
        """Read a space's YAML; what is wrong is kept for `check_space`."""
        return cls._parsed(parse_text(text), origin)

    @classmethod
    def _parsed(cls, parsed: ParsedSpace, origin: str) -> Space:
        return cls(parsed.dimensions, origin, parsed.text, parsed.problems)

    def suggest(self, trial: optuna.Trial) -> Settings:
        """Let the trial's sampler choose every dimension that applies.

        Returns:
            Dotted keys to values.
        """
        return self.chosen_by(lambda dimension: dimension.suggest(trial))

    def chosen_by(self, choose: Callable[[Dimension], Any]) -> Settings:
        """Let somebody choose a value of every dimension that applies, from the first to the last.

        Returns:
            Dotted keys to values.
        """
        chosen: dict[str, Any] = {}
        settings: Settings = {}
        for dimension in self.dimensions:
            if dimension.applies(chosen):
                chosen[dimension.name] = choose(dimension)
                settings |= dimension.settings(chosen[dimension.name])
        return settings

    def points(self, at_most: int) -> list[tuple[dict[str, Any], Settings]]:
        """Every point there is, with what it sets; none where there are more, or too many to count.

        Args:
            at_most: So many points are worth looking through.

        Example:
            >>> [settings for _, settings in Space.parse("flow.blocks: {int: [2, 4]}").points(9)]
            [{'flow.blocks': 2}, {'flow.blocks': 3}, {'flow.blocks': 4}]
        """
        if any(dimension.labels() is None for dimension in self.dimensions):
            return []
        points = list(itertools.islice(self.combinations(self.dimensions), at_most + 1))
        return points if len(points) <= at_most else []

    def params_of(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The point of the space that these settings are, in the sampler's terms; None outside of it.

        Args:
            settings: Dotted keys to values; more of them than the space has do no harm.
        """
        chosen: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.applies(chosen):
                label = dimension.label_of(settings)
                if label is None:
                    return None
                chosen[dimension.name] = label[0]
        return chosen

    def lacks(self, settings: Mapping[str, Any]) -> list[str]:
        """Where these settings lie outside of the space, a line a dimension; nothing for a point of it.

        Example:
            >>> Space.parse("flow.blocks: {int: [2, 4]}").lacks({"flow.blocks": 6})
            ['flow.blocks=6 (flow.blocks: 2 to 4)']
        """
        chosen: dict[str, Any] = {}
        outside = []
        for dimension in self.dimensions:
            if not dimension.applies(chosen):
                continue
            label = dimension.label_of(settings)
            if label is None:
                touched = dict.fromkeys(
                    key for corner in dimension.corners() for key in dimension.settings(corner)
                )
                values = ", ".join(f"{key}={yaml_text.inline(settings.get(key))}" for key in touched)
                outside.append(f"{values} ({dimension})")
            else:
                chosen[dimension.name] = label[0]
        return outside

    def settings_of(self, params: Mapping[str, Any]) -> Settings:
        """What a point, in the sampler's terms, sets."""
        settings: Settings = {}
        for dimension in self.dimensions:
            if dimension.name in params:
                settings |= dimension.settings(params[dimension.name])
        return settings

    def point(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values of some dimensions in the sampler's terms, to begin a search with.

        Args:
            values: By the name of a dimension; of a preset its name.

        Raises:
            ConfigError: A name or a value is not in the space; all of them are listed.

        Example:
            >>> Space.parse("features.taps: {choice: [[blocks.4], [blocks.5]]}").point(
            ...     {"features.taps": ["blocks.5"]})
            {'features.taps': '[blocks.5]'}
        """
        by_name = {dimension.name: dimension for dimension in self.dimensions}
        params: dict[str, Any] = {}
        problems: list[str] = []
        for name, value in values.items():
            if name not in by_name:
                problems.append(f"{name}: is not searched{did_you_mean(name, by_name)}")
                continue
            dimension = by_name[name]
            if dimension.kind == "preset":
                label = (value,) if value in dimension.options else None
            else:
                label = dimension.label_of({name: value})
            if label is None:
                problems.append(f"{name}={yaml_text.inline(value)}: is outside the space ({dimension})")
            else:
                params[name] = label[0]
        if problems:
            raise ConfigError("; ".join(problems), where="--start", fix="begin with a point of the space")
        return params

    def distributions(self, names: Mapping[str, Any]) -> dict[str, optuna.distributions.BaseDistribution]:
        """Optuna's distributions of the named dimensions."""
        return {d.name: d.distribution() for d in self.dimensions if d.name in names}

    @property
    def conditional(self) -> bool:
        """Whether some dimension is searched only with certain values of others."""
        return any(dimension.when for dimension in self.dimensions)

    @property
    def size(self) -> int | None:
        """How many points it has; None where they cannot be counted."""
        if any(dimension.labels() is None for dimension in self.dimensions):
            return None
        upper = 1
        for dimension in self.dimensions:
            upper *= len(dimension.labels() or ())
        if not self.conditional:
            return upper
        return sum(1 for _ in self._walk(self.dimensions, _all_labels, {}, {})) if upper <= 100_000 else None

    def feature_settings(self) -> list[Settings]:
        """Every distinct combination of settings that decides on features: those, and the method's name."""
        distinct: dict[str, Settings] = {}
        for _, point in self.combinations([d for d in self.dimensions if d.sets("features.", "method")]):
            deciding = features_of(point)
            distinct.setdefault(yaml_text.inline(sorted(deciding.items())), deciding)
        return list(distinct.values())

    def feature_configs(self, base: Config, chosen: Collection[str] = ()) -> list[FeatureConfig]:
        """What has to be extracted for any trial, taps that share everything else joined.

        One pass of the backbone over the pictures gives all taps of one of these.

        Args:
            base: What every trial begins from.
            chosen: Keys of it that the user chose; see :func:`tune.execution.method_settings.user_layer`.
        """
        joined: dict[str, FeatureConfig] = {}
        for settings in self.feature_settings():
            features = with_settings(base, settings, chosen).features
            rest = features.model_dump_json(exclude={"taps"})
            before = joined.get(rest)
            taps = features.taps if before is None else (*before.taps, *features.taps)
            joined[rest] = features.model_copy(update={"taps": tuple(dict.fromkeys(taps))})
        return list(joined.values())

    def combinations(
        self, wanted: Iterable[Dimension], *, corners: bool = False
    ) -> Iterator[tuple[dict[str, Any], Settings]]:
        """Every combination of some dimensions, and of those that they are conditional on.

        Args:
            wanted: The dimensions.
            corners: Whether ranges stand for their ends alone.

        Yields:
            Labels by dimension, and the settings that they come to.
        """
        names = {d.name for d in wanted}
        for dimension in reversed(self.dimensions):
            if dimension.name in names:
                names |= set(dimension.when)
        dimensions = [d for d in self.dimensions if d.name in names]
        return self._walk(dimensions, Dimension.corners if corners else _all_labels, {}, {})

    def _walk(
        self,
        rest: Sequence[Dimension],
        values: Callable[[Dimension], Iterable[Any]],
        chosen: dict[str, Any],
        settings: Settings,
    ) -> Iterator[tuple[dict[str, Any], Settings]]:
        if not rest:
            yield chosen, settings
            return
        first, *others = rest
        if not first.applies(chosen):
            yield from self._walk(others, values, chosen, settings)
            return
        for label in values(first):
            with_label = {**chosen, first.name: label}
            yield from self._walk(others, values, with_label, settings | first.settings(label))


def features_of(settings: Mapping[str, Any]) -> Settings:
    """Those settings that decide on features: of the section, and the method's name."""
    return {key: setting for key, setting in settings.items() if key.startswith(("features.", "method"))}


def pass_key(features: FeatureConfig) -> str:
    """Equal for feature configurations that one pass of the backbone serves."""
    return digest(features.model_dump(mode="json", exclude={"taps"}))


def _all_labels(dimension: Dimension) -> Iterable[Any]:
    return itertools.islice(dimension.labels() or (), 100_000)
