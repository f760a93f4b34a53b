"""Summaries of ablations and comparisons, as people read them on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from nfbmr.errors import NfbmrError
from nfbmr.tables import NOTHING, Grid
from nfbmr.text import count
from tune.ablation.comparison_table import milliseconds, seconds
from tune.execution.progress import duration
from tune.records.ablation_summary import (
    AblationSummary,
    ComparisonSummary,
    TableSummary,
)
from tune.tables.rows import METRICS, WHOLE
from tune.tables.table import NOT_RUN, interval, percent

_SHOWN = ("Leak", "One seed", "MISSING", "TIMES")
"""How notes begin that a terminal shows; the table has them all."""


def headline(summary: TableSummary) -> str:
    """The rows, what tells them apart, and where to look."""
    if isinstance(summary, ComparisonSummary):
        return _comparison(summary)
    if isinstance(summary, AblationSummary):
        return _ablation(summary)
    raise TypeError(type(summary).__name__)


def _ablation(summary: AblationSummary) -> str:
    head = ["", f"{METRICS[summary.metric]}, %", f"less {summary.reference}", "", "published"]
    lines = []
    for name, row in summary.rows.items():
        entry, reported = row.metrics[summary.metric], row.published
        difference = entry.difference
        lines.append(
            [
                f"{name} (test-peeked)" if row.test_peeked else name,
                f"{interval(entry.estimate)}{' *' if entry.missing_cells else ''}",
                "" if difference is None else interval(difference.estimate, sign=True),
                "reference" if difference is None else difference.verdict.replace("unknown", ""),
                "" if reported is None else percent(reported.value),
            ]
        )
    for name, published in summary.quoted.items():
        value = published.get(summary.metric, {}).get(WHOLE)
        lines.append([name, NOT_RUN, "", "", "" if value is None else percent(value)])
    grid = Grid.of(head, lines)
    if not any(line[-1] for line in lines):
        grid = grid.without(len(head) - 1)
    flows, saved = summary.flows, summary.saved_seconds.stages
    spared = f"; with other stages {duration(saved)} of training saved" if saved >= 1 else ""
    return "\n".join(
        [
            *_body(summary, [summary.about], grid),
            f"  flows     {flows.trained} trained, {flows.reused} taken from the store{spared}",
            *_files(summary, f"pictures  {', '.join(summary.pictures)}", "ablation "),
        ]
    )


def _comparison(summary: ComparisonSummary) -> str:
    """The methods, best first."""
    splits = summary.splits
    head = ["method"]
    for metric in summary.metrics:
        head += [f"{METRICS[metric]}, %" + (f" ({split})" if len(splits) > 1 else "") for split in splits]
    head += ["training", "ms an image", "MB", "front"]
    lines = []
    for name, row in summary.rows.items():
        cells = [name]
        for metric in summary.metrics:
            for split in splits:
                entry = row.splits[split].metrics[metric]
                main = metric == summary.metric  # the one with its interval
                text = interval(entry.estimate) if main else percent(entry.estimate.value)
                cells.append(f"{text} *" if entry.missing_cells else text)
        cells.append(NOTHING if row.training_seconds is None else seconds(row.training_seconds))
        if row.cost is None:
            cells += [NOTHING, NOTHING, ""]
        else:
            size = (row.cost.model_bytes + row.cost.backbone_bytes) / 1e6
            cells += [milliseconds(row.cost.ms_one), f"{size:.1f}", ", ".join(row.front)]
        lines.append(cells)
    picture = f"picture   {', '.join(summary.pictures) or 'none: nothing was timed'}"
    return "\n".join(
        [
            *_body(summary, [summary.about, summary.machine], Grid.of(head, lines)),
            *_files(summary, picture, "folder   "),
        ]
    )


def _body(summary: TableSummary, about: Sequence[str], grid: Grid) -> list[str]:
    """Title, table and what a reader has to know of it."""
    text = [summary.title, *about, "", *(f"  {line}" for line in grid.terminal().splitlines())]
    missing = summary.cells.missing
    if missing:
        text += ["", f"  MISSING   {count(len(missing), 'cell')} of {summary.cells.asked}"]
    return [*text, *(f"  NOTE      {note}" for note in summary.notes if note.startswith(_SHOWN)), ""]


def _files(summary: TableSummary, pictures: str, folder: str) -> list[str]:
    finished = summary.cells.asked - len(summary.cells.missing)
    return [
        f"  time      {duration(summary.seconds)} in {count(finished, 'cell')}",
        f"  table     {summary.files['md']} (and .csv, .tex, results.parquet)",
        f"  {pictures}",
        f"  {folder} {summary.ablation_dir}",
    ]


def failed_cells(summary: TableSummary, go_on: str) -> NfbmrError | None:
    """The error that names cells without a result; None where all have one.

    Args:
        summary: Summary of the ablation or comparison.
        go_on: The command that tries them again.
    """
    missing = summary.cells.missing
    if not missing:
        return None
    listed = "".join(f"\n     {key}: {reason}" for key, reason in list(missing.items())[:12])
    more = "" if len(missing) <= 12 else f"\n     and {len(missing) - 12} more"
    return NfbmrError(
        f"{count(len(missing), 'cell')} failed; the others are in the table{listed}{more}",
        where=summary.ablation_dir,
        fix=f"mend what is wrong, then try them again: {go_on}",
    )
