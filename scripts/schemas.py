"""Write ``docs/schemas/``: the JSON Schema of every kind of ``summary.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from nfbmr.evaluation.summary import RunSummary, Summary
from tune.records.ablation_summary import AblationSummary, ComparisonSummary
from tune.records.sweep_summary import SweepSummary

SUMMARIES: tuple[type[Summary], ...] = (RunSummary, SweepSummary, AblationSummary, ComparisonSummary)
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"


def schemas() -> Iterator[tuple[str, str]]:
    """Each file's name and text."""
    for kind in SUMMARIES:
        words = re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()
        yield f"{words}.json", json.dumps(kind.json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in schemas():
        (FOLDER / name).write_text(text, encoding="utf-8")
