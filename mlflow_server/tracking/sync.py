"""Sending what a tracking server has missed, and saying what it still misses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlflow_server.destination import Destination, without_password
from mlflow_server.tracking.journal_uploader import JournalUploader
from mlflow_server.tracking.remote_run import DeletedOnServer, RetryLater, ServerUnavailable
from mlflow_server.tracking.upload_state import UploadState
from nfbmr import journal
from nfbmr.errors import TrackingError
from nfbmr.records import close_abandoned

ATTEMPTS = 3
"""Times that a request is sent before a run is left for the next call."""


@dataclass(frozen=True)
class Sent:
    """How far a run has come on its way to a server.

    Attributes:
        run_dir: Folder of the run.
        run_id: Identifier of the run.
        status: ``running``, ``finished``, ``failed`` or ``killed``.
        uri: Address of the server, without a password; empty for a run that was meant for its folder alone.
        mlflow_run_id: MLflow's own name for the run; empty until there is one.
        sent: Entries that arrived.
        waiting: Entries that did not yet.
        refused: Why the server will never take some of them.
        problem: Why the last attempt stopped early; empty where it did not.
    """

    run_dir: Path
    run_id: str
    status: str
    uri: str
    mlflow_run_id: str
    sent: int
    waiting: int
    refused: tuple[str, ...]
    problem: str

    @property
    def complete(self) -> bool:
        """Whether the server has everything, or was never to have anything."""
        return not self.uri or not (self.waiting or self.refused)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"run_dir": str(self.run_dir), "complete": self.complete}

    def line(self) -> str:
        """For people."""
        name = f"{self.run_dir} ({self.status})"
        if not self.uri:
            return f"{name}: kept in its folder only; --uri sends it to a server"
        text = f"{name}: {self.sent} entries on {self.uri}"
        if self.waiting:
            text += f", {self.waiting} still to send"
        if self.problem and self.waiting:
            text += f" ({self.problem})"
        return "\n  ".join([text, *(f"not taken: {reason}" for reason in self.refused)])


def find_journals(paths: Iterable[Path]) -> list[Path]:
    """The journals in runs, in folders of runs, or named themselves; parents before their children.

    Raises:
        TrackingError: A path does not exist, or holds no journal.
    """
    journals: dict[Path, None] = {}
    for path in paths:
        files = [path / journal.FILE] if (path / journal.FILE).exists() else sorted(path.rglob(journal.FILE))
        if not files:
            what = "no record of a run in this folder" if path.exists() else "no such folder"
            raise TrackingError(what, where=path, fix="name the folder of a run, or a folder of runs")
        journals |= dict.fromkeys(file.parent for file in files)
    return sorted(journals, key=lambda folder: _Header.read(folder).parent_id is not None)


def destination_of(folder: Path, uri: str | None = None) -> Destination | None:
    """Where a journal is to be sent: to `uri`, else where its run was recorded for; None: nowhere."""
    return _Header.read(folder).destination(uri)


def status(folder: Path, uri: str | None = None) -> Sent:
    """Look at a journal, without asking the server.

    Args:
        folder: Folder of the journal.
        uri: The server concerned; the one the run was meant for, where it is not given.
    """
    header = _Header.read(folder)
    destination = header.destination(uri)
    if destination is None:
        return Sent(folder.parent, header.run_id, header.status, "", "", 0, 0, (), "")
    state = UploadState.load(folder, destination)
    return Sent(
        run_dir=folder.parent,
        run_id=header.run_id,
        status=header.status,
        uri=without_password(destination.uri),
        mlflow_run_id=state.mlflow_run_id,
        sent=state.sent,
        waiting=state.waiting(folder),
        refused=tuple(state.refused),
        problem=state.problem,
    )


def sync(
    folders: Iterable[Path], uri: str | None = None, *, again: bool = False, pause: float = 1.0
) -> list[Sent]:
    """Send what is missing; a run whose process is gone is closed as ``killed`` first.

    A server that does not answer for one run is not asked for the others.

    Args:
        folders: Folders of the journals.
        uri: The server; the one each run was meant for, where it is not given.
        again: Send everything from the start, which changes nothing that is there already.
        pause: Seconds between attempts.
    """
    away: set[str] = set()
    runs = []
    for folder in folders:
        close_abandoned(folder)
        destination = _Header.read(folder).destination(uri)
        if destination is not None and destination.uri not in away:
            try:
                _persist(JournalUploader(folder, destination, again=again).ship, pause)
            except ServerUnavailable:
                away.add(destination.uri)
            except RetryLater:
                # The cursor keeps the reason, and status() tells it.
                pass
        runs.append(status(folder, uri))
    return runs


def _persist(ship: Callable[[], None], pause: float) -> None:
    for _ in range(ATTEMPTS - 1):
        try:
            return ship()
        except DeletedOnServer:
            raise  # waiting restores nothing
        except RetryLater:
            time.sleep(pause)
    return ship()


@dataclass
class _Header:
    """What a journal says about its run, without the numbers."""

    run_id: str = ""
    parent_id: str | None = None
    status: str = "running"
    fields: dict[str, str] | None = None

    @classmethod
    def read(cls, folder: Path) -> _Header:
        header = cls()
        for entry in journal.entries(folder):
            if entry.kind == "start":
                header.run_id, header.status = entry.fields["run_id"], "running"
                header.parent_id = entry.fields["parent_id"] or header.parent_id
                header.fields = entry.fields["destination"] or header.fields
            elif entry.kind == "finish":
                header.status = entry.fields["status"]
        return header

    def destination(self, uri: str | None) -> Destination | None:
        if uri is not None:
            return Destination.resolve(uri, (self.fields or {}).get("experiment", "nfbmr"))
        return None if self.fields is None else Destination.stored(self.fields)
