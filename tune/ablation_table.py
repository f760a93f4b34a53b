"""From the folders of finished cells to the table of an ablation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nfbmr.errors import OutputError
from nfbmr.evaluation.intervals import UNDEFINED
from nfbmr.paths import RunPaths, read_json
from nfbmr.wording import count, plural
from tune.ablation_plan import AblationPlan, Cell
from tune.benchmarks import BENCHMARKS
from tune.rows import IMAGE_METRICS, PIXEL_METRICS, Published, Row
from tune.scores import kinds_of, of_kind, read_scores
from tune.statistics import CellScores, Comparison, Mean
from tune.tables import Entry, Line, Table

NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Results:
    """What the cells came to.

    Attributes:
        table: For people.
        trained: Flows that were trained.
        reused: Flows that a cell found in the store.
        saved: Seconds of training that were not needed for that.
        seconds: That cells took, together.
        summaries: Of the finished runs, by the cell's key.
    """

    table: Table
    trained: int
    reused: int
    saved: float
    seconds: float
    summaries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def gather(plan: AblationPlan, cells: Sequence[Cell], failed: Mapping[str, str]) -> Results:
    """Read what is finished, and compare the rows.

    Args:
        plan: What was asked.
        cells: All of it, or those of one split.
        failed: Why a cell has no result, by its key.
    """
    summaries: dict[str, Mapping[str, Any]] = {}
    scores: list[CellScores] = []
    missing: dict[str, str] = {}
    for cell in cells:
        paths = RunPaths(cell.task.folder)
        if not paths.summary.exists():
            missing[cell.task.key] = failed.get(cell.task.key, NOT_RUN)
            continue
        try:
            summary = read_json(paths.summary)
            scores.append(read_scores(cell, paths))
        except OutputError as error:
            missing[cell.task.key] = error.what
            continue
        summaries[cell.task.key] = summary
    reused = [bool(one["reused"]["flow"]) for one in summaries.values() if "flow" in one["reused"]]
    return Results(
        table=_table(plan, cells, scores, summaries, missing),
        trained=reused.count(False),
        reused=reused.count(True),
        saved=sum(sum(summary["saved_seconds"].values()) for summary in summaries.values()),
        seconds=sum(sum(summary["timings"].values()) for summary in summaries.values()),
        summaries=summaries,
    )


def _table(
    plan: AblationPlan,
    cells: Sequence[Cell],
    scores: Sequence[CellScores],
    summaries: Mapping[str, Mapping[str, Any]],
    missing: Mapping[str, str],
) -> Table:
    lattice = plan.lattice
    several = len(plan.categories) > 1
    parts = tuple(map(str, plan.categories)) if several else kinds_of(scores)
    by_part = scores if several else [of_kind(cell, kind) for cell in scores for kind in parts]
    lost = {
        row.name: [cell for cell in cells if cell.row == row.name and cell.task.key in missing]
        for row in lattice.rows
    }
    groups = _groups(plan)
    members: dict[str | None, tuple[str | None, ...]] = {None: plan.categories}
    for name in (*groups, *parts):
        members[name] = groups.get(name, (name,))
    wanted = (*IMAGE_METRICS, *(metric for metric in lattice.metrics if metric in PIXEL_METRICS))
    whole = _compared(plan, scores, wanted)
    broken_down = whole if several else _compared(plan, by_part, tuple(IMAGE_METRICS))
    entries: dict[str, dict[str, dict[str | None, Entry]]] = {row.name: {} for row in lattice.rows}
    for row in lattice.rows:
        for metric in wanted:
            own = entries[row.name][metric] = {}
            for part, categories in members.items():
                found = whole if part is None else broken_down
                holes = sum(not several or cell.category in categories for cell in lost[row.name])
                if metric in found:
                    own[part] = _entry(found[metric], row.name, lattice.reference, categories, holes)
                else:
                    own[part] = Entry(Mean(UNDEFINED), None, holes)
    return Table(
        name=lattice.name,
        title=lattice.title,
        about=about(plan, summaries),
        metric=lattice.metric,
        reference=lattice.reference,
        lines=tuple(
            Line(row.name, entries[row.name], _said(plan, row), plan.row_config(row).selection.on == "test")
            for row in lattice.rows
        ),
        quoted=tuple(Line(row.name, {}, _said(plan, row)) for row in lattice.quoted),
        also=lattice.also,
        groups={name: _share(plan, name, of) for name, of in groups.items()},
        whole=_name_of_whole(plan),
        over=lattice.over or "",
        curves=lattice.curves(),
        pictures=lattice.pictures,
        parts=parts,
        by="category" if several else "kind",
        confidence=plan.config.evaluation.confidence,
        notes=tuple(_notes(plan, cells, summaries)),
        missing=missing,
    )


def _compared(
    plan: AblationPlan, scores: Sequence[CellScores], metrics: Sequence[str]
) -> dict[str, Comparison]:
    evaluation = plan.config.evaluation
    return Comparison.of_each(
        scores,
        metrics,
        resamples=evaluation.bootstrap,
        confidence=evaluation.confidence,
        seed=plan.config.seed,
        aupro_limit=evaluation.aupro_limit,
    )


def _groups(plan: AblationPlan) -> dict[str, tuple[str, ...]]:
    """Groups of categories that the published data set has, as far as their categories are given."""
    benchmark = BENCHMARKS.get(plan.lattice.dataset or "")
    if benchmark is None or len(plan.categories) < 2:
        return {}
    given = {
        name: tuple(one for one in of if one in plan.categories) for name, of in benchmark.groups.items()
    }
    return {name: of for name, of in given.items() if of}


def _share(plan: AblationPlan, group: str, given: Sequence[str]) -> str:
    """How many of a group's categories are given, in words."""
    every = len(BENCHMARKS[plan.lattice.dataset or ""].groups[group])
    return f"mean of {every}" if len(given) == every else f"mean of {len(given)} of {every}"


