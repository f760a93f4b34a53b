"""From the folders of finished cells to the table of an ablation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nfbmr.errors import OutputError
from nfbmr.evaluation.intervals import UNDEFINED
from nfbmr.evaluation.summary import RunSummary
from nfbmr.paths import RunPaths, read_json
from nfbmr.text import count, plural
from tune.ablation.cell import Cell
from tune.ablation.plan import AblationPlan
from tune.ablation.reference_datasets import BENCHMARKS
from tune.ablation.scores import kinds_of, of_kind, read_scores
from tune.records.ablation_summary import (
    AblationRow,
    AblationSummary,
    CellFacts,
    DifferenceFacts,
    EntryFacts,
    FlowFacts,
    PublishedFacts,
    RowFacts,
    SavedSeconds,
)
from tune.tables.cell_scores import CellScores
from tune.tables.rows import IMAGE_METRICS, PIXEL_METRICS, WHOLE, Published, Reports, Row
from tune.tables.statistics import Comparison, Mean
from tune.tables.table import Entry, Line, Table

_NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Results:
    """What the cells came to.

    Attributes:
        table: For people.
        trained: Flows that were trained.
        reused: Flows that a cell found in the store.
        saved: Seconds of training that were not needed, as the store had stages of any kind.
        seconds: That cells took, together.
        summaries: Summaries of the finished runs, by the cell's key.
    """

    table: Table
    trained: int
    reused: int
    saved: float
    seconds: float
    summaries: Mapping[str, RunSummary] = field(default_factory=dict)


def gather(plan: AblationPlan, cells: Sequence[Cell], failed: Mapping[str, str]) -> Results:
    """Read what is finished, and compare the rows.

    Args:
        plan: What was asked.
        cells: All of it, or those of one split.
        failed: Why a cell has no result, by its key.
    """
    summaries: dict[str, RunSummary] = {}
    scores: list[CellScores] = []
    missing: dict[str, str] = {}
    for cell in cells:
        paths = RunPaths(cell.task.folder)
        if not paths.summary.exists():
            missing[cell.task.key] = failed.get(cell.task.key, _NOT_RUN)
            continue
        try:
            summary = RunSummary.read(paths.summary)
            scores.append(read_scores(cell, paths))
        except OutputError as error:
            missing[cell.task.key] = error.what
            continue
        summaries[cell.task.key] = summary
    reused = [summary.reused["flow"] for summary in summaries.values() if "flow" in summary.reused]
    return Results(
        table=_table(plan, cells, scores, summaries, missing),
        trained=reused.count(False),
        reused=reused.count(True),
        saved=sum(summary.total_saved_seconds for summary in summaries.values()),
        seconds=sum(summary.total_seconds for summary in summaries.values()),
        summaries=summaries,
    )


def _table(
    plan: AblationPlan,
    cells: Sequence[Cell],
    scores: Sequence[CellScores],
    summaries: Mapping[str, RunSummary],
    missing: Mapping[str, str],
) -> Table:
    spec = plan.spec
    several = len(plan.categories) > 1
    names = tuple(map(str, plan.categories)) if several else kinds_of(scores)
    by_name = scores if several else [of_kind(cell, kind) for cell in scores for kind in names]
    lost = {
        row.name: [cell for cell in cells if cell.row == row.name and cell.task.key in missing]
        for row in spec.rows
    }
    groups = _groups(plan)
    members: dict[str | None, tuple[str | None, ...]] = {None: plan.categories}
    for name in (*groups, *names):
        members[name] = groups[name][0] if name in groups else (name,)
    wanted = (*IMAGE_METRICS, *(metric for metric in spec.metrics if metric in PIXEL_METRICS))
    whole = _compared(plan, scores, wanted)
    broken_down = whole if several else _compared(plan, by_name, tuple(IMAGE_METRICS))
    entries: dict[str, dict[str, dict[str | None, Entry]]] = {row.name: {} for row in spec.rows}
    for row in spec.rows:
        for metric in wanted:
            of_metric = entries[row.name][metric] = {}
            for member, categories in members.items():
                comparison = (whole if member is None else broken_down).get(metric)
                holes = sum(not several or cell.category in categories for cell in lost[row.name])
                mean, difference = Mean(UNDEFINED), None
                if comparison is not None:
                    mean = comparison.mean(row.name, categories)
                    if row.name != spec.reference:
                        difference = comparison.difference(row.name, spec.reference, categories)
                of_metric[member] = Entry(mean, difference, holes)
    return Table(
        name=spec.name,
        title=spec.title,
        about=about(plan, summaries),
        metric=spec.metric,
        reference=spec.reference,
        lines=tuple(
            Line(
                row.name,
                entries[row.name],
                _published_for(plan, row),
                plan.row_config(row).selection.on == "test",
            )
            for row in spec.rows
        ),
        literature_rows=tuple(Line(row.name, {}, _published_for(plan, row)) for row in spec.literature_rows),
        secondary_metrics=spec.secondary_metrics,
        groups={name: share for name, (_, share) in groups.items()},
        whole=_name_of_whole(plan),
        sweep_key=spec.sweep_key or "",
        curves=spec.curves(),
        pictures=spec.pictures,
        categories=names,
        breakdown="category" if several else "kind",
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


def _groups(plan: AblationPlan) -> dict[str, tuple[tuple[str, ...], str]]:
    """Groups that the published data set has: their categories as far as given, and how many these are."""
    benchmark = BENCHMARKS.get(plan.spec.dataset or "")
    if benchmark is None or len(plan.categories) < 2:
        return {}
    groups = {}
    for name, every in benchmark.groups.items():
        given = tuple(category for category in every if category in plan.categories)
        share = f"{len(every)}" if len(given) == len(every) else f"{len(given)} of {len(every)}"
        if given:
            groups[name] = given, f"mean of {share}"
    return groups


def _published_for(plan: AblationPlan, row: Row) -> dict[str, dict[str | None, Published]]:
    """What was published for a row; where one category is given alone, for that one where it is known."""
    published = {metric: dict(reports) for metric, reports in row.published.items()}
    if len(plan.categories) == 1 and plan.categories[0] is not None and plan.spec.dataset is not None:
        (category,) = plan.categories
        numbers = {metric: reports.get(category, reports.get(None)) for metric, reports in published.items()}
        published = {metric: {None: number} for metric, number in numbers.items() if number is not None}
    return published


def _name_of_whole(plan: AblationPlan) -> str:
    """What the whole is called beside its categories; a mean over some of a data set's says so."""
    if len(plan.categories) < 2:
        return "all kinds"
    benchmark = BENCHMARKS.get(plan.spec.dataset or "")
    given = () if benchmark is None else benchmark.among(plan.categories)
    if benchmark is None or not given or len(given) == len(benchmark.categories):
        return "mean"
    return f"mean of {len(plan.categories)} of {len(benchmark.categories)}"


