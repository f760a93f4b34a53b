"""A sweep's three records, and what a test does to one of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow_server.destination import Destination
from nfbmr.paths import RunPaths, write_json
from nfbmr.tracking import FolderTracker, Status
from tests.summaries import run_summary
from tune.verify import Verification

EXPERIMENT = "nfbmr"


def recorded(root: Path, run_id: str, uri: str, parent_id: str | None = None) -> FolderTracker:
    """A record with a bit of everything, its end still to come."""
    tracker = FolderTracker(
        RunPaths(root).journal,
        run_id=run_id,
        parent_id=parent_id,
        system_metrics_every=None,
        destination=Destination.resolve(uri, EXPERIMENT).as_fields(),
    )
    tracker.params({"flow": {"blocks": 4}, "seed": 0})
    for step in (1, 2, 3):
        tracker.metrics({"flow/loss": 1 / step, "flow/validation_auroc": float("nan")}, step=step)
    tracker.metrics({"validation/image_auroc": 0.9})
    tracker.dataset("tiles", "ab" * 32, "group", "/data", {"train": 2})
    (root / "config.yaml").write_text("seed: 0\n")
    tracker.artifact(root / "config.yaml")
    (root / "model").mkdir(exist_ok=True)
    (root / "model" / "flow.safetensors").write_bytes(b"0123")
    tracker.model(root / "model")
    return tracker


def fitted(root: Path, auroc: float) -> None:
    write_json(RunPaths(root).identity, {"run_id": f"tiles-{root.name}"})
    run_summary(auroc).write(RunPaths(root).fitted)


ENDS: tuple[Status, ...] = ("finished", "pruned", "failed", "finished")


class Server:
    """What a test does to MLflow behind our back."""

    def __init__(self, uri: str) -> None:
        from mlflow_server.client import connect

        self.uri = uri
        self.client = connect(Destination(uri))
        self.experiment = self.client.get_experiment_by_name(EXPERIMENT).experiment_id

    def runs(self, run_id: str) -> list[Any]:
        return self.client.search_runs([self.experiment], f"tags.`nfbmr.run_id` = '{run_id}'")

    def run(self, run_id: str) -> Any:
        (run,) = self.runs(run_id)
        return run

    def execute(self, statement: str, *values: Any) -> int:
        with sqlite3.connect(urlsplit(self.uri).path) as database:
            return database.execute(statement, values).rowcount

    def artifacts(self, run_id: str) -> Path:
        return Path(urlsplit(self.run(run_id).info.artifact_uri).path)


def kinds(result: Verification) -> list[tuple[str, str, int]]:
    return [(difference.run, difference.kind, difference.count) for difference in result.differences]


def remove_run(server: Server) -> None:
    server.client.delete_run(server.run("tiles-0000").info.run_id)