def _said(plan: AblationPlan, row: Row) -> dict[str, dict[str | None, Published]]:
    """What was published for a row; where one category is given alone, for that one where it is known."""
    said = {metric: dict(parts) for metric, parts in row.published.items()}
    if len(plan.categories) == 1 and plan.categories[0] is not None and plan.lattice.dataset is not None:
        (category,) = plan.categories
        ones = {metric: parts.get(category, parts.get(None)) for metric, parts in said.items()}
        said = {metric: {None: one} for metric, one in ones.items() if one is not None}
    return said


def _name_of_whole(plan: AblationPlan) -> str:
    """What the whole is called beside its parts; a mean over part of a data set says so."""
    if len(plan.categories) < 2:
        return "all kinds"
    benchmark = BENCHMARKS.get(plan.lattice.dataset or "")
    given = () if benchmark is None else benchmark.among(plan.categories)
    if benchmark is None or not given or len(given) == len(benchmark.categories):
        return "mean"
    return f"mean of {len(plan.categories)} of {len(benchmark.categories)}"


def _entry(
    comparison: Comparison, row: str, reference: str, parts: Sequence[str | None], missing: int
) -> Entry:
    other = None if row == reference else comparison.difference(row, reference, parts)
    return Entry(comparison.mean(row, parts), other, missing)


def about(plan: AblationPlan, summaries: Mapping[str, Mapping[str, Any]], splits: Sequence[str] = ()) -> str:
    """What the numbers are of, in one line.

    Args:
        plan: What was asked.
        summaries: Of finished runs.
        splits: Those that the numbers are of; by default that of the runs.
    """
    some = next(iter(summaries.values()), None)
    data = plan.config.data
    name = str(data.path or "the synthetic set") if some is None else str(some["dataset"]["name"])
    if len(plan.categories) > 1:
        name = f"{name.partition('/')[0]}, {len(plan.categories)} categories"
    shown = splits or (data.split if some is None else some["split"],)
    split = f"split {shown[0]}" if len(shown) == 1 else f"splits {' and '.join(shown)}"
    seeds = plan.all_seeds
    drawn = "one split for all seeds" if plan.split_seeds == "same" else "a split of its own for each seed"
    used = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}, {drawn}"
    return f"{name}, {split}; {used}; {_features(plan)}"


def _features(plan: AblationPlan) -> str:
    """Backbone and size, where all rows have the same."""
    configs = [plan.row_config(row).features for row in plan.lattice.rows]
    seen = dict.fromkeys(f"{one.backbone} at {one.size} px" for one in configs)
    return next(iter(seen)) if len(seen) == 1 else "backbone and size as each row has them"


def _notes(
    plan: AblationPlan, cells: Sequence[Cell], summaries: Mapping[str, Mapping[str, Any]]
) -> Iterable[str]:
    """What a reader has to know."""
    level = f"{plan.config.evaluation.confidence:.0%}"
    units = "parts" if any(_grouped(cell) for cell in cells if cell.task.key in summaries) else "images"
    source = f"other test {units}" if plan.seeds == 1 else f"other test {units} and other seeds"
    yield f"Intervals hold {level}: {source} would move a number that far; see docs/ablations.md."
    if plan.seeds == 1:
        yield "One seed: how much training runs differ is not measured, and not in the intervals."
    yield (
        f"Differences are paired: the same {units}, the same seeds. A tie is one whose interval contains "
        "zero. Each comparison stands alone; with many of them, some intervals miss by chance."
    )
    yield from plan.lattice.notes
    yield from _about_published(plan)
    if any(plan.row_config(row).selection.on == "test" for row in plan.lattice.rows):
        yield "Test-peeked rows made choices on the test set; they say nothing of new parts."
    leaks: dict[str, list[str]] = {}
    for cell in cells:
        finding = (summaries.get(cell.task.key) or {}).get("leak")
        if finding:
            leaks.setdefault(finding, []).append(cell.category or "")
    for finding, categories in leaks.items():
        about = ", ".join(sorted(set(categories) - {""}))
        yield f"Leak{f' in {about}' if about else ''}: {finding}"
    unreadable = {
        (cell.category, name)
        for cell in cells
        for name in (summaries.get(cell.task.key) or {}).get("unreadable") or {}
    }
    if unreadable:
        are = plural(len(unreadable), "is", "are")
        yield f"{count(len(unreadable), 'test image')} could not be read and {are} not counted."


