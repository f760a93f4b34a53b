"""A client of MLflow with this project's settings, made the same way by every room of this package."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_server.destination import Destination

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What sending again will not mend. Anything else (no connection, no permission, a full server) may pass.
HOPELESS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST"}
"""MLflow's codes of errors that sending again will not mend."""

# The client's own patience: our retries are between calls, with the journal as the queue, so a call is short.
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # It writes addresses to standard output, which belongs to --json.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # They belong to a terminal of MLflow's own.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Else a uv.lock that lies in the working directory would travel with a model.
    "MLFLOW_UV_AUTO_DETECT": "false",
    # Usage reports to a third party, from machines that often may not reach the outside at all.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Environment variables of MLflow's client, with their values."""


_MAKING = threading.Lock()
"""Alembic, which makes MLflow's tables, is one for a process: two threads at once mix up their databases."""


def apply_settings() -> None:
    """This project's settings of MLflow, where nobody has made others; before MLflow is imported."""
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)


def connect(destination: Destination) -> MlflowClient:
    """A client of MLflow with this project's settings; importing MLflow takes seconds."""
    apply_settings()
    from mlflow import MlflowClient

    if destination.database is not None and not destination.database.exists():
        with _MAKING:
            if not destination.database.exists():
                _make_whole(destination.database)
    return MlflowClient(tracking_uri=destination.uri)


def _make_whole(database: Path) -> None:
    """Make a SQLite database at once or not at all.

    MLflow makes its tables in a hundred steps. A process that is killed between two of them leaves a database
    that no later one can use.
    """
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=f".{database.name}-") as folder:
        made = Path(folder) / "new.db"
        engine = create_sqlalchemy_engine(f"sqlite:///{made}")  # type: ignore[no-untyped-call]
        try:
            _initialize_tables(engine)  # type: ignore[no-untyped-call]
        finally:
            engine.dispose()
        try:
            os.link(made, database)
        except FileExistsError:
            pass  # somebody else was quicker
        except OSError:  # a file system without links
            made.replace(database)
