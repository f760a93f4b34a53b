"""Results as one long frame: a line for each number; ``results.parquet`` beside the tables.

Sweeps, ablations and comparisons all have it, so that results of several can be put below each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from nfbmr.evaluation.intervals import UNDEFINED, Estimate
from nfbmr.paths import atomic
from nfbmr.tables import Grid
from nfbmr.text import as_text
from tune.tables.rows import WHOLE, Published
from tune.tables.table import Line, Table

CSV_COLUMNS = (
    "row", "by", "part", "metric", "value", "low", "high", "seeds", "sd_seeds", "reference", "difference",
    "difference_low", "difference_high", "verdict", "same_images", "missing_cells", "test_peeked",
    "published", "published_source", "published_protocol", "run",
)  # fmt: skip
"""Of an ablation's ``table.csv``: the means over seeds, a line for each row, category and metric."""


@dataclass(frozen=True)
class Result:
    """A number, and what it is of. What does not apply is None, or NaN for a number.

    Attributes:
        row: Name of the row or method; of a sweep the trial.
        metric: What was measured: ``image_auroc``, ``ms_one``, ``seconds``.
        value: The number: a share for metrics.
        low: Lower end of its interval.
        high: Upper end.
        side: The images it was measured on: ``test`` or ``validation``.
        category: The category, group of categories or kind of defect; None: all of them.
        breakdown: What `category` is: ``category`` or ``kind``.
        split: Name of the split, where there are several.
        seed: The seed; None for the mean over seeds.
        seeds: How many seeds it is the mean of.
        sd_seeds: Standard deviation between them.
        reference: The row that it is compared with.
        difference: To that row.
        difference_low: Lower end of the interval.
        difference_high: Upper end.
        verdict: ``better``, ``worse``, ``tie`` or ``unknown``.
        same_images: Whether both were scored on the same images.
        missing_cells: Cells that should be in it and are not.
        test_peeked: Whether choices were made on the test set.
        published: What somebody else reported.
        published_source: Where they reported it.
        published_protocol: On what they measured it, and how.
        run: Whether the row was run at all.
        state: How a trial ended.
        settings: What the row or trial sets, as JSON by dotted key.
    """

    row: str
    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    side: Literal["test", "validation"] | None = None
    category: str | None = None
    breakdown: str | None = None
    split: str | None = None
    seed: int | None = None
    seeds: int | None = None
    sd_seeds: float = math.nan
    reference: str | None = None
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan
    verdict: str | None = None
    same_images: bool | None = None
    missing_cells: int | None = None
    test_peeked: bool | None = None
    published: float = math.nan
    published_source: str | None = None
    published_protocol: str | None = None
    run: bool = True
    state: str | None = None
    settings: str | None = None


def results_of(
    table: Table, settings: Mapping[str, Mapping[str, Any]], split: str | None = None
) -> Iterator[Result]:
    """The frame of an ablation's table: means over seeds with their intervals, and each seed's own value.

    Args:
        table: The table.
        settings: What each row sets, by its name.
        split: The split that all of it is of, where there are several.
    """
    for line in table.lines:
        shared: dict[str, Any] = {
            "row": line.name,
            "side": "test",
            "split": split,
            "breakdown": table.breakdown,
            "test_peeked": line.peeked,
            "settings": json.dumps(settings.get(line.name, {}), default=str),
        }
        for metric in line.entries:
            for category in (None, *table.categories, *table.groups):
                yield _mean(table, line, metric, category, shared)
                mean = table.entry(line, category, metric).mean
                for seed, value in zip(mean.of_seeds, mean.values, strict=True):
                    yield Result(metric=metric, value=value, category=category, seed=seed, **shared)
    for line in table.literature_rows:
        for metric, reports in line.published.items():
            for category, reported in reports.items():
                about = _published(reported)
                yield Result(
                    line.name,
                    metric,
                    math.nan,
                    category=category,
                    breakdown=table.breakdown,
                    split=split,
                    run=False,
                    **about,
                )


def _mean(table: Table, line: Line, metric: str, category: str | None, shared: Mapping[str, Any]) -> Result:
    entry = table.entry(line, category, metric)
    mean, difference = entry.mean, entry.difference
    less = UNDEFINED if difference is None else difference.estimate
    return Result(
        metric=metric,
        value=mean.estimate.value,
        low=mean.estimate.low,
        high=mean.estimate.high,
        category=category,
        seeds=mean.seeds,
        sd_seeds=mean.deviation,
        reference=table.reference,
        difference=less.value,
        difference_low=less.low,
        difference_high=less.high,
        verdict=None if difference is None else difference.verdict,
        same_images=None if difference is None else difference.same_images,
        missing_cells=entry.missing,
        **_published(line.reported(metric, category)),
        **shared,
    )


def _published(reported: Published | None) -> dict[str, Any]:
    if reported is None:
        return {}
    return {
        "published": reported.value,
        "published_source": reported.source,
        "published_protocol": reported.protocol,
    }


def with_estimate(row: str, metric: str, estimate: Estimate, **about: Any) -> Result:
    """A result of an estimate."""
    return Result(row, metric, estimate.value, estimate.low, estimate.high, **about)


def csv_text(table: Table) -> str:
    """An ablation's ``table.csv``: means as shares, what is undefined is empty."""
    records = (
        {
            **vars(result),
            "by": result.breakdown,
            "part": WHOLE if result.category is None else result.category,
        }
        for result in results_of(table, {})
        if result.seed is None
    )
    return Grid.of_records(CSV_COLUMNS, records).csv()


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write the frame as Parquet; numbers that are undefined are null.

    Raises:
        OutputError: The disk is full or the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_()}
    schema = pa.schema(
        [(part.name, types.get(str(part.type).partition(" ")[0], pa.string())) for part in fields(Result)]
    )
    rows: Sequence[Result] = list(results)
    columns = []
    for column in schema:
        values: list[Any] = [getattr(row, column.name) for row in rows]
        for i, value in enumerate(values):
            if isinstance(value, float) and math.isnan(value):
                values[i] = None
            elif isinstance(value, str):
                values[i] = as_text(value)  # bytes of a file's name that are no text escape
        columns.append(pa.array(values, column.type))
    with atomic(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary)
