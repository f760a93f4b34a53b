"""An ablation's summary, as people read it on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nfbmr.errors import NfbmrError
from nfbmr.evaluation.intervals import Estimate
from nfbmr.wording import count
from tune.progress import duration
from tune.rows import METRICS, WHOLE
from tune.tables import NOT_RUN, interval, percent

_TOLD = ("Leak", "One seed", "MISSING")


def headline(summary: Mapping[str, Any]) -> str:
    """The rows, what tells them apart, and where to look.

    Args:
        summary: As ``--json`` prints it.
    """
    reference = summary["reference"]
    head = ["", f"{METRICS[summary['metric']]}, %", f"less {reference}", "", "published"]
    lines = [_line(name, row, summary) for name, row in summary["rows"].items()]
    lines += [_quoted(name, published, summary) for name, published in summary["quoted"].items()]
    if not any(line[-1] for line in lines):
        head, lines = head[:-1], [line[:-1] for line in lines]
    widths = [max(len(row[i]) for row in (head, *lines)) for i in range(len(head))]
    flows, seconds = summary["flows"], summary["seconds"]
    text = [summary["title"], summary["about"], ""]
    text += [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in (head, *lines)
    ]
    missing = summary["cells"]["missing"]
    if missing:
        text += ["", f"  MISSING   {count(len(missing), 'cell')} of {summary['cells']['asked']}"]
    text += [f"  NOTE      {note}" for note in summary["notes"] if note.startswith(_TOLD)]
    saved = flows["saved_seconds"]
    spared = f", {duration(saved)} of training saved" if saved >= 1 else ""
    text += [
        "",
        f"  flows     {flows['trained']} trained, {flows['reused']} taken from the store{spared}",
        f"  time      {duration(seconds)} in {count(summary['cells']['asked'] - len(missing), 'cell')}",
        f"  table     {summary['files']['md']} (and .csv, .tex)",
        f"  pictures  {', '.join(summary['pictures'])}",
        f"  ablation  {summary['ablation_dir']}",
    ]
    return "\n".join(text)


def _line(name: str, row: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    entry = row["metrics"][summary["metric"]]
    difference, published = entry.get("difference"), row["published"]
    mark = " *" if entry["missing_cells"] else ""
    return [
        f"{name} (test-peeked)" if row["test_peeked"] else name,
        f"{interval(Estimate.from_json(entry))}{mark}",
        "" if difference is None else interval(Estimate.from_json(difference), sign=True),
        "reference" if difference is None else difference["verdict"].replace("unknown", ""),
        "" if published is None else percent(published["value"]),
    ]


def _quoted(name: str, published: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """A row that is not run."""
    said = (published.get(summary["metric"]) or {}).get(WHOLE)
    return [name, NOT_RUN, "", "", "" if said is None else percent(said)]


def failed_cells(summary: Mapping[str, Any], go_on: str) -> NfbmrError | None:
    """The error that names cells without a result; None where all have one.

    Args:
        summary: As ``--json`` prints it.
        go_on: The command that tries them again.
    """
    missing: Mapping[str, str] = summary["cells"]["missing"]
    if not missing:
        return None
    listed = "".join(f"\n     {key}: {reason}" for key, reason in list(missing.items())[:12])
    more = "" if len(missing) <= 12 else f"\n     and {len(missing) - 12} more"
    return NfbmrError(
        f"{count(len(missing), 'cell')} failed; the others are in the table{listed}{more}",
        where=summary["ablation_dir"],
        fix=f"mend what is wrong, then try them again: {go_on}",
    )
