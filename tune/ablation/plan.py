"""What was asked of an ablation, as ``ablation.yaml`` keeps it: rows, categories, seeds, one configuration.

A plan is made once, checked whole, and gone on with later: with more seeds or categories it holds the old
cells under their old names, so that only the new ones are run.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nfbmr import yaml_text
from nfbmr.config import Config
from nfbmr.errors import ConfigError
from nfbmr.methods.registry import sharing_key
from nfbmr.nesting import flatten, unflatten
from nfbmr.paths import write_text
from nfbmr.resolve import DEFAULT, Layer, Resolved, digest, dump_yaml, resolve
from nfbmr.text import visible
from tune.ablation.cell import Cell
from tune.ablation.checks import as_error, categories_of, problems_with, splits_of
from tune.ablation.spec import read_spec
from tune.execution.method_settings import chosen_layer, with_methods
from tune.execution.trial_spec import TrialSpec
from tune.records.children import child_tags
from tune.records.paths import AblationPaths
from tune.tables.rows import AblationSpec, Row

_SplitSeeds = Literal["same", "vary"]


@dataclass(frozen=True)
class AblationPlan:
    """An ablation as it was asked for.

    Attributes:
        name: Name of the ablation: its folder's, and the ``run_id`` of the parent run.
        spec: The rows; their settings are all that they change of `config`, defaults of methods included.
        config: What every row begins from; its seed is the first one.
        categories: In the order of the table; ``(None,)`` where the data set has none.
        seeds: Number of seeds.
        split_seeds: Whether all seeds share one split, or each draws its own.
        splits: On each of which every row is run; none: on the configuration's.
        compares: Whether what each row costs to use is measured as well (``nfbmr compare``).
    """

    name: str
    spec: AblationSpec
    config: Config
    categories: tuple[str | None, ...] = (None,)
    seeds: int = 3
    split_seeds: _SplitSeeds = "same"
    splits: tuple[str, ...] = ()
    compares: bool = False

    @property
    def paths(self) -> AblationPaths:
        """Of the ablation."""
        return AblationPaths(self.config.output / self.name)

    @property
    def all_seeds(self) -> range:
        """The seeds themselves."""
        return range(self.config.seed, self.config.seed + self.seeds)

    def row_config(self, row: Row) -> Config:
        """What a row runs, before category and seed."""
        return Config.model_validate(unflatten({**_flat(self.config), **row.settings}))

    def cells(self) -> tuple[Cell, ...]:
        """All of them: rows first, then categories, splits, seeds, as the folders are."""
        configs = {row.name: self.row_config(row) for row in self.spec.rows}
        return tuple(
            self._cell(row, configs[row.name], category, split, seed)
            for row in self.spec.rows
            for category in self.categories
            for split in self.splits or (None,)
            for seed in self.all_seeds
        )

    def _cell(self, row: Row, config: Config, category: str | None, split: str | None, seed: int) -> Cell:
        folder = self.paths.cell(row.name, category, seed, split)
        key = folder.relative_to(self.paths.root / "cells").as_posix()
        data: dict[str, Any] = {"category": category, **({} if split is None else {"split": split})}
        if self.split_seeds == "vary":
            data["seed"] = self.config.data.seed + seed - self.config.seed
        cell_config = config.model_copy(update={"seed": seed, "data": config.data.model_copy(update=data)})
        tags = {
            **child_tags(self.name, key, row.settings),
            "nfbmr.row": row.name,
            "nfbmr.seed": str(seed),
            **({} if category is None else {"nfbmr.category": category}),
            **({} if split is None else {"nfbmr.asked_split": split}),
        }
        task = TrialSpec(
            key=key,
            config=cell_config,
            folder=folder,
            run_id=f"{self.name}-{key.replace('/', '-')}",
            run_name=key,
            parent_id=self.name,
            test=True,
            tags=tags,
        )
        return Cell(row.name, category, seed, task, sharing_key(cell_config), split)

    def extended(
        self, seeds: int | None, categories: Sequence[str] | None, splits: Sequence[str] = ()
    ) -> AblationPlan:
        """The same ablation with more seeds, or with other categories or splits in its table.

        Args:
            seeds: How many from now on; None: as many as before.
            categories: Those from now on; None: as before.
            splits: Those from now on; none: as before.

        Raises:
            ConfigError: There are no such categories or splits, or the ablation has one split for good.
        """
        plan = self if seeds is None else replace(self, seeds=_seeds(seeds))
        if categories is not None:
            plan = replace(plan, categories=categories_of(self.config, categories))
        if not splits:
            return plan
        if not self.splits:
            raise ConfigError(
                "its cells have one split for good",
                where="--split",
                fix="leave out --split, or begin another",
            )
        return replace(plan, splits=splits_of(self.config, plan.categories[0], splits))

    def changes(self, other: AblationPlan) -> list[str]:
        """What tells two plans apart besides seeds and categories; nothing where cells can be shared."""
        changed = []
        before, after = _flat(other.config), _flat(self.config)
        changed += [key for key in after if after[key] != before.get(key) and key != "output"]
        mine, theirs = ({row.name: dict(row.settings) for row in plan.spec.rows} for plan in (self, other))
        changed += [f"row {name}" for name in {**theirs, **mine} if mine.get(name) != theirs.get(name)]
        for what in ("metric", "reference"):
            if getattr(self.spec, what) != getattr(other.spec, what):
                changed.append(what)
        if self.split_seeds != other.split_seeds:
            changed.append("--split-seeds")
        return changed + (["what it is (compare or ablate)"] if self.compares != other.compares else [])

    def asked(self) -> dict[str, Any]:
        """All but the configuration, for the record of the parent run."""
        return {
            "table": self.spec.name,
            "metric": self.spec.metric,
            "reference": self.spec.reference,
            "rows": {row.name: dict(row.settings) for row in self.spec.rows},
            "categories": [category for category in self.categories if category is not None],
            "seeds": self.seeds,
            "split_seeds": self.split_seeds,
            **({"splits": list(self.splits)} if self.splits else {}),
        }

    def write(self) -> None:
        """Write ``ablation.yaml``, for people and for :meth:`read`."""
        values = {
            "name": self.name,
            "table": self.spec.name,
            "categories": list(self.categories),
            "seeds": self.seeds,
            "split_seeds": self.split_seeds,
            "splits": list(self.splits),
            "compares": self.compares,
        }
        lines = [f"{key}: {yaml_text.inline(value)}" for key, value in values.items()]
        rows = self.spec.as_json()
        spec = [f"  {key}: {yaml_text.inline(value)}" for key, value in rows.items() if key != "rows"]
        spec += ["  rows:"]
        spec += [
            f"    {yaml_text.inline(name)}: {yaml_text.inline(settings)}"
            for name, settings in rows["rows"].items()
        ]
        config = textwrap.indent(dump_yaml(self.config), "  ")
        write_text(self.paths.plan, "\n".join([*lines, "lattice:", *spec, "config:", config]))

    @classmethod
    def read(cls, folder: Path) -> AblationPlan:
        """What :meth:`write` wrote; a folder that was moved is where it is now.

        Raises:
            ConfigError: There is no ablation here, or its record cannot be read.
        """
        path = AblationPaths(folder).plan
        try:
            values: Mapping[str, Any] = yaml_text.parse(path.read_text(encoding="utf-8")).value
            config = resolve([Layer(str(path), values["config"])]).config
            return cls(
                name=folder.resolve().name,
                spec=read_spec(values["lattice"], values["table"], str(path)),
                config=config.model_copy(update={"output": folder.parent}),
                categories=tuple(values["categories"]),
                seeds=values["seeds"],
                split_seeds=values["split_seeds"],
                splits=tuple(values.get("splits") or ()),
                compares=bool(values.get("compares")),
            )
        except OSError as error:
            raise ConfigError(
                "no ablation here", where=folder, fix="give the name or the folder of an ablation"
            ) from error
        except (yaml_text.YamlError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"the record of the ablation cannot be read ({error})",
                where=path,
                fix="restore the file, or begin a new ablation",
            ) from error


def plan_ablation(
    spec: AblationSpec,
    resolved: Resolved,
    *,
    name: str | None = None,
    categories: Sequence[str] | None = None,
    seeds: int = 3,
    split_seeds: _SplitSeeds = "same",
    splits: Sequence[str] | None = None,
    compares: bool = False,
) -> AblationPlan:
    """Make a plan of a table and a command line, and check all of it.

    Args:
        spec: The table.
        resolved: What the command line says of the configuration. Settings of the table lie below it, its
            rows above.
        name: Name of the ablation; the table's by default.
        categories: Those to run; by default the table's own, or all that the data set has.
        seeds: How many, from the configuration's seed on.
        split_seeds: See :class:`AblationPlan`.
        splits: On each of which every row is run; None: on the configuration's alone.
        compares: See :class:`AblationPlan`.

    Raises:
        ConfigError: Everything that is wrong with it, in one message.
        DataError: The data set cannot be used.
    """
    problems: list[str] = []
    given = chosen_layer(resolved)
    below = Layer(spec.name, spec.settings, _places(spec, "settings"))
    base = _resolved([below, given], problems, "")
    rows = []
    for row in spec.rows:
        above = Layer(f"row {row.name}", row.settings, _places(spec, f"rows.{row.name}"))
        config = _resolved([below, given, above], problems, f"row {row.name}: ")
        if base is not None and config is not None:
            before, after = _flat(base), _flat(config)
            # What the row says, and what else that changes: its method has defaults.
            settings = {
                key: value
                for key, value in after.items()
                if key in row.settings or key not in before or value != before[key]
            }
            rows.append(replace(row, settings=settings, as_published=None))
        problems += [
            f"row {row.name} sets {key}, and so does {resolved.origins[key]}: leave that out"
            for key in row.settings
            if resolved.origins.get(key, DEFAULT).startswith("--")  # typed for this call
        ]
    if problems or base is None:
        raise as_error(list(dict.fromkeys(problems)), spec)
    chosen = categories_of(base, categories)
    if categories is None:  # those that the table is about, as far as they are given
        chosen = tuple(category for category in chosen if category in spec.categories) or chosen
    name = name or spec.name
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise ConfigError(
            "the name of an ablation is the name of its folder too",
            where=f"--name {visible(name)}",
            fix="leave out slashes, and a dot at the beginning",
        )
    plan = AblationPlan(
        name=name,
        spec=replace(spec, rows=tuple(rows), settings={}, places={}),
        config=base,
        categories=chosen,
        seeds=_seeds(seeds),
        split_seeds=split_seeds,
        splits=() if splits is None else splits_of(base, chosen[0], splits),
        compares=compares,
    )
    check_plan(plan)
    return plan


def check_plan(plan: AblationPlan) -> None:
    """Look at everything that cells will need: data, splits, backbones and their taps.

    Raises:
        ConfigError: All that is wrong, in one message.
    """
    problems: list[str] = []
    by_config: dict[str, str] = {}
    for row in plan.spec.rows:
        other = by_config.setdefault(digest(plan.row_config(row)), row.name)
        if other != row.name:
            problems.append(f"rows {other} and {row.name} come to the same configuration: one is enough")
    cells = plan.cells()
    by_run_id: dict[str, str] = {}
    for cell in cells:
        other = by_run_id.setdefault(cell.task.run_id, cell.task.key)
        if other != cell.task.key:
            problems.append(f"cells {other} and {cell.task.key} would have the same run_id: rename a row")
    problems += problems_with(cells)
    if problems:
        raise as_error(list(dict.fromkeys(problems)), plan.spec)


# ------------------------------------------------------------------------------------------------ layers


def _resolved(layers: list[Layer], problems: list[str], prefix: str) -> Config | None:
    try:
        return with_methods(layers)
    except ConfigError as error:
        lines = [line.removeprefix("  - ") for line in error.what.splitlines()]
        problems += [f"{prefix}{line}" for line in (lines[1:] or lines)]
        return None


def _places(spec: AblationSpec, prefix: str) -> dict[str, str]:
    return {
        key.removeprefix(f"{prefix}."): place
        for key, place in spec.places.items()
        if key.startswith(f"{prefix}.")
    }


def _flat(config: Config) -> dict[str, Any]:
    return flatten(config.model_dump(mode="json"))


def _seeds(seeds: int) -> int:
    if seeds < 1:
        raise ConfigError(f"{seeds} seeds", where="--seeds", fix="give 1 or more")
    return seeds
