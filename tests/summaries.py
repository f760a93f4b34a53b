"""Summaries of made-up runs, for suites that train nothing."""

from __future__ import annotations

from typing import Any

from nfbmr.config import Config
from nfbmr.evaluation.summary import RunSummary
from tune.records.sweep_summary import SweepSummary


def run_summary(auroc: float | None = None, side: str = "validation", **changes: Any) -> RunSummary:
    """A run that reached `auroc`, with an interval a tenth below it; keywords are fields in JSON's terms."""
    reached = None if auroc is None else {"value": auroc, "low": auroc - 0.1, "high": auroc}
    values: dict[str, Any] = {
        "run_id": "made-up",
        "run_dir": "runs/made-up",
        "method": "nf",
        "dataset": {"name": "parts"},
        "split": "official",
        "seed": 0,
        "test_peeked": False,
        "metrics": {side: {} if reached is None else {"image_auroc": reached}},
        "threshold": 1.0,
        "selection": {
            "on": "validation",
            "auroc": auroc,
            "parts": ["norm"],
            "weights": [1.0],
            "reduction": "max",
            "false_reject_rate": 0.05,
        },
        "timings": {},
        "config": Config().model_dump(mode="json"),
    }
    return RunSummary.from_json(values | changes)


def sweep_summary(**changes: Any) -> SweepSummary:
    """A sweep in which no trial has finished."""
    values: dict[str, Any] = {
        "name": "tiles",
        "folder": "runs/tiles",
        "method": "nf",
        "objective": ["validation/image_auroc"],
        "sampler": "tpe",
        "trials": {"asked": 8, "finished": 0, "pruned": 0, "failed": 0, "unfinished": 0},
        "importance": {"finished": 0, "needed": 20, "missing": None},
        "hits": {"features": 0, "flows": 0},
        "saved_seconds": {"features": 0.0, "stages": 0.0},
        "format": 2,
        "seconds": 1.0,
        "table": "runs/tiles/table.md",
        "resume": "nfbmr sweep --resume tiles",
    }
    return SweepSummary.from_json(values | changes)
