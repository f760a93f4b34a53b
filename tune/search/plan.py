"""What was asked of a sweep, as ``sweep.yaml`` keeps it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nfbmr import yaml_text
from nfbmr.config import Config
from nfbmr.errors import ConfigError
from nfbmr.paths import write_text
from nfbmr.resolve import Layer, dump_yaml, resolve, values_of
from tune.execution.method_settings import with_settings
from tune.execution.resources import Resources
from tune.search.dimension import Settings
from tune.search.space import Space

Sampler = Literal["tpe", "gp", "qmc", "random", "nsga2"]
"""Who suggests configurations."""
SAMPLERS: tuple[Sampler, ...] = ("tpe", "gp", "qmc", "random", "nsga2")
"""Names of the samplers, as ``--sampler`` takes them."""


@dataclass(frozen=True)
class Objective:
    """A number of a trial's summary, and which way is better.

    Attributes:
        name: What users call it.
        number: Where it is in the summary, as :meth:`tune.execution.trial_spec.TrialResult.numbers` names it.
        maximise: Whether more is better.
    """

    name: str
    number: str
    maximise: bool

    @property
    def direction(self) -> str:
        """In Optuna's words."""
        return "maximize" if self.maximise else "minimize"


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("auroc", "validation/image_auroc", maximise=True),
        Objective("latency", "cost.latency_ms", maximise=False),
        Objective("parameters", "cost.parameters", maximise=False),
    )
}
"""What a sweep may search for, by name."""


@dataclass(frozen=True)
class SweepPlan:
    """A sweep as it was asked for.

    Attributes:
        name: Name of the sweep: its folder's, and the ``run_id`` of the parent run.
        config: What every trial begins from.
        chosen: Keys of `config` that the user chose; they stay where a trial has another method. What differs
            from the defaults of the configuration's method counts as chosen anyway.
        space: What is searched.
        trials: Number of trials.
        objectives: Names in :data:`OBJECTIVES`; the first decides which trial is scored on the test set.
        sampler: Name of the sampler that suggests configurations.
        prune: Whether trials that do worse than others are ended early.
        start: Points to begin with.
        base_trial: Whether the sweep begins with `config` itself, where the space contains it, and prefers it
            among trials that validation data cannot tell apart (:mod:`tune.search.choice`).
        warm_start: An earlier sweep to learn from.
        resources: What each trial gets.
    """

    name: str
    config: Config
    space: Space
    trials: int
    objectives: tuple[str, ...] = ("auroc",)
    sampler: Sampler = "tpe"
    prune: bool = True
    start: tuple[Settings, ...] = ()
    base_trial: bool = True
    warm_start: str | None = None
    resources: Resources = field(default_factory=Resources)
    chosen: tuple[str, ...] = ()

    def config_of(self, settings: Settings) -> Config:
        """What a trial with these settings runs.

        Raises:
            ConfigError: The configuration refuses them.
        """
        return with_settings(self.config, settings, self.chosen)

    @property
    def points(self) -> tuple[Settings, ...]:
        """Points to begin with, in the sampler's terms: the base configuration, then those asked for.

        The base configuration is not among them where the space does not contain it, or `start` has it.
        """
        base = self.base_point
        return self.start if base is None or base in self.start else (base, *self.start)

    @property
    def base_point(self) -> Settings | None:
        """The base configuration as a point of the space; None outside of it, and where it is not wanted."""
        return self.space.params_of(values_of(self.config)) if self.base_trial else None

    @property
    def goals(self) -> tuple[Objective, ...]:
        """The objectives themselves."""
        return tuple(OBJECTIVES[name] for name in self.objectives)

    def asked(self) -> dict[str, Any]:
        """All but the configuration, for the record of the parent run."""
        return {
            "trials": self.trials,
            "objective": [{"name": goal.number, "direction": goal.direction} for goal in self.goals],
            "sampler": self.sampler,
            "prune": self.prune,
            "start": [dict(point) for point in self.start],
            "base_trial": self.base_trial,
            "warm_start": self.warm_start,
            "resources": self.resources.as_json(),
            "space": {d.name: str(d).removeprefix(f"{d.name}: ") for d in self.space.dimensions},
        }

    def write(self, path: Path) -> None:
        """Write ``sweep.yaml``, for people and for :meth:`read`."""
        values = {
            "name": self.name,
            "trials": self.trials,
            "objectives": list(self.objectives),
            "sampler": self.sampler,
            "prune": self.prune,
            "start": [dict(point) for point in self.start],
            "base_trial": self.base_trial,
            "warm_start": self.warm_start,
            "resources": self.resources.as_json(),
            "chosen": list(self.chosen),
            "space_from": self.space.origin,
        }
        head = "".join(f"{key}: {yaml_text.inline(value)}\n" for key, value in values.items())
        space = textwrap.indent("\n".join(self.space.text.splitlines()), "  ")
        config = textwrap.indent(dump_yaml(self.config), "  ")
        write_text(path, f"{head}space: |2\n{space}\nconfig:\n{config}")

    @classmethod
    def read(cls, path: Path) -> SweepPlan:
        """What :meth:`write` wrote.

        Raises:
            ConfigError: There is no sweep here, or its record cannot be read.
        """
        try:
            values: Mapping[str, Any] = yaml_text.parse(path.read_text(encoding="utf-8")).value
            return cls(
                name=values["name"],
                config=resolve([Layer(str(path), values["config"])]).config,
                space=Space.parse(values["space"], values["space_from"]),
                trials=values["trials"],
                objectives=tuple(values["objectives"]),
                sampler=values["sampler"],
                prune=values["prune"],
                start=tuple(values["start"]),
                # A sweep of an earlier version goes on as it was begun: without.
                base_trial=values.get("base_trial", False),
                warm_start=values["warm_start"],
                resources=Resources.from_json(values["resources"]),
                chosen=tuple(values.get("chosen") or ()),
            )
        except OSError as error:
            raise ConfigError(
                "no sweep here", where=path.parent, fix="give the name or folder of a sweep"
            ) from error
        except (yaml_text.YamlError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the record of the sweep cannot be read ({error})",
                where=path,
                fix="restore the file, or begin a new sweep",
            ) from error
