"""The table of an ablation, and its Markdown; :mod:`tune.table_files` has CSV and LaTeX.

All numbers of :data:`tune.rows.METRICS` are shares; tables for people show them in percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nfbmr.evaluation.intervals import Estimate
from nfbmr.wording import count, plural
from tune.rows import METRICS, Curve, Published, Reports
from tune.statistics import Difference, Mean

NOTHING = "–"
NOT_RUN = "not run"
MINUS = "\N{MINUS SIGN}"


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
        name: Of the row.
        entries: By metric, then by part; ``None`` is the whole.
        published: What somebody else measured.
        peeked: Whether its choices were made on the test set.
    """

    name: str
    entries: Mapping[str, Mapping[str | None, Entry]]
    published: Reports = field(default_factory=dict)
    peeked: bool = False

    def said(self, metric: str, part: str | None = None) -> Published | None:
        """What somebody else measured of a part; None is the whole."""
        return self.published.get(metric, {}).get(part)


@dataclass(frozen=True)
class Table:
    """An ablation's results, ready to be written down and drawn.

    Attributes:
        name: Of the table, as it was asked for.
        title: What the rows are about.
        about: What the numbers are of: data set, split, seeds.
        metric: The one that counts, a key of :data:`tune.rows.METRICS`.
        reference: Name of the row that the others are compared with.
        parts: What the numbers are broken down into: categories; where there is one or none, kinds of
            defect, each against all good images. May be empty.
        by: What the parts are: ``category`` or ``kind``. The whole is the mean over categories, and all
            kinds together.
        lines: In the order of the table.
        confidence: Of the intervals.
        notes: Sentences below the table.
        missing: Cells without a result, each with the reason.
        quoted: Rows that were not run, with published numbers alone.
        also: Further metrics beside the one that counts.
        groups: Groups of categories that means are given of besides, and how many of each are given.
        whole: What the whole is called beside its parts.
        over: The key whose values the `curves` run along; both are empty for rows that are no sweep.
        pictures: Those asked for besides; see :func:`tune.figures.draw`.
    """

    name: str
    title: str
    about: str
    metric: str
    reference: str
    lines: tuple[Line, ...]
    parts: tuple[str, ...] = ()
    by: Literal["category", "kind"] = "category"
    confidence: float = 0.95
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    quoted: tuple[Line, ...] = ()
    also: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    whole: str = "mean"
    over: str = ""
    curves: tuple[Curve, ...] = ()
    pictures: tuple[str, ...] = ()

    def entry(self, line: Line, part: str | None = None, metric: str | None = None) -> Entry:
        """A number of the table."""
        return line.entries[metric or self.metric][part]

    @property
    def has_published(self) -> bool:
        """Whether any row has a number to compare with."""
        return any(line.published for line in (*self.lines, *self.quoted))

    @property
    def measured(self) -> tuple[str, ...]:
        """Every metric that rows have, the one that counts and its companions first."""
        first = (self.metric, *self.also)
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


# ----------------------------------------------------------------------------------------------- Markdown


def markdown(table: Table) -> str:
    """The whole table: rows, categories, other metrics, notes."""
    blocks = [f"# {_cell(table.title)}", _cell(table.about), *sections(table)]
    notes = [*table.notes, *missing_notes(table)]
    blocks += ["## Notes", listed(notes)] if notes else []
    return "\n\n".join(blocks) + "\n"


def sections(table: Table, level: int = 2) -> list[str]:
    """Rows, categories and other metrics as blocks of Markdown.

    Args:
        table: What they are of.
        level: Of the headings.
    """
    blocks = [grid(*main_rows(table))]
    if table.parts:
        name, by = METRICS[table.metric], "category" if table.by == "category" else "kind of defect"
        blocks += [f"{'#' * level} {name[0].upper()}{name[1:]} by {by}, %", grid(*_by_part(table))]
    if len(table.measured) > 1 + len(table.also):
        blocks += [f"{'#' * level} Other metrics, %", grid(*_others(table))]
    return blocks


