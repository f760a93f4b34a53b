"""From ``tracking.kind`` to a tracker: the one place that knows them all. Imports MLflow lazily."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nfbmr.config import TrackingConfig
from nfbmr.environment import code_revision
from nfbmr.paths import RunPaths
from nfbmr.tracking import FolderTracker, NoTracker, Tracker


def choose(
    config: TrackingConfig,
    paths: RunPaths,
    run_id: str,
    *,
    parent_id: str | None = None,
    tags: Mapping[str, Any] | None = None,
    patience: float = 10.0,
) -> Tracker:
    """Open the record of a run, or go on with it.

    Args:
        config: ``auto`` is MLflow where it is installed, else a folder.
        paths: Of the run; the journal lies in it.
        run_id: What the run is known by.
        parent_id: `run_id` of the sweep or ablation that the run belongs to.
        tags: The first labels, so that a run can be found from its first second on.
        patience: Seconds without progress for which the end of a run waits for the server. Little will do
            where somebody else looks after the journal, as the driver of a sweep does.

    Raises:
        MissingPackageError: MLflow was asked for and is not installed.
        TrackingError: The address of the tracking server cannot be one.
        OutputError: The run's folder cannot be written.
    """
    kind = kind_of(config)
    if kind == "none":
        return NoTracker()
    tags = {**revision_tags(), **(tags or {})}
    if kind == "folder":
        return FolderTracker(
            paths.journal, run_id=run_id, run_name=config.run_name, parent_id=parent_id, tags=tags
        )
    from mlflow_server.tracker import MLflowTracker

    return MLflowTracker(
        paths.journal,
        run_id=run_id,
        uri=config.uri,
        experiment=config.experiment,
        run_name=config.run_name,
        parent_id=parent_id,
        tags=tags,
        patience=patience,
    )


def revision_tags() -> dict[str, str]:
    """Which code made a run, where it is run from a checkout."""
    code = code_revision()
    if code["revision"] is None:
        return {}
    return {"nfbmr.revision": code["revision"], "nfbmr.dirty": str(code["dirty"]).lower()}


def kind_of(config: TrackingConfig) -> str:
    """The kind of tracker, ``auto`` decided."""
    if config.kind != "auto":
        return config.kind
    return "mlflow" if importlib.util.find_spec("mlflow") else "folder"


def where_to_look(config: TrackingConfig, journal: Path | None = None) -> str | None:
    """How to see the recorded runs in MLflow; None where they are not sent there.

    Args:
        config: Of the runs.
        journal: Folder of a run's journal: that run's page is named, once the server knows it.
    """
    if kind_of(config) != "mlflow":
        return None
    from mlflow_server.cursor import Cursor
    from mlflow_server.destination import LOCAL, Destination, page, ui_hint

    hint = ui_hint(config.uri)
    if journal is None:
        return hint
    destination = Destination.resolve(config.uri, config.experiment)
    cursor = Cursor.load(journal, destination)
    if not cursor.mlflow_run_id:
        return hint
    if destination.remote:
        return page(hint, cursor.experiment_id, cursor.mlflow_run_id)
    return f"{hint}\n            then open {page(LOCAL, cursor.experiment_id, cursor.mlflow_run_id)}"
