"""A comparison's summary, as people read it on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nfbmr.evaluation.intervals import Estimate
from nfbmr.wording import columns, count
from tune.comparison_table import milliseconds, seconds
from tune.progress import duration
from tune.rows import METRICS
from tune.tables import NOTHING, interval, percent


def headline(summary: Mapping[str, Any]) -> str:
    """The methods, best first, and where to look.

    Args:
        summary: As ``--json`` prints it.
    """
    splits = summary["splits"]
    head = ["method"]
    for metric in summary["metrics"]:
        head += [f"{METRICS[metric]}, %" + (f" ({split})" if len(splits) > 1 else "") for split in splits]
    lines = [_line(name, row, summary) for name, row in summary["rows"].items()]
    missing, asked = summary["cells"]["missing"], summary["cells"]["asked"]
    text = [summary["title"], summary["about"], summary["machine"], ""]
    text += [
        f"  {line}"
        for line in columns([[*head, "training", "ms an image", "MB", "front"], *lines]).splitlines()
    ]
    if missing:
        text += ["", f"  MISSING   {count(len(missing), 'cell')} of {asked}"]
    text += [
        f"  NOTE      {note}" for note in summary["notes"] if note.startswith(("Leak", "One seed", "TIMES"))
    ]
    text += [
        "",
        f"  time      {duration(summary['seconds'])} in {count(asked - len(missing), 'cell')}",
        f"  table     {summary['files']['md']} (and .csv, .tex)",
        f"  picture   {', '.join(summary['pictures']) or 'none: nothing was timed'}",
        f"  folder    {summary['ablation_dir']}",
    ]
    return "\n".join(text)


def _line(name: str, row: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    cells = [name]
    for metric in summary["metrics"]:
        for split in summary["splits"]:
            entry = row["splits"][split]["metrics"][metric]
            estimate = Estimate.from_json(entry)
            text = interval(estimate) if metric == summary["metric"] else percent(estimate.value)
            cells.append(f"{text} *" if entry["missing_cells"] else text)
    cost, training = row["cost"], row["training_seconds"]
    cells.append(NOTHING if training is None or math.isnan(training) else seconds(training))
    if cost is None:
        return [*cells, NOTHING, NOTHING, ""]
    size = (cost["model_bytes"] + cost["backbone_bytes"]) / 1e6
    return [*cells, milliseconds(cost["ms_one"]), f"{size:.1f}", ", ".join(row["front"])]
