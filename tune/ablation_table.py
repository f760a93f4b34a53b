"""From the folders of finished cells to the table of an ablation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nfbmr.data.samples import GOOD
from nfbmr.errors import OutputError
from nfbmr.paths import RunPaths, read_json
from nfbmr.wording import count, plural
from tune.ablation_plan import AblationPlan, Cell
from tune.lattice import METRICS
from tune.statistics import CellScores, Comparison
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
    """

    table: Table
    trained: int
    reused: int
    saved: float
    seconds: float


def gather(plan: AblationPlan, cells: Sequence[Cell], failed: Mapping[str, str]) -> Results:
    """Read what is finished, and compare the rows.

    Args:
        plan: What was asked.
        cells: All of it.
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
    reused = [bool(summary["reused"].get("flow")) for summary in summaries.values()]
    return Results(
        table=_table(plan, cells, scores, summaries, missing),
        trained=reused.count(False),
        reused=reused.count(True),
        saved=sum(sum(summary["saved_seconds"].values()) for summary in summaries.values()),
        seconds=sum(sum(summary["timings"].values()) for summary in summaries.values()),
    )


def read_scores(cell: Cell, paths: RunPaths) -> CellScores:
    """A finished cell's scores of its test images.

    Raises:
        OutputError: They are missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["side", "name", "defect", "group", "score", "rejected"]
    try:
        rows = [
            row for row in pq.read_table(paths.scores, columns=columns).to_pylist() if row["side"] == "test"
        ]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise OutputError(
            f"scores cannot be read ({type(error).__name__})", where=paths.scores, fix="run the cell again"
        ) from error
    grouped = bool(read_json(paths.split)["grouped"])
    return CellScores(
        row=cell.row,
        category=cell.category,
        seed=cell.seed,
        names=[row["name"] for row in rows],
        defective=np.asarray([row["defect"] != GOOD for row in rows], dtype=np.bool_),
        score=np.asarray([row["score"] for row in rows], dtype=np.float64),
        rejected=np.asarray([row["rejected"] for row in rows], dtype=np.bool_),
        groups=[row["group"] for row in rows] if grouped else None,
        kinds=[row["defect"] for row in rows],
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
    entries: dict[str, dict[str, dict[str | None, Entry]]] = {row.name: {} for row in lattice.rows}
    for metric in METRICS:
        whole = _compared(plan, scores, metric)
        broken_down = whole if several else _compared(plan, by_part, metric)
        for row in lattice.rows:
            own = entries[row.name][metric] = {}
            own[None] = _entry(whole, row.name, lattice.reference, plan.categories, len(lost[row.name]))
            for part in parts:
                holes = sum(cell.category == part or not several for cell in lost[row.name])
                own[part] = _entry(broken_down, row.name, lattice.reference, (part,), holes)
    return Table(
        name=lattice.name,
        title=lattice.title,
        about=_about(plan, summaries),
        metric=lattice.metric,
        reference=lattice.reference,
        lines=tuple(
            Line(row.name, entries[row.name], row.published, plan.row_config(row).selection.on == "test")
            for row in lattice.rows
        ),
        parts=parts,
        by="category" if several else "kind",
        confidence=plan.config.evaluation.confidence,
        notes=tuple(_notes(plan, cells, summaries)),
        missing=missing,
    )


def _compared(plan: AblationPlan, scores: Sequence[CellScores], metric: str) -> Comparison:
    evaluation = plan.config.evaluation
    return Comparison(
        scores,
        metric,
        resamples=evaluation.bootstrap,
        confidence=evaluation.confidence,
        seed=plan.config.seed,
    )


def _entry(
    comparison: Comparison, row: str, reference: str, parts: Sequence[str | None], missing: int
) -> Entry:
    other = None if row == reference else comparison.difference(row, reference, parts)
    return Entry(comparison.mean(row, parts), other, missing)


def kinds_of(scores: Sequence[CellScores]) -> tuple[str, ...]:
    """Kinds of defect that every cell's test images show; none where there is one alone."""
    found = [{kind for kind in cell.kinds if kind != GOOD} for cell in scores]
    kinds = set.intersection(*found) if found else set()
    return tuple(sorted(kinds)) if len(kinds) > 1 else ()


def of_kind(cell: CellScores, kind: str) -> CellScores:
    """A cell's good images and those with one kind of defect, as if the kind were a category."""
    rows = [i for i, own in enumerate(cell.kinds) if own in (GOOD, kind)]
    return replace(
        cell,
        category=kind,
        names=[cell.names[i] for i in rows],
        defective=cell.defective[rows],
        score=cell.score[rows],
        rejected=cell.rejected[rows],
        groups=None if cell.groups is None else [cell.groups[i] for i in rows],
        kinds=[cell.kinds[i] for i in rows],
    )


def _about(plan: AblationPlan, summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """What the numbers are of, in one line."""
    some = next(iter(summaries.values()), None)
    data = plan.config.data
    name = str(data.path or "the synthetic set") if some is None else str(some["dataset"]["name"])
    if len(plan.categories) > 1:
        name = f"{name.partition('/')[0]}, {len(plan.categories)} categories"
    split = data.split if some is None else some["split"]
    seeds = plan.all_seeds
    shown = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    drawn = "one split for all seeds" if plan.split_seeds == "same" else "a split of its own for each seed"
    features = plan.config.features
    return f"{name}, split {split}; {shown}, {drawn}; {features.backbone} at {features.size} px"


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
    published = {row.published.protocol for row in plan.lattice.rows if row.published}
    for protocol in sorted(published - {""}):
        yield f"Published numbers were measured otherwise ({protocol}): compare differences, not levels."
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


def _grouped(cell: Cell) -> bool:
    split = RunPaths(cell.task.folder).split
    return split.exists() and bool(read_json(split)["grouped"])


def summarise(plan: AblationPlan, results: Results, pictures: Sequence[Path]) -> dict[str, Any]:
    """What ``--json`` prints."""
    table, paths = results.table, plan.paths
    rows = {}
    for line in table.lines:
        rows[line.name] = {
            "settings": dict(next(row.settings for row in plan.lattice.rows if row.name == line.name)),
            "metrics": {name: _entry_json(entries[None]) for name, entries in line.entries.items()},
            "parts": {name: _entry_json(table.entry(line, name)) for name in table.parts},
            "published": None if line.published is None else dict(vars(line.published)),
            "test_peeked": line.peeked,
        }
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
        "rows": rows,
        "cells": {"asked": len(plan.cells()), "missing": dict(table.missing)},
        "flows": {"trained": results.trained, "reused": results.reused, "saved_seconds": results.saved},
        "seconds": results.seconds,
        "notes": list(table.notes),
        "files": {kind: str(paths.table(kind)) for kind in ("md", "csv", "tex")},
        "pictures": [str(path) for path in pictures],
        "config": plan.config.model_dump(mode="json"),
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
