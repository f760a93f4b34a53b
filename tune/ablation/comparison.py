"""``nfbmr compare``: every method on one's own data, an ablation whose rows are the methods.

Cells, tables and intervals are the ablation's; what is added is what each row costs to use
(:mod:`tune.ablation.benchmark_runs`), one table with both, and one picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nfbmr.benchmark import WARM, Cost
from nfbmr.errors import ConfigError
from nfbmr.evaluation.summary import RunSummary
from nfbmr.methods.registry import methods
from nfbmr.paths import write_text
from nfbmr.text import count, plural
from tune.ablation.benchmark_runs import costs_of, timed_cells
from tune.ablation.cell import Cell
from tune.ablation.comparison_figure import draw_comparison
from tune.ablation.comparison_table import (
    QUALITY,
    Compared,
    Contender,
    cost_numbers,
    csv_text,
    latex,
    markdown,
    names,
    pareto,
    results,
)
from tune.ablation.plan import AblationPlan
from tune.ablation.results_table import Results, about, gather, row_facts, shared_facts
from tune.execution.method_settings import method_settings
from tune.records.ablation_summary import ComparedRow, ComparisonSummary, CostFacts
from tune.tables.frame import write_results
from tune.tables.rows import AblationSpec, Row
from tune.tables.table import missing_notes

NAME = "compare"
"""What the table of a comparison is called."""
BUSY = 0.15
"""Cores that others kept busy, from which on timings come with a warning."""


def comparison_spec(chosen: Sequence[str] | None = None) -> AblationSpec:
    """The table whose rows are methods.

    Args:
        chosen: Names of methods, of named configurations, or ``module:attribute``; by default every
            registered method in its own default configuration, for which packages are enough.

    Raises:
        ConfigError: One of them does not exist, or is named twice.

    Example:
        >>> [dict(row.settings) for row in comparison_spec(["padim", "nf"]).rows]
        [{'method': 'padim'}, {'method': 'nf'}]
    """
    wanted = tuple(methods()) if chosen is None else tuple(chosen)
    if not wanted or len(set(wanted)) < len(wanted):
        raise ConfigError(
            "no methods" if not wanted else "a method is named twice",
            where=f"--methods {','.join(wanted)}",
            fix="name each once, with commas between; or leave it out for all",
        )
    rows = tuple(Row(name, method_settings(name)) for name in wanted)
    return with_costs(AblationSpec(NAME, "Methods compared", QUALITY[0], rows[0].name, rows))


def with_costs(spec: AblationSpec) -> AblationSpec:
    """A table with the metrics that a comparison shows, whatever it had."""
    return replace(spec, metric=QUALITY[0], secondary_metrics=QUALITY[1:])


def write_comparison(
    plan: AblationPlan, cells: Sequence[Cell], failed: Mapping[str, str]
) -> ComparisonSummary:
    """Write the table and the picture of what is finished, and summarise it.

    Args:
        plan: What was asked.
        cells: All of it.
        failed: Why a cell has no result, by its key.
    """
    by_split = {
        split: gather(plan, [cell for cell in cells if cell.split == split], failed) for split in plan.splits
    }
    tables = {split: results.table for split, results in by_split.items()}
    costs = costs_of(cells)
    summaries = {key: summary for results in by_split.values() for key, summary in results.summaries.items()}
    contenders = [
        _contender(row.name, cells, summaries, by_split, costs.get(row.name)) for row in plan.spec.rows
    ]
    machine = "Nothing was timed"
    if costs:
        facts = next(iter(costs.values())).machine
        cores, threads = count(facts["cpus"], "core"), count(facts["threads"], "thread")
        processor = facts["gpu"] or f"{facts['cpu']}, {cores}, {threads}"
        machine = f"Times on {processor}"
    compared = _ranked(
        Compared(
            name=plan.name,
            title=plan.spec.title,
            about=about(plan, summaries, plan.splits),
            machine=machine,
            tables=tables,
            contenders=tuple(contenders),
            notes=tuple(_notes(tables, costs, cells)),
        )
    )
    paths = plan.paths
    write_text(paths.table("md"), markdown(compared))
    write_text(paths.table("csv"), csv_text(compared))
    write_text(paths.table("tex"), latex(compared))
    settings = {row.name: row.settings for row in plan.spec.rows}
    write_results(paths.results, results(compared, settings))
    picture = draw_comparison(compared, paths.scatter)
    return _summary(plan, compared, by_split, [] if picture is None else [str(picture)])


def _contender(
    row: str,
    cells: Sequence[Cell],
    summaries: Mapping[str, RunSummary],
    by_split: Mapping[str, Results],
    cost: Cost | None,
) -> Contender:
    """A method's numbers; its times are means over all of its runs."""
    runs = [summaries[cell.task.key] for cell in cells if cell.row == row and cell.task.key in summaries]
    reading = math.nan
    if runs and cost is not None:
        a_view = cost.reading.value / cost.views / 1000
        reading = float(np.mean([summary.training_views for summary in runs])) * a_view
    return Contender(
        name=row,
        lines={
            split: next(line for line in results.table.lines if line.name == row)
            for split, results in by_split.items()
        },
        cost=cost,
        fitting=float(np.mean([summary.fitting_seconds for summary in runs])) if runs else math.nan,
        reading=reading,
    )


def _ranked(compared: Compared) -> Compared:
    """Best first by the first split, and each one's place on the fronts."""
    fronts = {
        split: pareto(
            {
                contender.name: (contender.cost.one.value, compared.estimate(contender, split).value)
                for contender in compared.contenders
                if contender.cost is not None
            }
        )
        for split in compared.tables
    }
    first = next(iter(compared.tables))

    def worth(contender: Contender) -> float:
        value = compared.estimate(contender, first).value
        return math.inf if math.isnan(value) else -value

    placed = [
        replace(contender, front=tuple(split for split in fronts if contender.name in fronts[split]))
        for contender in sorted(compared.contenders, key=worth)
    ]
    return replace(compared, contenders=tuple(placed))


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
    notes_by_split = {split: (*table.notes, *missing_notes(table)) for split, table in tables.items()}
    for split, notes in notes_by_split.items():
        for note in notes:
            if all(note in others for others in notes_by_split.values()):
                if split == next(iter(notes_by_split)):
                    yield note
            else:
                yield note if note.startswith("Leak") else f"Split {split}: {note}"


def _summary(
    plan: AblationPlan, compared: Compared, by_split: Mapping[str, Results], pictures: list[str]
) -> ComparisonSummary:
    settings = {row.name: dict(row.settings) for row in plan.spec.rows}
    return ComparisonSummary(
        **shared_facts(plan, list(by_split.values())),
        title=compared.title,
        about=compared.about,
        machine=compared.machine,
        metrics=compared.metrics,
        splits=plan.splits,
        rows={
            contender.name: ComparedRow(
                settings=settings[contender.name],
                splits={
                    split: row_facts(table, contender.lines[split])
                    for split, table in compared.tables.items()
                },
                cost=None
                if contender.cost is None
                else CostFacts.model_validate({**cost_numbers(contender.cost), **contender.cost.as_json()}),
                fitting_seconds=_known(contender.fitting),
                training_seconds=_known(contender.training),
                front=contender.front,
            )
            for contender in compared.contenders
        },
        notes=compared.notes,
        pictures=tuple(pictures),
    )


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds
