"""A comparison of methods: quality on each split, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nfbmr.benchmark import Cost
from nfbmr.evaluation.intervals import Estimate
from nfbmr.tables import NOTHING, Grid, bullets
from tune.tables.frame import Result, results_of
from tune.tables.rows import METRICS
from tune.tables.table import Line, Table, marked, sections

QUALITY = ("image_auroc", "pixel_auroc", "pixel_aupro")
"""What methods are judged by; the first is the one that counts."""


@dataclass(frozen=True)
class Contender:
    """A method that is compared.

    Attributes:
        name: Name of its row.
        lines: Its numbers by split.
        cost: What it costs to use, where it was measured.
        fitting: Seconds that fitting took on stored features, the mean over its runs; NaN where none is done.
        reading: Seconds that reading its training images takes from a cold store.
        front: Splits on which no other one is both faster and better.
    """

    name: str
    lines: Mapping[str, Line]
    cost: Cost | None = None
    fitting: float = math.nan
    reading: float = math.nan
    front: tuple[str, ...] = ()

    @property
    def training(self) -> float:
        """Seconds from images to a model, with nothing in the store."""
        return self.fitting + self.reading


@dataclass(frozen=True)
class Compared:
    """Methods and their numbers, ready to be written down and drawn.

    Attributes:
        name: Name of the comparison.
        title: For the head of the table.
        about: What the numbers are of.
        machine: Where times were measured, in a line.
        tables: The ablation's own table of each split.
        contenders: Best first, by the first split.
        notes: Sentences below the table.
    """

    name: str
    title: str
    about: str
    machine: str
    tables: Mapping[str, Table]
    contenders: tuple[Contender, ...]
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of :data:`QUALITY` that some method has on some split."""
        return tuple(
            metric
            for metric in QUALITY
            if metric == QUALITY[0]
            or any(
                self.estimate(contender, split, metric).defined
                for contender in self.contenders
                for split in self.tables
            )
        )

    def estimate(self, contender: Contender, split: str, metric: str = QUALITY[0]) -> Estimate:
        """A method's quality on a split."""
        return self.tables[split].entry(contender.lines[split], None, metric).mean.estimate


