"""Sending a journal on: in order, at least once, by one process at a time, without ever being waited for.

What was acknowledged is noted in a :class:`~mlflow_server.tracking.upload_state.UploadState` after every
request. Whatever is sent twice, because a process died between the answer and the note, changes nothing on
the server.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_server.destination import Destination
from mlflow_server.packaging.logged_model import is_model, results_of
from mlflow_server.tracking.remote_run import DeletedOnServer, Opening, PermanentError, RemoteRun, RetryLater
from mlflow_server.tracking.upload_state import UploadState
from nfbmr import journal
from nfbmr.errors import OutputError
from nfbmr.journal import Entry
from nfbmr.locks import lock_open_file
from nfbmr.records import read_record

BATCH = 1000
"""Values that are sent together at most: MLflow's own limit of metrics."""
TOGETHER = ("params", "metrics", "tags")
"""Kinds of entries that are gathered to one request."""
# Loading MLflow, and making a new database, take seconds that say nothing about whether the server answers.
LOADING_PATIENCE = 60.0
"""Seconds that loading MLflow and making a database may take besides."""
LONGEST_PAUSE = 30.0
"""Seconds between two tries at most."""

logger = logging.getLogger(__name__)


class JournalUploader:
    """Sends one journal to one destination.

    Args:
        folder: Folder of the journal.
        destination: Tracking server and experiment that it is sent to.
        again: Send everything from the start.
    """

    def __init__(self, folder: Path, destination: Destination, *, again: bool = False) -> None:
        self.folder = folder
        self.destination = destination
        self.progressed = time.monotonic()
        self.loaded = self.connected = False
        self._again = again
        self._remote: RemoteRun | None = None

    def ship(self) -> None:
        """Send all that is there.

        Raises:
            RetryLater: Something is left, and it makes sense to try later.
        """
        with self._alone():
            state = UploadState.load(self.folder, self.destination)
            if self._again:
                state = UploadState.start(self.destination)
                self._again = False
            if not state.waiting(self.folder):
                return
            try:
                remote = self._connection(state)
                self._send(remote, state)
                if state.parent and remote.link_parent(state.parent):
                    state.parent = ""
            except RetryLater as problem:
                # The connection may be to a server that is being replaced: the next attempt makes its own.
                self._remote = None
                state.problem = str(problem)
                raise
            else:
                state.problem = ""
            finally:
                self._save(state)

    def _connection(self, state: UploadState) -> RemoteRun:
        if self._remote is None:
            opening = _opening(self.folder)
            known_as = state.mlflow_run_id
            self._remote = RemoteRun(self.destination, opening, known_as=known_as, on_progress=self._progress)
            self.connected = True
            if known_as and known_as != self._remote.mlflow_run_id:
                # The database is another one by now, or was emptied: it gets everything.
                state.offset, state.sent, state.refused = 0, 0, []
            state.experiment_id = self._remote.experiment_id
            state.mlflow_run_id = self._remote.mlflow_run_id
            if state.offset == 0:
                state.parent = opening.parent_id or ""
            self._save(state)
        return self._remote

    def _send(self, remote: RemoteRun, state: UploadState) -> None:
        together: list[Entry] = []
        size = 0
        for entry in journal.entries(self.folder, state.offset):
            if entry.kind in TOGETHER:
                together.append(entry)
                size += len(entry.fields["values"])
                if size < BATCH:
                    continue
                entry_alone = None
            else:
                entry_alone = entry
            self._send_together(remote, state, together)
            together, size = [], 0
            if entry_alone is not None:
                self._send_one(remote, state, entry_alone)
        self._send_together(remote, state, together)

    def _send_together(self, remote: RemoteRun, state: UploadState, entries: list[Entry]) -> None:
        if not entries:
            return
        try:
            remote.log(entries)
        except PermanentError:
            # One of them is to blame; the others must not suffer for it.
            for entry in entries:
                self._send_one(remote, state, entry)
            return
        state.sent += len(entries)
        state.offset = entries[-1].end
        self._save(state)

    def _send_one(self, remote: RemoteRun, state: UploadState, entry: Entry) -> None:
        try:
            self._hand_over(remote, entry)
            state.sent += 1
        except PermanentError as refusal:
            logger.warning("MLflow does not take an entry (%s) of %s: %s", entry.kind, self.folder, refusal)
            state.refused.append(f"{entry.kind}: {refusal}")
        state.offset = entry.end
        self._save(state)

    def _hand_over(self, remote: RemoteRun, entry: Entry) -> None:
        fields, run = entry.fields, self.folder.parent
        match entry.kind:
            case "start":
                remote.begin(fields)
            case "artifact":
                path = run / fields["path"]
                remote.artifact(path, artifact_folder(path, fields["folder"]))
            case "model" if is_model(run, fields["path"]):
                remote.model(run, fields["name"], results_of(read_record(self.folder).metrics))
            case "model":
                remote.artifact(run / fields["path"], fields["name"])
            case "dataset":
                remote.dataset(fields)
            case "finish":
                remote.end(fields["status"], entry.time)
            case kind if kind in TOGETHER:
                remote.log([entry])
            case kind:
                raise PermanentError(f"an entry of a newer version of nfbmr ({kind})")

    def _progress(self) -> None:
        self.loaded = True
        self.progressed = time.monotonic()

    def _save(self, state: UploadState) -> None:
        try:
            state.save(self.folder, self.destination)
        except OutputError as error:
            raise RetryLater(str(error)) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time sends a journal."""
        fd = os.open(self.folder / "sending.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock_open_file(fd, wait=False)
            yield
        except BlockingIOError as error:
            raise RetryLater("another process is sending this run") from error
        finally:
            os.close(fd)


class UploadThread(threading.Thread):
    """Sends a journal while it is being written.

    A daemon: a process that ends does not wait for it, and :meth:`close` waits only while there is progress.

    Args:
        uploader: What it runs.
        every: Seconds in which news is gathered before it is sent.
    """

    def __init__(self, uploader: JournalUploader, *, every: float = 2.0) -> None:
        super().__init__(name="nfbmr-tracking", daemon=True)
        self._uploader = uploader
        self._every = every
        self._news = threading.Event()
        self._closing = threading.Event()
        self.problem = ""

    def wake(self) -> None:
        """There is something to send."""
        self._news.set()

    def run(self) -> None:
        """Send, pause, send; longer pauses while the server does not answer."""
        failures, last_words = 0, 3
        while last_words:
            # In this order: news that comes after the clearing is news for the next round.
            self._news.clear()
            closing = self._closing.is_set()
            try:
                self._uploader.ship()
            except Exception as problem:
                failures += 1
                last_words = 0 if closing and isinstance(problem, DeletedOnServer) else last_words - closing
                self._tell(problem)
            else:
                failures = 0
                if self.problem:
                    self.problem = ""
                    logger.info("MLflow can be reached again; everything is sent")
                if closing:
                    return
            self._pause(failures, closing)

    def close(self, patience: float = 10.0) -> bool:
        """Send the rest.

        Args:
            patience: Seconds without progress after which waiting ends.

        Returns:
            Whether everything was sent.
        """
        uploader = self._uploader
        self._closing.set()
        self._news.set()
        begun = time.monotonic()
        while self.is_alive():
            local = not uploader.destination.remote
            loading = not self.problem and (not uploader.loaded or (local and not uploader.connected))
            limit = max(patience, LOADING_PATIENCE) if loading else patience
            if time.monotonic() - max(begun, uploader.progressed) > limit:
                break
            self.join(0.05)
        return not self.is_alive() and not self.problem

    def _pause(self, failures: int, closing: bool) -> None:
        if not failures:
            self._news.wait()
            self._closing.wait(self._every)
        elif closing:
            time.sleep(0.5)
        else:
            # Many runs wait for one server: they must not all come back in the same instant.
            pause = min(LONGEST_PAUSE, self._every * 2**failures) * random.uniform(0.5, 1.0)
            self._closing.wait(pause)

    def _tell(self, problem: Exception) -> None:
        if isinstance(problem, DeletedOnServer):
            if self.problem != str(problem):
                logger.warning("%s; the run goes on, and its record is kept", problem)
        elif not self.problem:
            logger.warning(
                "MLflow cannot be reached now; the run goes on, its record is kept and sent later (%s)",
                problem,
            )
        self.problem = str(problem) or type(problem).__name__


def artifact_folder(path: Path, folder: str) -> str:
    """Where an artifact goes: a file into `folder`, a folder under its own name into it."""
    return "/".join(part for part in (folder, path.name if path.is_dir() else "") if part)


def _opening(folder: Path) -> Opening:
    for entry in journal.entries(folder):
        if entry.kind == "start":
            fields = entry.fields
            return Opening(fields["run_id"], fields["run_name"], fields["parent_id"], entry.time)
    raise RetryLater(f"{folder} does not say which run it is of")
