"""From a run's configuration to its tracker; one that records on a server is loaded when it is used."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nfbmr.config import TrackingConfig
from nfbmr.environment import code_revision
from nfbmr.neighbours import TRACKER_BACKEND, load_object
from nfbmr.paths import RunPaths
from nfbmr.tracking import FolderTracker, NoTracker, Tracker


@dataclass(frozen=True)
class TrackingAddress:
    """Where runs are recorded.

    Attributes:
        uri: Without a password.
        given: Whether somebody said so, rather than nobody anything else.
        has_password: Whether the whole address holds a password.
    """

    uri: str
    given: bool
    has_password: bool


class TrackerBackend(Protocol):
    """Records runs on a server; another package has it (:mod:`nfbmr.neighbours`)."""

    def make_tracker(
        self,
        config: TrackingConfig,
        folder: Path,
        run_id: str,
        *,
        parent_id: str | None,
        tags: Mapping[str, Any],
        patience: float,
    ) -> Tracker:
        """Open the record of a run; see :func:`make_tracker`. `folder` is its journal's."""
        ...

    def ui_url(self, config: TrackingConfig, journal: Path | None) -> str:
        """Where people look at recorded runs; see :func:`ui_url`."""
        ...

    def address(self, config: TrackingConfig) -> TrackingAddress:
        """Where runs of this configuration are recorded."""
        ...


def make_tracker(
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
        paths: Paths of the run; the journal lies in it.
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
    return _backend().make_tracker(
        config, paths.journal, run_id, parent_id=parent_id, tags=tags, patience=patience
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


def ui_url(config: TrackingConfig, journal: Path | None = None) -> str | None:
    """How to see the recorded runs; None where they are not sent to a server.

    Args:
        config: Configuration of the runs.
        journal: Folder of a run's journal: that run's page is named, once the server knows it.
    """
    kind = kind_of(config)
    return None if kind in ("none", "folder") else _backend().ui_url(config, journal)


def tracking_address(config: TrackingConfig) -> TrackingAddress | None:
    """Where runs are recorded; None where they are not sent to a server."""
    kind = kind_of(config)
    return None if kind in ("none", "folder") else _backend().address(config)


def _backend() -> TrackerBackend:
    backend: TrackerBackend = load_object(TRACKER_BACKEND)
    return backend
