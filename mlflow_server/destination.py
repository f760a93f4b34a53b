"""Which tracking server, which experiment, and how to open it in a browser; none of it imports MLflow."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from nfbmr.errors import TrackingError

VARIABLE = "MLFLOW_TRACKING_URI"
"""MLflow's environment variable of the tracking server's address."""
LOCAL = "http://127.0.0.1:5000"
"""Where the command of :func:`ui_hint` serves its pages."""
FIRST_VIEW = "nfbmr-runs"
"""The view of :func:`mlflow_server.tracking.views.view_tags` that shows what a run came to."""


@dataclass(frozen=True)
class Destination:
    """A tracking server and an experiment on it.

    Attributes:
        uri: As MLflow takes it, passwords included.
        experiment: Made where it is missing.
    """

    uri: str
    experiment: str = "nfbmr"

    @classmethod
    def resolve(cls, uri: str | None = None, experiment: str = "nfbmr") -> Destination:
        """The address given, else ``MLFLOW_TRACKING_URI``, else SQLite in the working directory.

        Raises:
            TrackingError: A folder was named: MLflow no longer writes to plain folders.
        """
        given = uri or os.environ.get(VARIABLE)
        if not given:
            return cls(f"sqlite:///{Path.cwd() / 'mlflow.db'}", experiment)
        if urlsplit(given).scheme in ("", "file"):
            raise TrackingError(
                "MLflow no longer keeps runs in a plain folder",
                where=given,
                fix="use sqlite:///FILE.db, the address of a tracking server, or --set tracking.kind=folder",
            )
        database = _sqlite_file(given)
        return cls(given if database is None else f"sqlite:///{database}", experiment)

    @classmethod
    def stored(cls, fields: Mapping[str, str]) -> Destination:
        """Read back what :meth:`as_fields` wrote, with the password from the environment, if it is there."""
        uri, current = fields["uri"], os.environ.get(VARIABLE, "")
        return cls(current if current and without_password(current) == uri else uri, fields["experiment"])

    def as_fields(self) -> dict[str, str]:
        """For a journal: without the password."""
        return {"uri": without_password(self.uri), "experiment": self.experiment}

    @property
    def key(self) -> str:
        """Names this destination in file names."""
        text = f"{without_password(self.uri)}\n{self.experiment}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def remote(self) -> bool:
        """Whether it is a tracking server, rather than a database that is written directly."""
        return urlsplit(self.uri).scheme in ("http", "https")

    @property
    def database(self) -> Path | None:
        """The SQLite file, where it is one."""
        return _sqlite_file(self.uri)

    @property
    def artifact_location(self) -> str | None:
        """Where the artifacts of a new experiment go: beside the database; None lets the server choose."""
        if self.remote:
            return None
        database = self.database
        folder = Path.cwd() if database is None else database.parent
        return (folder / "mlartifacts").as_uri()


def without_password(uri: str) -> str:
    """The address without the password in it.

    Example:
        >>> without_password("https://ann:secret@example.com/mlflow")
        'https://ann@example.com/mlflow'
    """
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    user, host = parts.username or "", parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host))


def ui_hint(uri: str | None = None) -> str:
    """What to type, or to open, to see the runs.

    Args:
        uri: As for :meth:`Destination.resolve`.

    Returns:
        The address of a server that runs already; for a database, a shell command that starts one on it.
    """
    where = Destination.resolve(uri).uri
    if urlsplit(where).scheme in ("http", "https"):
        return without_password(where)
    nfbmr = "nfbmr" if shutil.which("nfbmr") else f"{shlex.quote(sys.executable)} -m nfbmr"
    if where == f"sqlite:///{Path.cwd() / 'mlflow.db'}":
        return f"{nfbmr} server"
    return f"{nfbmr} server --backend {shlex.quote(without_password(where))}"


def page(address: str, experiment_id: str, mlflow_run_id: str = "") -> str:
    """The page of a run, or the table of an experiment's runs, on MLflow's side for model training.

    MLflow 3.17 goes by the address alone: without the first parameter it shows its pages for language models,
    and without the second one a table without metrics; see :mod:`mlflow_server.tracking.views`.

    Example:
        >>> page("http://localhost:5000", "1", "abc")
        'http://localhost:5000/#/experiments/1/runs/abc?workflowType=machine_learning'
        >>> page("http://localhost:5000", "1")
        'http://localhost:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=nfbmr-runs'
    """
    runs = f"{address.rstrip('/')}/#/experiments/{experiment_id}/runs"
    if not mlflow_run_id:
        return f"{runs}?workflowType=machine_learning&viewStateShareKey={FIRST_VIEW}"
    return f"{runs}/{mlflow_run_id}?workflowType=machine_learning"


def _sqlite_file(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if not parts.scheme.startswith("sqlite"):
        return None
    # sqlite:///relative.db and sqlite:////absolute.db, as SQLAlchemy has it.
    return Path.cwd() / uri.partition("///")[2]