def _about_published(plan: AblationPlan) -> Iterable[str]:
    """On what the published numbers were measured, and what of that is not in this table."""
    lattice = plan.lattice
    said = [one for row in (*lattice.rows, *lattice.quoted) for parts in row.published.values()
            for one in parts.values()]  # fmt: skip
    for protocol in sorted({one.protocol for one in said} - {""}):
        yield f"Published numbers were measured otherwise ({protocol}): compare differences, not levels."
    if lattice.quoted:
        names = ", ".join(row.name for row in lattice.quoted)
        yield f"Not run, since this package does not have them, but quoted: {names}."
    benchmark = BENCHMARKS.get(lattice.dataset or "")
    if benchmark is None:
        return
    given = benchmark.among(plan.categories)
    lacking = [name for name in benchmark.categories if name not in given]
    if not given:
        yield (
            f"MISSING: these are not images of {benchmark.title}, which the published numbers are of: they "
            "say in what order the rows stood there, and no more."
        )
    elif lacking:
        yield (
            f"MISSING: {count(len(lacking), 'category', 'categories')} of {benchmark.title} are not given: "
            f"{', '.join(lacking)}. Published means are over all {len(benchmark.categories)}."
        )


def _grouped(cell: Cell) -> bool:
    split = RunPaths(cell.task.folder).split
    return split.exists() and bool(read_json(split)["grouped"])


def summarise(plan: AblationPlan, results: Results, pictures: Sequence[Path]) -> dict[str, Any]:
    """What ``--json`` prints."""
    table, paths = results.table, plan.paths
    settings = {row.name: dict(row.settings) for row in plan.lattice.rows}
    rows = {line.name: {"settings": settings[line.name], **row_json(table, line)} for line in table.lines}
    return {
        "name": plan.name,
        "ablation_dir": str(paths.root),
        "table": plan.lattice.name,
        "title": table.title,
        "about": table.about,
        "metric": table.metric,
        "reference": table.reference,
        "seeds": list(plan.all_seeds),
        "split_seeds": plan.split_seeds,
        "categories": [category for category in plan.categories if category is not None],
        "by": table.by,
        "metrics": list(plan.lattice.metrics),
        "rows": rows,
        "quoted": {line.name: _said_json(line.published) for line in table.quoted},
        "cells": {"asked": len(plan.cells()), "missing": dict(table.missing)},
        "flows": {"trained": results.trained, "reused": results.reused, "saved_seconds": results.saved},
        "seconds": results.seconds,
        "notes": list(table.notes),
        "files": {kind: str(paths.table(kind)) for kind in ("md", "csv", "tex")},
        "pictures": [str(path) for path in pictures],
        "config": plan.config.model_dump(mode="json"),
    }


def row_json(table: Table, line: Line) -> dict[str, Any]:
    """A row's numbers, as ``--json`` prints them."""
    first = line.said(table.metric)
    return {
        "metrics": {name: _entry_json(entries[None]) for name, entries in line.entries.items()},
        "parts": {name: _entry_json(table.entry(line, name)) for name in (*table.parts, *table.groups)},
        "published": None if first is None else dict(vars(first)),
        "all_published": _said_json(line.published),
        "test_peeked": line.peeked,
    }


def _said_json(published: Mapping[str, Mapping[str | None, Published]]) -> dict[str, Any]:
    return {
        metric: {"all" if part is None else part: one.value for part, one in parts.items()}
        for metric, parts in published.items()
    }


def _entry_json(entry: Entry) -> dict[str, Any]:
    mean, difference = entry.mean, entry.difference
    found: dict[str, Any] = {
        **mean.estimate.as_json(),
        "seeds": mean.seeds,
        "by_seed": list(mean.values),
        "sd_seeds": None if np.isnan(mean.deviation) else mean.deviation,
        "missing_cells": entry.missing,
    }
    if difference is not None:
        found["difference"] = {
            **difference.estimate.as_json(),
            "verdict": difference.verdict,
            "same_images": difference.same_images,
        }
    return found
