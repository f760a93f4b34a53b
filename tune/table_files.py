"""The table of an ablation as CSV for programs and as LaTeX for papers."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Any

from nfbmr.evaluation.intervals import Estimate
from tune.rows import WHOLE
from tune.tables import MINUS, NOTHING, Line, Table, main_rows, missing_notes

CSV_COLUMNS = (
    "row", "by", "part", "metric", "value", "low", "high", "seeds", "sd_seeds", "reference", "difference",
    "difference_low", "difference_high", "verdict", "same_images", "missing_cells", "test_peeked",
    "published", "published_source", "published_protocol", "run",
)  # fmt: skip


def csv_text(table: Table) -> str:
    """A line a row, part and metric, as shares; what is undefined is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in table.lines:
        for metric in line.entries:
            for part in (None, *table.parts, *table.groups):
                writer.writerow(_record(table, line, metric, part) | _said(line, metric, part))
    for line in table.quoted:
        for metric, parts in line.published.items():
            for part in parts:
                record = {"row": line.name, "by": table.by, "part": part or WHOLE, "metric": metric}
                writer.writerow(record | {"run": "false"} | _said(line, metric, part))
    return out.getvalue()


def _said(line: Line, metric: str, part: str | None) -> dict[str, Any]:
    said = line.said(metric, part)
    if said is None:
        return {}
    return {
        "published": said.value,
        "published_source": said.source,
        "published_protocol": said.protocol,
    }


def _record(table: Table, line: Line, metric: str, part: str | None) -> dict[str, Any]:
    entry = table.entry(line, part, metric)
    mean, difference = entry.mean, entry.difference
    record: dict[str, Any] = {
        "row": line.name,
        "by": table.by,
        "part": WHOLE if part is None else part,
        "metric": metric,
        **_numbers(mean.estimate, "value", "low", "high"),
        "seeds": mean.seeds,
        "sd_seeds": _number(mean.deviation),
        "reference": table.reference,
        "missing_cells": entry.missing,
        "test_peeked": str(line.peeked).lower(),
        "run": "true",
    }
    if difference is not None:
        record |= _numbers(difference.estimate, "difference", "difference_low", "difference_high")
        record |= {"verdict": difference.verdict, "same_images": str(difference.same_images).lower()}
    return record


def _numbers(estimate: Estimate, *names: str) -> dict[str, Any]:
    values = (estimate.value, estimate.low, estimate.high)
    return dict(zip(names, map(_number, values), strict=True))


def _number(value: float) -> float | str:
    return "" if math.isnan(value) else round(value, 6)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", MINUS: "$-$", NOTHING: "--",
}  # fmt: skip


def latex(table: Table) -> str:
    r"""A ``table`` environment, for the package booktabs; every special character is escaped."""
    head, lines = main_rows(table)
    if table.has_published:
        head, lines = head[:-1], [row[:-1] for row in lines]
    sources = dict.fromkeys(
        one.source
        for line in (*table.lines, *table.quoted)
        for parts in line.published.values()
        for one in parts.values()
    )
    comments = [f"% published: {' '.join(source.split())}" for source in sources if source]
    comments += [f"% {' '.join(note.split())}" for note in (*table.notes, *missing_notes(table))]
    body = tabular(head, lines, f"{table.title}. {table.about}", table.name)
    return "\n".join([*comments, *body]) + "\n"


def tabular(head: Sequence[str], lines: Sequence[Sequence[str]], caption: str, label: str) -> list[str]:
    """A ``table`` environment of rows of plain text, line by line."""
    return [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_tex(caption)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(map(_tex, head))} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(map(_tex, row))} \\\\" for row in lines),
        r"    \bottomrule",
        r"  \end{tabular}",
        rf"  \label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', label)}}}",
        r"\end{table}",
    ]


def _tex(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    Example:
        >>> _tex("50 % of a_b & c")
        '50 \\% of a\\_b \\& c'
    """
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))
