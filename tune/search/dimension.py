"""One thing that a sweep searches: a range or a choice, and when it counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nfbmr import yaml_text

if TYPE_CHECKING:
    import optuna

Kind = Literal["int", "float", "choice", "preset"]
"""What a dimension of a space ranges over."""
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
        low: Lower end of a range.
        high: Upper end of a range; with a step, the last value that the steps reach.
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

    def sets(self, *keys: str) -> bool:
        """Whether some value of it sets one of these keys, or (with a dot at its end) one of a section.

        Example:
            >>> Dimension("features.size", "int", 256, 512).sets("features.", "method")
            True
        """
        touched = {key for option in self.options.values() for key in option} or {self.name}
        return any(
            touches == key or (key.endswith(".") and touches.startswith(key))
            for touches in touched
            for key in keys
        )

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
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not self.low <= value <= self.high:
            return None
        step = self.step or (1 if self.kind == "int" else None)
        if step is not None and abs((value - self.low) / step - round((value - self.low) / step)) >= 1e-9:
            return None
        return (int(value) if self.kind == "int" else float(value),)

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


def _same(a: Any, b: Any) -> bool:
    """Equal as configuration values: a list and a tuple of equals are."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)
