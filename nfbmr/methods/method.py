"""What a method is, before anything of it is built: a row of the table, and its part of the configuration.

A method is one folder or file. Its first part, which imports no torch, has its settings class, its defaults
and its configurations as published, all in a :class:`Method`; its networks and stages are imported when they
are used. ``nfbmr/methods/patchcore/`` is one of ours, ``docs/examples/gaussian.py`` one of somebody's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nfbmr.config import Config, MethodConfig, StageConfig
from nfbmr.nesting import flatten

Settings = Mapping[str, Any]
"""Values of the configuration by nested or dotted keys."""


@dataclass(frozen=True)
class Method:
    """A detector: what it is, where it comes from, what it is run with.

    Attributes:
        title: What it is, in a few words.
        source: Who published it, where and when.
        networks: Its :class:`~nfbmr.methods.networks.AnomalyModel` as ``module:class``; imported when it
            is used.
        stages: Names of what is fitted, in order; each that is trained has a section of ``train``.
        settings: Class of its own section of the configuration; None where it has none.
        training: How stages of its own are trained by default, by their names. ``flow``, ``detail`` and
            ``mapping`` have their sections already.
        shares: Methods with the same word fit the same first stage, and share it where its settings are
            equal; None for a first stage that no other method fits.
        defaults: Overrides of the configuration's defaults.
        published: Configurations as its authors published it, by the names that ``--config`` takes.
        variants: Other configurations of it, likewise.

    Raises:
        TypeError: Configurations are no mapping.
        ValueError: The section has a name that the configuration has itself.
    """

    title: str
    source: str
    networks: str
    stages: tuple[str, ...]
    settings: type[MethodConfig] | None = None
    training: Mapping[str, StageConfig] = field(default_factory=dict)
    shares: str | None = None
    defaults: Settings = field(default_factory=dict)
    published: Mapping[str, Settings] = field(default_factory=dict)
    variants: Mapping[str, Settings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("published", "variants"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"Method.{name} is no mapping of names to settings (docs/own-method.md)")
        if self.settings is not None:
            section = self.settings.section
            if section in Config.model_fields or section == "own" or not section.isidentifier():
                raise ValueError(f"a method's section cannot be called {section!r}")

    def all_defaults(self) -> dict[str, Any]:
        """Every key that the method brings, then its overrides: dotted keys to values."""
        values: dict[str, Any] = {}
        if self.settings is not None:
            values |= {f"{self.settings.section}.{k}": v for k, v in self.settings().model_dump().items()}
        for stage, section in self.training.items():
            values |= {f"train.{stage}.{k}": v for k, v in section.model_dump().items()}
        return {**values, **flatten(self.defaults)}