def main_rows(table: Table) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the main table: metrics, seeds, difference to the reference, what was published."""
    metrics = (table.metric, *table.also)
    everyone = (*table.lines, *table.quoted)
    said = [metric for metric in metrics if any(line.said(metric) for line in everyone)]
    head = ["", *(f"{METRICS[metric]}, %" for metric in metrics), "seeds", f"less {table.reference}", ""]
    if table.has_published:
        several = len(said) > 1
        head += [f"published {METRICS[metric]}" if several else "published" for metric in said] + ["source"]
    lines = []
    for line in table.lines:
        entry = table.entry(line)
        lines.append(
            [
                f"{line.name} (test-peeked)" if line.peeked else line.name,
                *(_whole(table, line, metric) for metric in metrics),
                _seeds(entry.mean),
                NOTHING if entry.difference is None else interval(entry.difference.estimate, sign=True),
                verdict(entry.difference),
                *(_published(table, line, said)),
            ]
        )
    for line in table.quoted:
        lines.append(
            [line.name, NOT_RUN, *([NOTHING] * (len(metrics) + 1)), "", *_published(table, line, said)]
        )
    return head, lines


def _whole(table: Table, line: Line, metric: str) -> str:
    entry = table.entry(line, None, metric)
    return _marked(interval(entry.mean.estimate), entry)


def _published(table: Table, line: Line, metrics: Sequence[str]) -> list[str]:
    """A row's published numbers over all, and where they stand; nothing where the table has none at all."""
    if not table.has_published:
        return []
    said = [line.said(metric) for metric in metrics]
    sources = dict.fromkeys(one.source for one in said if one is not None)
    return [*(NOTHING if one is None else percent(one.value) for one in said), ", ".join(sources)]


def _by_part(table: Table) -> tuple[list[str], list[list[str]]]:
    """A column a row, and beside it what was published, where that is known by category."""
    whole = None
    places = (*table.parts, *table.groups)
    beside = [
        line for line in (*table.lines, *table.quoted) if any(line.said(table.metric, p) for p in places)
    ]
    columns: list[tuple[Line, bool]] = []
    for line in table.lines:
        columns += [(line, False), *([(line, True)] if line in beside else [])]
    columns += [(line, True) for line in table.quoted if line in beside]
    head = ["", *(f"{line.name}, published" if quoted else line.name for line, quoted in columns)]
    lines = [
        [_name(table, part), *(_part(table, line, part, quoted) for line, quoted in columns)]
        for part in (*places, whole)
    ]
    return head, lines


def _name(table: Table, part: str | None) -> str:
    if part is None:
        return table.whole
    return f"{part} ({table.groups[part]})" if part in table.groups else part


def _part(table: Table, line: Line, part: str | None, quoted: bool) -> str:
    if quoted:
        said = line.said(table.metric, part)
        return NOTHING if said is None else percent(said.value)
    entry = table.entry(line, part)
    if part is None:
        return percent(entry.mean.estimate.value)
    return _marked(interval(entry.mean.estimate), entry)


def _others(table: Table) -> tuple[list[str], list[list[str]]]:
    names = table.measured[1 + len(table.also) :]
    lines = [
        [line.name, *(interval(table.entry(line, None, metric).mean.estimate) for metric in names)]
        for line in table.lines
    ]
    return ["", *(METRICS[name] for name in names)], lines


def _seeds(mean: Mean) -> str:
    """How many, and how far apart they are."""
    if math.isnan(mean.deviation):
        return str(mean.seeds)
    return f"{mean.seeds} (sd {100 * mean.deviation:.1f})"


def _marked(text: str, entry: Entry) -> str:
    return f"{text} *" if entry.missing else text


def missing_notes(table: Table) -> list[str]:
    """Which cells have no result, and why."""
    if not table.missing:
        return []
    cells = len(table.missing)
    by_reason: dict[str, list[str]] = {}
    for key, reason in table.missing.items():
        by_reason.setdefault(reason, []).append(key)
    listed = "; ".join(f"{', '.join(keys)}: {reason}" for reason, keys in by_reason.items())
    return [f"* {count(cells, 'cell')} {plural(cells, 'is', 'are')} missing. {listed}"]


def listed(notes: Iterable[str]) -> str:
    """Sentences as a list."""
    return "\n".join(f"- {_cell(note)}" for note in notes)


def grid(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table, padded so that it reads as text too; all but the first column at the right."""
    rows = [[_cell(text) for text in row] for row in (head, *lines)]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(head))]
    rule = [":" + "-" * (w - 1) if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    padded = [
        [
            text.ljust(w) if i == 0 else text.rjust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
