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
from nfbmr.resolve import Layer, dump_yaml, resolve
from tune.resources import Resources
from tune.space import Settings, Space

Sampler = Literal["tpe", "gp", "qmc", "random", "nsga2"]
SAMPLERS: tuple[Sampler, ...] = ("tpe", "gp", "qmc", "random", "nsga2")


@dataclass(frozen=True)
class Objective:
    """A number of a trial's summary, and which way is better.

    Attributes:
        name: What users call it.
        number: Where it is in the summary, as :func:`tune.parent.numbers_of` names it.
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


@dataclass(frozen=True)
class SweepPlan:
    """A sweep as it was asked for.

    Attributes:
        name: Of the sweep: its folder's, and the ``run_id`` of the parent run.
        config: What every trial begins from.
        space: What is searched.
        trials: How many.
        objectives: Names in :data:`OBJECTIVES`; the first decides which trial is scored on the test set.
        sampler: Who suggests.
        prune: Whether trials that do worse than others are ended early.
        start: Points to begin with.
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
    warm_start: str | None = None
    resources: Resources = field(default_factory=Resources)

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
            "warm_start": self.warm_start,
            "resources": self.resources.as_json(),
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
                warm_start=values["warm_start"],
                resources=Resources(**values["resources"]),
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
