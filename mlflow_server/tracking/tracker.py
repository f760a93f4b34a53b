"""The MLflow tracker: the journal of ``FolderTracker``, and a thread that sends it on."""

from __future__ import annotations

import importlib.util
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_server.destination import Destination
from mlflow_server.tracking.journal_uploader import JournalUploader, UploadThread
from nfbmr.errors import MissingPackageError
from nfbmr.tracking import FolderTracker, Status

logger = logging.getLogger(__name__)


class MLflowTracker(FolderTracker):
    """Records a run on a tracking server, without ever waiting for it.

    Every call writes a line to the journal and returns; a thread sends the lines. What a server that is
    down or slow has not taken when the run ends stays in the journal, and ``nfbmr track sync`` sends it.

    Args:
        folder: Folder of the journal, ``RunPaths.journal``.
        run_id: What the run is known by; on the server it is found by the tag ``nfbmr.run_id``.
        uri: Address of the server; else ``MLFLOW_TRACKING_URI``, else SQLite in the working directory.
        experiment: Made where it is missing.
        run_name: What people call it; `run_id` where it is not given.
        parent_id: `run_id` of the sweep or ablation that this run belongs to. It may reach the server later.
        tags: The first labels.
        system_metrics_every: Seconds between samples of processor, memory, disk and network; None for none.
        patience: Seconds without progress for which :meth:`finish` waits.

    Raises:
        MissingPackageError: MLflow is not installed.
        TrackingError: The address cannot be one.
        OutputError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str,
        uri: str | None = None,
        experiment: str = "nfbmr",
        run_name: str | None = None,
        parent_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        system_metrics_every: float | None = 10.0,
        patience: float = 10.0,
    ) -> None:
        if importlib.util.find_spec("mlflow") is None:
            raise MissingPackageError(
                "MLflow is not installed", fix='pip install "nfbmr[mlflow]", or --set tracking.kind=folder'
            )
        self.destination = Destination.resolve(uri, experiment)
        self._patience = patience
        self._thread: UploadThread | None = None
        super().__init__(
            folder,
            run_id=run_id,
            run_name=run_name,
            parent_id=parent_id,
            tags=tags,
            system_metrics_every=system_metrics_every,
            destination=self.destination.as_fields(),
        )
        self._thread = UploadThread(JournalUploader(folder, self.destination))
        self._thread.start()

    def finish(self, status: Status = "finished") -> None:
        """Close the record, and wait for the server as long as there is progress."""
        if self._status is not None:
            return
        super().finish(status)
        if self._thread is not None and not self._thread.close(self._patience):
            problem = self._thread.problem
            logger.warning(
                "the record of this run is whole on disk but not yet on %s%s; to send it: "
                "nfbmr track sync %s",
                self.destination.as_fields()["uri"],
                f" ({problem})" if problem else "",
                shlex.quote(str(self.folder.parent)),
            )

    def _record(self, kind: str, **fields: Any) -> None:
        super()._record(kind, **fields)
        if self._thread is not None:
            self._thread.wake()