def about(plan: AblationPlan, summaries: Mapping[str, RunSummary], splits: Sequence[str] = ()) -> str:
    """What the numbers are of, in one line.

    Args:
        plan: What was asked.
        summaries: Summaries of finished runs.
        splits: Those that the numbers are of; by default that of the runs.
    """
    some = next(iter(summaries.values()), None)
    data = plan.config.data
    name = str(data.path or "the synthetic set") if some is None else some.dataset.name
    if len(plan.categories) > 1:
        name = f"{name.partition('/')[0]}, {len(plan.categories)} categories"
    shown = splits or (data.split if some is None else some.split,)
    split = f"split {shown[0]}" if len(shown) == 1 else f"splits {' and '.join(shown)}"
    seeds = plan.all_seeds
    drawn = "one split for all seeds" if plan.split_seeds == "same" else "a split of its own for each seed"
    used = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}, {drawn}"
    configs = [plan.row_config(row).features for row in plan.spec.rows]
    backbones = {f"{features.backbone} at {features.size} px" for features in configs}
    backbone = backbones.pop() if len(backbones) == 1 else "backbone and size as each row has them"
    return f"{name}, {split}; {used}; {backbone}"


def _notes(plan: AblationPlan, cells: Sequence[Cell], summaries: Mapping[str, RunSummary]) -> Iterable[str]:
    """What a reader has to know."""
    level = f"{plan.config.evaluation.confidence:.0%}"
    splits = [RunPaths(cell.task.folder).split for cell in cells if cell.task.key in summaries]
    grouped = any(split.exists() and read_json(split)["grouped"] for split in splits)
    units = "parts" if grouped else "images"
    source = f"other test {units}" if plan.seeds == 1 else f"other test {units} and other seeds"
    yield f"Intervals hold {level}: {source} would move a number that far; see docs/ablations.md."
    if plan.seeds == 1:
        yield "One seed: how much training runs differ is not measured, and not in the intervals."
    yield (
        f"Differences are paired: the same {units}, the same seeds. A tie is one whose interval contains "
        "zero. Each comparison stands alone; with many of them, some intervals miss by chance."
    )
    yield from plan.spec.notes
    yield from _about_published(plan)
    if any(plan.row_config(row).selection.on == "test" for row in plan.spec.rows):
        yield "Test-peeked rows made choices on the test set; they say nothing of new parts."
    leaks: dict[str, list[str]] = {}
    for cell in cells:
        summary = summaries.get(cell.task.key)
        if summary is not None and summary.leak:
            leaks.setdefault(summary.leak, []).append(cell.category or "")
    for finding, categories in leaks.items():
        about = ", ".join(sorted(set(categories) - {""}))
        yield f"Leak{f' in {about}' if about else ''}: {finding}"
    unreadable = {
        (cell.category, name)
        for cell in cells
        if cell.task.key in summaries
        for name in summaries[cell.task.key].unreadable
    }
    if unreadable:
        are = plural(len(unreadable), "is", "are")
        yield f"{count(len(unreadable), 'test image')} could not be read and {are} not counted."


