"""Runs on an MLflow server, as the core asks for them: :class:`nfbmr.trackers.TrackerBackend`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_server.destination import LOCAL, VARIABLE, Destination, page, ui_hint, without_password
from mlflow_server.tracking.tracker import MLflowTracker
from mlflow_server.tracking.upload_state import UploadState
from nfbmr.config import TrackingConfig
from nfbmr.trackers import TrackerBackend, TrackingAddress
from nfbmr.tracking import Tracker


class MLflowBackend:
    """MLflow as the place where runs are recorded."""

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
        """Open the record of a run, or go on with it; see :func:`nfbmr.trackers.make_tracker`."""
        return MLflowTracker(
            folder,
            run_id=run_id,
            uri=config.uri,
            experiment=config.experiment,
            run_name=config.run_name,
            parent_id=parent_id,
            tags=tags,
            patience=patience,
        )

    def ui_url(self, config: TrackingConfig, journal: Path | None) -> str:
        """How to see a run: the table that it is in, with its metrics, and its own page.

        For a database the command that serves it goes before; that alone, or the address of the server, where
        the run has not been sent yet.
        """
        hint = ui_hint(config.uri)
        if journal is None:
            return hint
        destination = Destination.resolve(config.uri, config.experiment)
        state = UploadState.load(journal, destination)
        if not state.mlflow_run_id:
            return hint
        server = hint if destination.remote else LOCAL
        table = page(server, state.experiment_id)
        first = table if destination.remote else f"{hint}\n            then open {table}"
        return f"{first}\n            and its page {page(server, state.experiment_id, state.mlflow_run_id)}"

    def address(self, config: TrackingConfig) -> TrackingAddress:
        """The server or database that the configuration or the environment names, else SQLite here."""
        uri = Destination.resolve(config.uri).uri
        bare = without_password(uri)
        return TrackingAddress(bare, bool(config.uri or os.environ.get(VARIABLE)), bare != uri)


BACKEND: TrackerBackend = MLflowBackend()
"""What :mod:`nfbmr.trackers` loads by name."""
