"""``nfbmr compare``: every method on one's own data, an ablation whose rows are the methods.

Cells, tables and intervals are the ablation's; what is added is what each row costs to use
(:mod:`tune.costing`), one table with both, and one picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nfbmr.costs import WARM, Cost, fitting_seconds, training_views
from nfbmr.errors import ConfigError
from nfbmr.fields import did_you_mean
from nfbmr.methods.named import NAMED
from nfbmr.methods.table import method_named, methods
from nfbmr.nesting import flatten
from nfbmr.paths import write_text
from nfbmr.wording import count, plural, visible
from tune.ablation_plan import AblationPlan, Cell
from tune.ablation_table import Results, about, gather, row_json
from tune.comparison_figure import draw_comparison
from tune.comparison_table import (
    QUALITY,
    Compared,
    Contender,
    cost_numbers,
    csv_text,
    latex,
    markdown,
    names,
    pareto,
)
from tune.costing import costs_of, timed_cells
from tune.rows import Lattice, Row
from tune.tables import missing_notes

NAME = "compare"
BUSY = 0.15
"""Cores that others kept busy, from which on timings come with a warning."""


def comparison_lattice(chosen: Sequence[str] | None = None) -> Lattice:
    """The table whose rows are methods.

    Args:
        chosen: Names of methods, of named configurations, or ``module:attribute``; by default every
            registered method in its own default configuration, for which packages are enough.

    Raises:
        ConfigError: One of them does not exist, or is named twice.

    Example:
        >>> [dict(row.settings) for row in comparison_lattice(["padim", "nf"]).rows]
        [{'method': 'padim'}, {'method': 'nf'}]
    """
    wanted = tuple(methods()) if chosen is None else tuple(chosen)
    if not wanted or len(set(wanted)) < len(wanted):
        raise ConfigError(
            "no methods" if not wanted else "a method is named twice",
            where=f"--methods {','.join(wanted)}",
            fix="name each once, with commas between; or leave it out for all",
        )
    rows = tuple(Row(name, _settings(name)) for name in wanted)
    return with_costs(Lattice(NAME, "Methods compared", QUALITY[0], rows[0].name, rows))


def with_costs(lattice: Lattice) -> Lattice:
    """A table with the metrics that a comparison shows, whatever it had."""
    return replace(lattice, metric=QUALITY[0], also=QUALITY[1:])


def _settings(name: str) -> dict[str, Any]:
    if name in NAMED and "method" in NAMED[name]:
        return flatten(NAMED[name])
    if name not in methods() and ":" not in name:
        known = [*methods(), *(one for one in NAMED if "method" in NAMED[one])]
        raise ConfigError(
            f"no method {visible(name)}{did_you_mean(name, known)}",
            where="--methods",
            fix=f"there are {', '.join(known)}; or module:attribute",
        )
    method_named(name)  # one of a module that cannot be imported is refused here
    return {"method": name}


def conclude(plan: AblationPlan, cells: Sequence[Cell], failed: Mapping[str, str]) -> dict[str, Any]:
    """Write the table and the picture of what is finished, and summarise it.

    Args:
        plan: What was asked.
        cells: All of it.
        failed: Why a cell has no result, by its key.

    Returns:
        The summary, as ``--json`` prints it.
    """
    by_split = {
        split: gather(plan, [cell for cell in cells if cell.split == split], failed) for split in plan.splits
    }
    compared = _compared(plan, cells, by_split)
    paths = plan.paths
    write_text(paths.table("md"), markdown(compared))
    write_text(paths.table("csv"), csv_text(compared))
    write_text(paths.table("tex"), latex(compared))
    picture = draw_comparison(compared, paths.scatter)
    return _summary(plan, cells, compared, by_split, [] if picture is None else [str(picture)])


def _compared(plan: AblationPlan, cells: Sequence[Cell], by_split: Mapping[str, Results]) -> Compared:
    tables = {split: results.table for split, results in by_split.items()}
    costs = costs_of(cells)
    summaries = {key: one for results in by_split.values() for key, one in results.summaries.items()}
    contenders = [
        _contender(row.name, cells, summaries, by_split, costs.get(row.name)) for row in plan.lattice.rows
    ]
    first = Compared(
        name=plan.name,
        title=plan.lattice.title,
        about=about(plan, summaries, plan.splits),
        machine=_machine(costs),
        tables=tables,
        contenders=tuple(contenders),
        notes=tuple(_notes(tables, costs, cells)),
    )
    return _ranked(first)


def _contender(
    row: str,
    cells: Sequence[Cell],
    summaries: Mapping[str, Mapping[str, Any]],
    by_split: Mapping[str, Results],
    cost: Cost | None,
) -> Contender:
    """A method's numbers; its times are means over all of its runs."""
    own = [summaries[cell.task.key] for cell in cells if cell.row == row and cell.task.key in summaries]
    reading = math.nan
    if own and cost is not None:
        a_view = cost.reading.value / cost.views / 1000
        reading = float(np.mean([training_views(one) for one in own])) * a_view
    return Contender(
        name=row,
        lines={
            split: next(line for line in results.table.lines if line.name == row)
            for split, results in by_split.items()
        },
        cost=cost,
        fitting=float(np.mean([fitting_seconds(one) for one in own])) if own else math.nan,
        reading=reading,
    )


