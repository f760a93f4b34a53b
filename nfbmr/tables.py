"""A table of text, written in every format that there is: Markdown, terminal, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from nfbmr.text import columns

MINUS = "\N{MINUS SIGN}"
"""The sign before negative numbers in tables for people."""
NOTHING = "–"
"""Stands where there is no number."""

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", MINUS: "$-$", NOTHING: "--",
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    r"""A head and rows of cells of plain text, all of one length.

    Example:
        >>> grid = Grid.of(["", "AUROC, %"], [["a|b", "98.7"], ["c", "–"]])
        >>> print(grid.markdown())
        |      | AUROC, % |
        | :--- | -------: |
        | a\|b |     98.7 |
        | c    |        – |
        >>> print(grid.terminal())
             AUROC, %
        a|b  98.7
        c    –
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Self:
        """A table of lists; columns that hold nothing in any row stay."""
        return cls(tuple(head), tuple(map(tuple, rows)))

    @classmethod
    def of_records(cls, names: Sequence[str], records: Iterable[Mapping[str, Any]]) -> Self:
        """A table of values by column: numbers to six digits, undefined and missing ones empty.

        Example:
            >>> Grid.of_records(["row", "value", "run"], [{"row": "a", "value": 1 / 3, "run": True}]).rows
            (('a', '0.333333', 'true'),)
        """
        return cls.of(names, ([_as_value(record.get(name)) for name in names] for record in records))

    def without(self, *positions: int) -> Self:
        """The same without some columns, counted from 0."""
        kept = [i for i in range(len(self.head)) if i not in positions]
        return type(self).of([self.head[i] for i in kept], [[row[i] for i in kept] for row in self.rows])

    def markdown(self) -> str:
        """Padded, so that it reads as text too; all but the first column at the right."""
        rows = [[one_line(text).replace("|", "\\|") for text in row] for row in (self.head, *self.rows)]
        widths = [max(4, *map(len, column)) for column in zip(*rows, strict=True)]
        padded = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
        rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
        return "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))

    def terminal(self) -> str:
        """In columns that stand below each other."""
        return columns([self.head, *self.rows])

    def csv(self) -> str:
        """With a line for the head."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.head, *self.rows])
        return text.getvalue()

    def latex(self, caption: str, label: str, notes: Iterable[str] = ()) -> str:
        r"""A ``table`` environment, for the package booktabs; every special character is escaped.

        Args:
            caption: Caption of the table.
            label: What the table is referred to by, without ``tab:``.
            notes: Comments above it.
        """
        lines = [
            *(f"% {one_line(note)}" for note in notes),
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_as_latex(caption)}}}",
            rf"  \begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}",
            r"    \toprule",
            f"    {' & '.join(map(_as_latex, self.head))} \\\\",
            r"    \midrule",
            *(f"    {' & '.join(map(_as_latex, row))} \\\\" for row in self.rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            rf"  \label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', label)}}}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def one_line(text: str) -> str:
    """Text without line breaks and runs of blanks."""
    return " ".join(str(text).split())


def bullets(notes: Iterable[str]) -> str:
    """Sentences as a list in Markdown."""
    return "\n".join(f"- {one_line(note)}" for note in notes)


def _as_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if math.isnan(value) else str(round(value, 6))
    return "" if value is None else str(value)


def _as_latex(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    Example:
        >>> _as_latex("50 % of a_b & c")
        '50 \\% of a\\_b \\& c'
    """
    return "".join(_LATEX.get(character, character) for character in one_line(text))
