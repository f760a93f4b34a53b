"""The table of an ablation, and what of it stands in tables; :mod:`nfbmr.tables` writes these.

All numbers of :data:`tune.tables.rows.METRICS` are shares; tables for people show them in percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nfbmr.evaluation.intervals import Estimate
from nfbmr.tables import MINUS, NOTHING, Grid, bullets, one_line
from nfbmr.text import count, plural
from tune.tables.rows import METRICS, Curve, Published, Reports
from tune.tables.statistics import Difference, Mean

NOT_RUN = "not run"
"""What stands in the place of a number that no run has given."""


@dataclass(frozen=True)
class Entry:
    """A row's number, over all categories (or kinds of defect) or in one of them.

    Attributes:
        mean: Over seeds (and categories).
        difference: To the reference row; None for the reference itself.
        missing: Cells that should be in it and are not.
    """

    mean: Mean
    difference: Difference | None
    missing: int = 0


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        name: Name of the row.
        entries: By metric, then by category; ``None`` is the whole.
        published: What somebody else measured.
        peeked: Whether its choices were made on the test set.
    """

    name: str
    entries: Mapping[str, Mapping[str | None, Entry]]
    published: Reports = field(default_factory=dict)
    peeked: bool = False

    def reported(self, metric: str, category: str | None = None) -> Published | None:
        """What somebody else measured of a category; None is the whole."""
        return self.published.get(metric, {}).get(category)


@dataclass(frozen=True)
class Table:
    """An ablation's results, ready to be written down and drawn.

    Attributes:
        name: Name of the table, as it was asked for.
        title: What the rows are about.
        about: What the numbers are of: data set, split, seeds.
        metric: The one that counts, a key of :data:`tune.tables.rows.METRICS`.
        reference: Name of the row that the others are compared with.
        categories: What the numbers are broken down into; where there is one category or none, kinds of
            defect, each against all good images. May be empty.
        breakdown: What these are: ``category`` or ``kind``. The whole is the mean over categories, and
            all kinds together.
        lines: In the order of the table.
        confidence: Confidence of the intervals.
        notes: Sentences below the table.
        missing: Cells without a result, each with the reason.
        literature_rows: Rows that were not run, with published numbers alone.
        secondary_metrics: Further metrics beside the one that counts.
        groups: Groups of categories that means are given of besides, and how many of each are given.
        whole: What the whole is called beside its categories.
        sweep_key: The key whose values the `curves` run along; both are empty for rows that are no sweep.
        pictures: Those asked for besides; see :func:`tune.tables.figures.draw`.
    """

    name: str
    title: str
    about: str
    metric: str
    reference: str
    lines: tuple[Line, ...]
    categories: tuple[str, ...] = ()
    breakdown: Literal["category", "kind"] = "category"
    confidence: float = 0.95
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    literature_rows: tuple[Line, ...] = ()
    secondary_metrics: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    whole: str = "mean"
    sweep_key: str = ""
    curves: tuple[Curve, ...] = ()
    pictures: tuple[str, ...] = ()

    def entry(self, line: Line, category: str | None = None, metric: str | None = None) -> Entry:
        """A number of the table."""
        return line.entries[metric or self.metric][category]

    @property
    def has_published(self) -> bool:
        """Whether any row has a number to compare with."""
        return any(line.published for line in (*self.lines, *self.literature_rows))

    @property
    def measured(self) -> tuple[str, ...]:
        """Every metric that rows have, the one that counts and its companions first."""
        first = (self.metric, *self.secondary_metrics)
        known = self.lines[0].entries if self.lines else {}
        return (*first, *(metric for metric in known if metric not in first))


# ------------------------------------------------------------------------------------------------ numbers


def percent(share: float, *, sign: bool = False) -> str:
    """A share in percent, with a real minus; a dash where there is none.

    Example:
        >>> percent(0.98734), percent(-0.0123, sign=True), percent(0.01, sign=True), percent(math.nan)
        ('98.7', '−1.2', '+1.0', '–')
    """
    if math.isnan(share):
        return NOTHING
    text = f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"
    return ("0.0" if text in ("+0.0", "-0.0") else text).replace("-", MINUS)


def interval(estimate: Estimate, *, sign: bool = False) -> str:
    """A value in percent, and its interval where there is one.

    Example:
        >>> interval(Estimate(0.859, 0.83, 0.884))
        '85.9 [83.0, 88.4]'
    """
    value = percent(estimate.value, sign=sign)
    if not estimate.has_interval:
        return value
    return f"{value} [{percent(estimate.low, sign=sign)}, {percent(estimate.high, sign=sign)}]"


def verdict(difference: Difference | None) -> str:
    """The word that goes with a difference."""
    if difference is None:
        return "reference"
    word = difference.verdict
    text = {"unknown": NOTHING}.get(word, word)
    return text if difference.same_images or word == "unknown" else f"{text} (other images)"


# ------------------------------------------------------------------------------------------------- tables


def markdown(table: Table) -> str:
    """The whole table: rows, categories, other metrics, notes."""
    blocks = [f"# {one_line(table.title)}", one_line(table.about), *sections(table)]
    notes = [*table.notes, *missing_notes(table)]
    blocks += ["## Notes", bullets(notes)] if notes else []
    return "\n\n".join(blocks) + "\n"