def _ranked(compared: Compared) -> Compared:
    """Best first by the first split, and each one's place on the fronts."""
    fronts = {
        split: pareto(
            {
                one.name: (one.cost.one.value, compared.estimate(one, split).value)
                for one in compared.contenders
                if one.cost is not None
            }
        )
        for split in compared.tables
    }
    first = next(iter(compared.tables))

    def worth(one: Contender) -> float:
        value = compared.estimate(one, first).value
        return math.inf if math.isnan(value) else -value

    placed = [
        replace(one, front=tuple(split for split in fronts if one.name in fronts[split]))
        for one in sorted(compared.contenders, key=worth)
    ]
    return replace(compared, contenders=tuple(placed))


def _machine(costs: Mapping[str, Cost]) -> str:
    """Where times were measured, in a line."""
    if not costs:
        return "Nothing was timed"
    machine = next(iter(costs.values())).machine
    processor = (
        machine["gpu"]
        or f"{machine['cpu']}, {count(machine['cpus'], 'core')}, {count(machine['threads'], 'thread')}"
    )
    return f"Times on {processor}"


def _notes(tables: Mapping[str, Any], costs: Mapping[str, Cost], cells: Sequence[Cell]) -> Iterator[str]:
    """What a reader has to know: how it was timed, then what the ablation's tables say, each once."""
    if costs:
        batches = sorted({cost.batch for cost in costs.values()})
        many = str(batches[0]) if len(batches) == 1 else f"{batches[0]} to {batches[-1]}"
        fewest, most = (pick(cost.one.calls for cost in costs.values()) for pick in (min, max))
        calls = str(most) if fewest == most else f"{fewest} to {most}"
        yield (
            "Milliseconds an image are end to end, from the file to the score: one image a call, the median "
            f"of {calls} calls after {WARM} to warm up, with the range of the middle 80 %; batched: {many} "
            "images a call. Measured after all runs had ended, method by method, in one process."
        )
        yield (
            "Training is from image files to a model with an empty store: fitting as long as it took here, "
            "beside other runs, and reading the training images at the measured pace. Methods share the "
            "store, so less time was spent."
        )
        yield (
            "Parameters: trained + of the frozen backbone, as far as it is used. MB on disk: the model, with "
            "whatever it measured on the training images, + the backbone's weights."
        )
        yield "Front: no other method is both faster and better, by the values, whatever their intervals."
        disturbed = [row for row, cost in costs.items() if cost.others > BUSY]
        if disturbed:
            were = plural(len(disturbed), "was", "were")
            yield (
                f"TIMES ARE TOO LONG: other processes kept the machine busy while {names(disturbed)} {were} "
                f"timed. On an idle machine, resume with --measure-again."
            )
    unmeasured = sorted(set(timed_cells(cells)) - set(costs))
    if unmeasured:
        yield f"What {names(unmeasured)} costs to use was not measured."
    said = {split: (*table.notes, *missing_notes(table)) for split, table in tables.items()}
    for split, notes in said.items():
        for note in notes:
            if all(note in others for others in said.values()):
                if split == next(iter(said)):
                    yield note
            else:
                yield note if note.startswith("Leak") else f"Split {split}: {note}"


def _summary(
    plan: AblationPlan,
    cells: Sequence[Cell],
    compared: Compared,
    by_split: Mapping[str, Results],
    pictures: list[str],
) -> dict[str, Any]:
    missing = {key: why for results in by_split.values() for key, why in results.table.missing.items()}
    settings = {row.name: dict(row.settings) for row in plan.lattice.rows}
    rows = {
        one.name: {
            "settings": settings[one.name],
            "splits": {split: row_json(table, one.lines[split]) for split, table in compared.tables.items()},
            "cost": None if one.cost is None else {**cost_numbers(one.cost), **one.cost.as_json()},
            "fitting_seconds": one.fitting,
            "training_seconds": one.training,
            "front": list(one.front),
        }
        for one in compared.contenders
    }
    results = by_split.values()
    return {
        "name": plan.name,
        "ablation_dir": str(plan.paths.root),
        "table": plan.lattice.name,
        "title": compared.title,
        "about": compared.about,
        "machine": compared.machine,
        "metric": plan.lattice.metric,
        "metrics": list(compared.metrics),
        "reference": plan.lattice.reference,
        "seeds": list(plan.all_seeds),
        "split_seeds": plan.split_seeds,
        "splits": list(plan.splits),
        "categories": [category for category in plan.categories if category is not None],
        "rows": rows,
        "cells": {"asked": len(cells), "missing": missing},
        "flows": {
            "trained": sum(one.trained for one in results),
            "reused": sum(one.reused for one in results),
            "saved_seconds": sum(one.saved for one in results),
        },
        "seconds": sum(one.seconds for one in results),
        "notes": list(compared.notes),
        "files": {kind: str(plan.paths.table(kind)) for kind in ("md", "csv", "tex")},
        "pictures": pictures,
        "config": plan.config.model_dump(mode="json"),
    }