def pareto(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Names of points (cost, quality) such that no other is at least as cheap and as good, and better in one.

    Example:
        >>> pareto({"a": (1.0, 0.8), "b": (2.0, 0.9), "c": (3.0, 0.85), "d": (0.5, math.nan)})
        ('a', 'b')
    """
    known = {name: p for name, p in points.items() if not any(map(math.isnan, p))}
    return tuple(
        name
        for name, (cost, quality) in known.items()
        if not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in known.values())
    )


# ------------------------------------------------------------------------------------------------- tables


def markdown(compared: Compared) -> str:
    """The table, the differences on each split, notes."""
    blocks = [f"# {compared.title}", compared.about, compared.machine, main_grid(compared).markdown()]
    blocks += ["## Notes", bullets(compared.notes)]
    for split, table in compared.tables.items():
        blocks += [f"## Split {split}, in detail", *sections(table, level=3)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def latex(compared: Compared) -> str:
    """The one table."""
    caption = f"{compared.title}. {compared.about}. {compared.machine}"
    return main_grid(compared).latex(caption, compared.name, compared.notes)


def main_grid(compared: Compared) -> Grid:
    """The one table: quality by metric and split, then costs."""
    splits = tuple(compared.tables)
    head = ["method"]
    for metric in compared.metrics:
        head += [f"{METRICS[metric]}, %" + (f" ({split})" if len(splits) > 1 else "") for split in splits]
    head += ["training", "ms an image", "ms, batched", "parameters", "MB on disk", "front"]
    rows = []
    for contender in compared.contenders:
        cells = [contender.name]
        for metric in compared.metrics:
            for split, table in compared.tables.items():
                entry = table.entry(contender.lines[split], None, metric)
                cells.append(marked(entry, with_interval=metric == QUALITY[0]))
        known = contender.fitting if math.isnan(contender.training) else contender.training
        cells.append(seconds(known))
        cost, front = contender.cost, ", ".join(contender.front)
        if cost is None:
            cells += [NOTHING] * 4 + [""]
        else:
            value, low, high = map(milliseconds, (cost.one.value, cost.one.low, cost.one.high))
            cells += [
                f"{value} [{low}, {high}]",
                milliseconds(cost.batched.value),
                f"{short(cost.parameters)} + {short(cost.backbone_parameters)}",
                f"{megabytes(cost.model_bytes)} + {megabytes(cost.backbone_bytes)}",
                "yes" if front and len(splits) == 1 else front,
            ]
        rows.append(cells)
    return Grid.of(head, rows)


def seconds(value: float) -> str:
    """A time as people say it.

    Example:
        >>> seconds(0.4), seconds(41.6), seconds(754), seconds(math.nan)
        ('0.4 s', '42 s', '12.6 min', '–')
    """
    if math.isnan(value):
        return NOTHING
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 100 else f"{value / 60:.1f} min"


def milliseconds(value: float) -> str:
    """Two or three digits of a time.

    Example:
        >>> milliseconds(3.14159), milliseconds(31.4), milliseconds(314.2)
        ('3.1', '31', '314')
    """
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def short(number: int) -> str:
    """A count as people say it.

    Example:
        >>> short(0), short(54_048), short(3_400_000)
        ('0', '54 k', '3.4 M')
    """
    if number < 1000:
        return str(number)
    return f"{number / 1e3:.0f} k" if number < 999_500 else f"{number / 1e6:.1f} M"


def megabytes(size: int) -> str:
    """Bytes in millions of them."""
    value = size / 1e6
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


# ------------------------------------------------------------------------------------------------ numbers


CSV_COLUMNS = (
    "method", "split", *(f"{m}{end}" for m in QUALITY for end in ("", "_low", "_high")), "seeds", "sd_seeds",
    "reference", "difference", "difference_low", "difference_high", "verdict", "missing_cells", "ms_one",
    "ms_one_low", "ms_one_high", "ms_batched", "batch", "fitting_seconds", "training_seconds", "parameters",
    "backbone_parameters", "model_bytes", "backbone_bytes", "front",
)  # fmt: skip
"""Columns of a comparison's CSV."""


def csv_text(compared: Compared) -> str:
    """``table.csv``: a line a method and split, qualities as shares; what is undefined is empty."""
    records = []
    for contender in compared.contenders:
        for split, table in compared.tables.items():
            entry = table.entry(contender.lines[split])
            record: dict[str, Any] = {"method": contender.name, "split": split}
            for metric in QUALITY:
                estimate = compared.estimate(contender, split, metric)
                ends = {f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
                record |= {metric: estimate.value, **ends}
            record |= {
                "seeds": entry.mean.seeds,
                "sd_seeds": entry.mean.deviation,
                "reference": table.reference,
                "missing_cells": entry.missing,
                "fitting_seconds": contender.fitting,
                "training_seconds": contender.training,
                "front": split in contender.front,
            }
            if entry.difference is not None:
                estimate = entry.difference.estimate
                record |= {
                    "difference": estimate.value,
                    "difference_low": estimate.low,
                    "difference_high": estimate.high,
                    "verdict": entry.difference.verdict,
                }
            if contender.cost is not None:
                record |= cost_numbers(contender.cost)
            records.append(record)
    return Grid.of_records(CSV_COLUMNS, records).csv()


def results(compared: Compared, settings: Mapping[str, Mapping[str, Any]]) -> Iterator[Result]:
    """The long frame: each split's table, then what each method costs.

    Args:
        compared: The methods.
        settings: What each sets, by its name.
    """
    for split, table in compared.tables.items():
        yield from results_of(table, settings, split)
    for contender in compared.contenders:
        times = {"fitting_seconds": contender.fitting, "training_seconds": contender.training}
        numbers = {name: value for name, value in times.items() if not math.isnan(value)}
        if contender.cost is not None:
            numbers |= cost_numbers(contender.cost)
            timing = contender.cost.one
            yield Result(contender.name, "ms_one", timing.value, timing.low, timing.high)
        for name, value in numbers.items():
            if not name.startswith("ms_one"):
                yield Result(contender.name, name, float(value))


def cost_numbers(cost: Cost) -> dict[str, float]:
    """What a model costs, by the names of the CSV's columns."""
    return {
        "ms_one": cost.one.value,
        "ms_one_low": cost.one.low,
        "ms_one_high": cost.one.high,
        "ms_batched": cost.batched.value,
        "batch": cost.batch,
        "parameters": cost.parameters,
        "backbone_parameters": cost.backbone_parameters,
        "model_bytes": cost.model_bytes,
        "backbone_bytes": cost.backbone_bytes,
    }


def names(words: Iterable[str]) -> str:
    """Words as a list in a sentence.

    Example:
        >>> names(["a", "b", "c"])
        'a, b and c'
    """
    known: Sequence[str] = list(words)
    return known[0] if len(known) == 1 else f"{', '.join(known[:-1])} and {known[-1]}" if known else ""