def _about_published(plan: AblationPlan) -> Iterable[str]:
    """On what the published numbers were measured, and what of that is not in this table."""
    spec = plan.spec
    published = [number for row in (*spec.rows, *spec.literature_rows) for reports in row.published.values()
            for number in reports.values()]  # fmt: skip
    for protocol in sorted({number.protocol for number in published} - {""}):
        yield f"Published numbers were measured otherwise ({protocol}): compare differences, not levels."
    if spec.literature_rows:
        names = ", ".join(row.name for row in spec.literature_rows)
        yield f"Not run, since this package does not have them, but quoted: {names}."
    benchmark = BENCHMARKS.get(spec.dataset or "")
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


def summarise(plan: AblationPlan, results: Results, pictures: Sequence[Path]) -> AblationSummary:
    """The summary of an ablation."""
    table = results.table
    settings = {row.name: dict(row.settings) for row in plan.spec.rows}
    return AblationSummary(
        **shared_facts(plan, [results]),
        title=table.title,
        about=table.about,
        by=table.breakdown,
        metrics=plan.spec.metrics,
        rows={
            line.name: AblationRow(settings=settings[line.name], **vars(row_facts(table, line)))
            for line in table.lines
        },
        quoted={line.name: _published_values(line.published) for line in table.literature_rows},
        notes=table.notes,
        pictures=tuple(map(str, pictures)),
    )


def shared_facts(plan: AblationPlan, results: Sequence[Results]) -> dict[str, Any]:
    """What summaries of ablations and comparisons have in common.

    Args:
        plan: What was asked.
        results: What it came to, by split where there are several.
    """
    missing = {key: why for result in results for key, why in result.table.missing.items()}
    return {
        "name": plan.name,
        "ablation_dir": str(plan.paths.root),
        "table": plan.spec.name,
        "metric": plan.spec.metric,
        "reference": plan.spec.reference,
        "seeds": tuple(plan.all_seeds),
        "split_seeds": plan.split_seeds,
        "categories": tuple(category for category in plan.categories if category is not None),
        "cells": CellFacts(asked=len(plan.cells()), missing=missing),
        "flows": FlowFacts(
            trained=sum(result.trained for result in results),
            reused=sum(result.reused for result in results),
        ),
        "saved_seconds": SavedSeconds(stages=sum(result.saved for result in results)),
        "seconds": sum(result.seconds for result in results),
        "files": plan.paths.files("md", "csv", "tex"),
        "config": plan.config.model_dump(mode="json"),
    }


def row_facts(table: Table, line: Line) -> RowFacts:
    """A row's numbers, for a summary."""
    first = line.reported(table.metric)
    return RowFacts(
        metrics={name: _entry_facts(entries[None]) for name, entries in line.entries.items()},
        parts={name: _entry_facts(table.entry(line, name)) for name in (*table.categories, *table.groups)},
        published=None if first is None else PublishedFacts(**vars(first)),
        all_published=_published_values(line.published),
        test_peeked=line.peeked,
    )


def _published_values(published: Reports) -> dict[str, dict[str, float]]:
    return {
        metric: {
            WHOLE if category is None else category: number.value for category, number in reports.items()
        }
        for metric, reports in published.items()
    }


def _entry_facts(entry: Entry) -> EntryFacts:
    mean, difference = entry.mean, None
    if entry.difference is not None:
        difference = DifferenceFacts(
            **entry.difference.estimate.as_json(),
            verdict=entry.difference.verdict,
            same_images=entry.difference.same_images,
        )
    return EntryFacts(
        **mean.estimate.as_json(),
        seeds=mean.seeds,
        by_seed=mean.values,
        sd_seeds=None if np.isnan(mean.deviation) else mean.deviation,
        missing_cells=entry.missing,
        difference=difference,
    )
