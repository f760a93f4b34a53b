"""The table of an ablation: as Markdown for people and MLflow, as CSV for programs, as LaTeX for papers.

All numbers of :data:`tune.lattice.METRICS` are shares; tables for people show them in percent.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nfbmr.evaluation.intervals import Estimate
from nfbmr.wording import count, plural
from tune.lattice import METRICS, Published
from tune.statistics import Difference, Mean

ALL = "all"
"""What the whole is called in CSV files: the mean over categories, or all kinds of defect."""

NOTHING = "–"
_MINUS = "\N{MINUS SIGN}"


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
    published: Published | None = None
    peeked: bool = False


@dataclass(frozen=True)
class Table:
    """An ablation's results, ready to be written down and drawn.

    Attributes:
        name: Of the table, as it was asked for.
        title: What the rows are about.
        about: What the numbers are of: data set, split, seeds.
        metric: The one that counts, a key of :data:`tune.lattice.METRICS`.
        reference: Name of the row that the others are compared with.
        parts: What the numbers are broken down into: categories; where there is one or none, kinds of
            defect, each against all good images. May be empty.
        by: What the parts are: ``category`` or ``kind``. The whole is the mean over categories, and all
            kinds together.
        lines: In the order of the table.
        confidence: Of the intervals.
        notes: Sentences below the table.
        missing: Cells without a result, each with the reason.
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

    def entry(self, line: Line, part: str | None = None, metric: str | None = None) -> Entry:
        """A number of the table."""
        return line.entries[metric or self.metric][part]

    @property
    def whole(self) -> str:
        """What the whole is called beside its parts."""
        return "mean" if self.by == "category" else "all kinds"

    @property
    def has_published(self) -> bool:
        """Whether any row has a number to compare with."""
        return any(line.published is not None for line in self.lines)


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
    return ("0.0" if text in ("+0.0", "-0.0") else text).replace("-", _MINUS)


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
    blocks = [f"# {_cell(table.title)}", _cell(table.about), _grid(*_main(table))]
    if table.parts:
        name, by = METRICS[table.metric], "category" if table.by == "category" else "kind of defect"
        blocks += [f"## {name[0].upper()}{name[1:]} by {by}, %", _grid(*_by_part(table))]
    blocks += ["## Other metrics, %", _grid(*_others(table))]
    notes = [*table.notes, *_missing(table)]
    blocks += ["## Notes", "\n".join(f"- {_cell(note)}" for note in notes)] if notes else []
    return "\n\n".join(blocks) + "\n"


def _main(table: Table) -> tuple[list[str], list[list[str]]]:
    head = ["", f"{METRICS[table.metric]}, %", "seeds", f"less {table.reference}", ""]
    if table.has_published:
        head += ["published", "source"]
    lines = []
    for line in table.lines:
        entry = table.entry(line)
        cells = [
            f"{line.name} (test-peeked)" if line.peeked else line.name,
            _marked(interval(entry.mean.estimate), entry),
            _seeds(entry.mean),
            NOTHING if entry.difference is None else interval(entry.difference.estimate, sign=True),
            verdict(entry.difference),
        ]
        if table.has_published:
            p = line.published
            cells += [NOTHING, ""] if p is None else [percent(p.value), p.source]
        lines.append(cells)
    return head, lines


def _by_part(table: Table) -> tuple[list[str], list[list[str]]]:
    head = ["", *(line.name for line in table.lines)]
    lines = []
    for part in table.parts:
        entries = [table.entry(line, part) for line in table.lines]
        lines.append([part, *(_marked(interval(e.mean.estimate), e) for e in entries)])
    whole = [percent(table.entry(line).mean.estimate.value) for line in table.lines]
    return head, [*lines, [table.whole, *whole]]


def _others(table: Table) -> tuple[list[str], list[list[str]]]:
    names = [metric for metric in METRICS if metric != table.metric]
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


def _missing(table: Table) -> list[str]:
    if not table.missing:
        return []
    cells = len(table.missing)
    by_reason: dict[str, list[str]] = {}
    for key, reason in table.missing.items():
        by_reason.setdefault(reason, []).append(key)
    listed = "; ".join(f"{', '.join(keys)}: {reason}" for reason, keys in by_reason.items())
    return [f"* {count(cells, 'cell')} {plural(cells, 'is', 'are')} missing. {listed}"]


def _grid(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
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


# ---------------------------------------------------------------------------------------- CSV and LaTeX


CSV_COLUMNS = (
    "row", "by", "part", "metric", "value", "low", "high", "seeds", "sd_seeds", "reference", "difference",
    "difference_low", "difference_high", "verdict", "same_images", "missing_cells", "test_peeked",
    "published", "published_source", "published_protocol",
)  # fmt: skip


def csv_text(table: Table) -> str:
    """A line a row, part and metric, as shares; what is undefined is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in table.lines:
        for metric in line.entries:
            for part in (None, *table.parts):
                writer.writerow(_record(table, line, metric, part))
    return out.getvalue()


def _record(table: Table, line: Line, metric: str, part: str | None) -> dict[str, Any]:
    entry = table.entry(line, part, metric)
    mean, difference = entry.mean, entry.difference
    record: dict[str, Any] = {
        "row": line.name,
        "by": table.by,
        "part": ALL if part is None else part,
        "metric": metric,
        **_numbers(mean.estimate, "value", "low", "high"),
        "seeds": mean.seeds,
        "sd_seeds": _number(mean.deviation),
        "reference": table.reference,
        "missing_cells": entry.missing,
        "test_peeked": str(line.peeked).lower(),
    }
    if difference is not None:
        record |= _numbers(difference.estimate, "difference", "difference_low", "difference_high")
        record |= {"verdict": difference.verdict, "same_images": str(difference.same_images).lower()}
    if line.published is not None and metric == table.metric and part is None:
        record |= {
            "published": line.published.value,
            "published_source": line.published.source,
            "published_protocol": line.published.protocol,
        }
    return record


def _numbers(estimate: Estimate, *names: str) -> dict[str, Any]:
    values = (estimate.value, estimate.low, estimate.high)
    return dict(zip(names, map(_number, values), strict=True))


def _number(value: float) -> float | str:
    return "" if math.isnan(value) else round(value, 6)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", _MINUS: "$-$", NOTHING: "--",
}  # fmt: skip


def latex(table: Table) -> str:
    r"""A ``table`` environment, for the package booktabs; every special character is escaped."""
    head, lines = _main(table)
    if table.has_published:
        head, lines = head[:-1], [row[:-1] for row in lines]
    body = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_tex(table.title)}. {_tex(table.about)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(map(_tex, head))} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(map(_tex, row))} \\\\" for row in lines),
        r"    \bottomrule",
        r"  \end{tabular}",
        rf"  \label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', table.name)}}}",
        r"\end{table}",
    ]
    sources = dict.fromkeys(line.published.source for line in table.lines if line.published)
    comments = [f"% published: {' '.join(source.split())}" for source in sources if source]
    comments += [f"% {' '.join(note.split())}" for note in (*table.notes, *_missing(table))]
    return "\n".join([*comments, *body]) + "\n"


def _tex(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    Example:
        >>> _tex("50 % of a_b & c")
        '50 \\% of a\\_b \\& c'
    """
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))