def latex(table: Table) -> str:
    """The main table, with notes and sources as comments."""
    grid = main_grid(table)
    everyone = (*table.lines, *table.literature_rows)
    reported = [number for line in everyone for of in line.published.values() for number in of.values()]
    sources = dict.fromkeys(number.source for number in reported if number.source)
    notes = [*(f"published: {source}" for source in sources), *table.notes, *missing_notes(table)]
    if table.has_published:
        grid = grid.without(len(grid.head) - 1)
    return grid.latex(f"{table.title}. {table.about}", table.name, notes)


def sections(table: Table, level: int = 2) -> list[str]:
    """Rows, categories and other metrics as blocks of Markdown.

    Args:
        table: What they are of.
        level: Level of the headings.
    """
    blocks = [main_grid(table).markdown()]
    if table.categories:
        name, by = METRICS[table.metric], "category" if table.breakdown == "category" else "kind of defect"
        blocks += [f"{'#' * level} {name[0].upper()}{name[1:]} by {by}, %", _by_category(table).markdown()]
    others = table.measured[1 + len(table.secondary_metrics) :]
    if others:
        rows = [
            [line.name, *(interval(table.entry(line, None, metric).mean.estimate) for metric in others)]
            for line in table.lines
        ]
        grid = Grid.of(["", *(METRICS[metric] for metric in others)], rows)
        blocks += [f"{'#' * level} Other metrics, %", grid.markdown()]
    return blocks


def main_grid(table: Table) -> Grid:
    """The main table: metrics, seeds, difference to the reference, what was published."""
    metrics = (table.metric, *table.secondary_metrics)
    everyone = (*table.lines, *table.literature_rows)
    published = [metric for metric in metrics if any(line.reported(metric) for line in everyone)]
    head = ["", *(f"{METRICS[metric]}, %" for metric in metrics), "seeds", f"less {table.reference}", ""]
    if table.has_published:
        several = len(published) > 1
        head += [f"published {METRICS[metric]}" if several else "published" for metric in published]
        head += ["source"]
    rows = []
    for line in table.lines:
        entry = table.entry(line)
        mean, difference = entry.mean, entry.difference
        deviation = "" if math.isnan(mean.deviation) else f" (sd {100 * mean.deviation:.1f})"
        rows.append(
            [
                f"{line.name} (test-peeked)" if line.peeked else line.name,
                *(marked(table.entry(line, None, metric)) for metric in metrics),
                f"{mean.seeds}{deviation}",
                NOTHING if difference is None else interval(difference.estimate, sign=True),
                verdict(difference),
                *_published(table, line, published),
            ]
        )
    rows += [
        [line.name, NOT_RUN, *([NOTHING] * (len(metrics) + 1)), "", *_published(table, line, published)]
        for line in table.literature_rows
    ]
    return Grid.of(head, rows)


def _published(table: Table, line: Line, metrics: Sequence[str]) -> list[str]:
    """A row's published numbers over all, and where they stand; nothing where the table has none at all."""
    if not table.has_published:
        return []
    reported = [line.reported(metric) for metric in metrics]
    sources = dict.fromkeys(number.source for number in reported if number is not None)
    return [
        *(NOTHING if number is None else percent(number.value) for number in reported),
        ", ".join(sources),
    ]


def _by_category(table: Table) -> Grid:
    """A column a row, and beside it what was published, where that is known by category."""
    categories = (*table.categories, *table.groups)
    columns: list[tuple[Line, bool]] = []
    for line in (*table.lines, *table.literature_rows):
        columns += [] if line in table.literature_rows else [(line, False)]
        columns += [(line, True)] if any(line.reported(table.metric, name) for name in categories) else []
    head = ["", *(f"{line.name}, published" if published else line.name for line, published in columns)]
    names: dict[str | None, str] = {category: category for category in table.categories}
    names |= {group: f"{group} ({share})" for group, share in table.groups.items()}
    rows = []
    for category in (*categories, None):
        cells = [names.get(category, table.whole)]
        for line, published in columns:
            if published:
                reported = line.reported(table.metric, category)
                cells.append(NOTHING if reported is None else percent(reported.value))
            else:
                entry = table.entry(line, category)
                cells.append(percent(entry.mean.estimate.value) if category is None else marked(entry))
        rows.append(cells)
    return Grid.of(head, rows)


def marked(entry: Entry, *, with_interval: bool = True) -> str:
    """A number for people, with a star where cells are missing in it."""
    estimate = entry.mean.estimate
    text = interval(estimate) if with_interval else percent(estimate.value)
    return f"{text} *" if entry.missing else text


def missing_notes(table: Table) -> list[str]:
    """Which cells have no result, and why."""
    if not table.missing:
        return []
    cells = len(table.missing)
    by_reason: dict[str, list[str]] = {}
    for key, reason in table.missing.items():
        by_reason.setdefault(reason, []).append(key)
    reasons = "; ".join(f"{', '.join(keys)}: {reason}" for reason, keys in by_reason.items())
    return [f"* {count(cells, 'cell')} {plural(cells, 'is', 'are')} missing. {reasons}"]
