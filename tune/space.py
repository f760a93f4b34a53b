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

Reading never raises: what is wrong is kept, so that :meth:`Space.check` lists all of it at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nfbmr import yaml_text
from nfbmr.config import Config, FeatureConfig
from nfbmr.errors import ConfigError
from nfbmr.fields import did_you_mean

if TYPE_CHECKING:
    import optuna

SPACES = Path(__file__).parent / "spaces"
"""Named spaces, one YAML file each."""

Kind = Literal["int", "float", "choice", "preset"]
Label = str | int | float | bool | None
"""What Optuna is told of a choice: the value, or the YAML text of a list, or the name of a preset."""

Settings = dict[str, Any]
"""Dotted keys to values."""


@dataclass(frozen=True)
class Dimension:
    """One thing that is searched.

    Attributes:
        name: A configuration key, or the name of a preset.
        kind: ``int`` and ``float`` have a range, ``choice`` and ``preset`` have options.
        low: Of a range.
        high: Of a range; with a step, the last value that the steps reach.
        log: Whether a range is searched on a logarithmic scale.
        step: Between values of a range.
        options: Settings by label.
        when: Labels (or numbers) that other dimensions must have for this one to be searched.
        line: In the file.
    """

    name: str
    kind: Kind
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    options: Mapping[Label, Settings] = field(default_factory=dict)
    when: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)
    line: int = 0

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it is searched, given what the dimensions above it were set to."""
        return all(name in chosen and chosen[name] in labels for name, labels in self.when.items())

    def settings(self, label: Any) -> Settings:
        """What a value of this dimension sets.

        Example:
            >>> Dimension("flow.blocks", "int", 2, 8).settings(4)
            {'flow.blocks': 4}
        """
        return dict(self.options[label]) if self.options else {self.name: label}

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The same in Optuna's terms."""
        from optuna import distributions as dist

        if self.kind == "int":
            step = 1 if self.step is None else int(self.step)
            return dist.IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        if self.kind == "float":
            return dist.FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)
        return dist.CategoricalDistribution(tuple(self.options))

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value, chosen by the trial's sampler."""
        if self.kind == "int":
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log, step=step)
        if self.kind == "float":
            return trial.suggest_float(self.name, self.low, self.high, log=self.log, step=self.step)
        return trial.suggest_categorical(self.name, tuple(self.options))

    def labels(self) -> Sequence[Any] | None:
        """Every value there is; None where they cannot be counted.

        Example:
            >>> Dimension("flow.blocks", "int", 2, 8, step=2).labels()
            [2, 4, 6, 8]
        """
        if self.options:
            return list(self.options)
        if self.kind == "int":
            return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is not None:
            return [self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)]
        return [self.low] if self.low == self.high else None

    def corners(self) -> list[Any]:
        """Values that stand for all: the ends of a range, or every option."""
        return list(self.options) if self.options else sorted({self.low, self.high})

    def label_of(self, settings: Mapping[str, Any]) -> tuple[Any] | None:
        """The value that gives these settings, in a tuple; None where none does."""
        if self.options:
            fit = [
                label
                for label, option in self.options.items()
                if all(key in settings and _same(settings[key], value) for key, value in option.items())
            ]
            # A preset that sets nothing fits always: the one that says most is meant.
            return (max(fit, key=lambda label: len(self.options[label])),) if fit else None
        value = settings.get(self.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self._reaches(value):
            return None
        return (int(value) if self.kind == "int" else float(value),)

    def _reaches(self, value: float) -> bool:
        if not self.low <= value <= self.high:
            return False
        step = self.step or (1 if self.kind == "int" else None)
        return step is None or abs((value - self.low) / step - round((value - self.low) / step)) < 1e-9

    def __str__(self) -> str:
        if self.options:
            words = ", ".join(
                label if isinstance(label, str) else yaml_text.inline(label) for label in self.options
            )
        else:
            words = f"{self.low:g} to {self.high:g}"
            words += f" in steps of {self.step:g}" if self.step is not None else ""
            words += " (log)" if self.log else ""
        conditions = " and ".join(
            f"{name} is {' or '.join(map(str, labels))}" for name, labels in self.when.items()
        )
        return f"{self.name}: {words}" + (f", when {conditions}" if conditions else "")


@dataclass(frozen=True)
class Space:
    """All dimensions, in the order of the file.

    Attributes:
        dimensions: What is searched.
        origin: Where it was read from.
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
        """Read a named space or a file; what is wrong is kept for :meth:`check`."""
        from tune.space_reading import read_file

        return read_file(name_or_path)

    @classmethod
    def parse(cls, text: str, origin: str = "space") -> Space:
        """Read a space's YAML; what is wrong is kept for :meth:`check`."""
        from tune.space_reading import read_text

        return read_text(text, origin)

    def check(self, base: Config) -> None:
        """Refuse a space that cannot be searched from this configuration, before anything starts.

        Raises:
            ConfigError: Every unknown or forbidden key, empty range, wrong type, and value that the
                configuration refuses, each with its line.
        """
        from tune.space_checks import check

        check(self, base)

    def suggest(self, trial: optuna.Trial) -> Settings:
        """Let the trial's sampler choose every dimension that applies.

        Returns:
            Dotted keys to values.
        """
        chosen: dict[str, Any] = {}
        settings: Settings = {}
        for dimension in self.dimensions:
            if dimension.applies(chosen):
                chosen[dimension.name] = dimension.suggest(trial)
                settings |= dimension.settings(chosen[dimension.name])
        return settings

    def params_of(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The point of the space that these settings are, in the sampler's terms; None outside of it.

        Args:
            settings: Dotted keys to values; more of them than the space has do no harm.
        """
        chosen: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.applies(chosen):
                found = dimension.label_of(settings)
                if found is None:
                    return None
                chosen[dimension.name] = found[0]
        return chosen

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
                found = (value,) if value in dimension.options else None
            else:
                found = dimension.label_of({name: value})
            if found is None:
                problems.append(f"{name}={yaml_text.inline(value)}: is outside the space ({dimension})")
            else:
                params[name] = found[0]
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
        return sum(1 for _ in self._points(self.dimensions)) if upper <= 100_000 else None

    def feature_settings(self) -> list[Settings]:
        """Every distinct combination of settings under ``features`` that a trial may ask for."""
        wanted = {d.name for d in self.dimensions if self._touches_features(d)}
        for dimension in reversed(self.dimensions):
            if dimension.name in wanted:
                wanted |= set(dimension.when)
        found: dict[str, Settings] = {}
        for point in self._points([d for d in self.dimensions if d.name in wanted]):
            features = {key: value for key, value in point.items() if key.startswith("features.")}
            found.setdefault(yaml_text.inline(sorted(features.items())), features)
        return list(found.values())

    def feature_configs(self, base: Config) -> list[FeatureConfig]:
        """What has to be extracted for any trial, taps that share everything else joined.

        One pass of the backbone over the pictures gives all taps of one of these.
        """
        joined: dict[str, FeatureConfig] = {}
        for settings in self.feature_settings():
            features = with_settings(base, settings).features
            rest = features.model_dump_json(exclude={"taps"})
            before = joined.get(rest)
            taps = features.taps if before is None else (*before.taps, *features.taps)
            joined[rest] = features.model_copy(update={"taps": tuple(dict.fromkeys(taps))})
        return list(joined.values())

    def _touches_features(self, dimension: Dimension) -> bool:
        keys = {key for option in dimension.options.values() for key in option} | {dimension.name}
        return any(key.startswith("features.") for key in keys)

    def _points(self, dimensions: Sequence[Dimension]) -> Iterator[Settings]:
        """Settings of every combination of these dimensions, conditions kept."""

        def walk(rest: Sequence[Dimension], chosen: dict[str, Any], settings: Settings) -> Iterator[Settings]:
            if not rest:
                yield settings
                return
            first, *others = rest
            if not first.applies(chosen):
                yield from walk(others, chosen, settings)
                return
            for label in itertools.islice(first.labels() or (), 100_000):
                yield from walk(others, {**chosen, first.name: label}, settings | first.settings(label))

        yield from walk(list(dimensions), {}, {})


def with_settings(base: Config, settings: Mapping[str, Any]) -> Config:
    """The base configuration with some keys set.

    Example:
        >>> with_settings(Config(), {"flow.blocks": 8}).flow.blocks
        8
    """
    values = base.model_dump(mode="json")
    for key, value in settings.items():
        *path, last = key.split(".")
        section = values
        for part in path:
            section = section[part]
        section[last] = value
    return Config.model_validate(values)


def _same(a: Any, b: Any) -> bool:
    """Equal as configuration values: a list and a tuple of equals are."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)
