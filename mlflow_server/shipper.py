"""Sending a journal on: in order, at least once, by one process at a time, without ever being waited for.

What was acknowledged is noted in a :class:`~mlflow_server.cursor.Cursor` after every request. Whatever is
sent twice, because a process died between the answer and the note, changes nothing on the server.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_server.cursor import Cursor
from mlflow_server.destination import Destination
from mlflow_server.logged_model import is_model, results_of
from mlflow_server.remote import Opening, RefusedError, RemoteRun, WaitingError
from nfbmr import journal
from nfbmr.errors import OutputError
from nfbmr.journal import Entry
from nfbmr.records import read_record

BATCH = 1000
TOGETHER = ("params", "metrics", "tags")
# Loading MLflow, and making a new database, take seconds that say nothing about whether the server answers.
LOADING_PATIENCE = 60.0
LONGEST_PAUSE = 30.0

logger = logging.getLogger(__name__)


class Shipper:
    """Sends one journal to one destination.

    Args:
        folder: Of the journal.
        destination: Where to.
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
            WaitingError: Something is left, and it makes sense to try later.
        """
        with self._alone():
            cursor = Cursor.load(self.folder, self.destination)
            if self._again:
                cursor = Cursor.start(self.destination)
                self._again = False
            if not cursor.waiting(self.folder):
                return
            try:
                remote = self._connection(cursor)
                self._send(remote, cursor)
                self._link(remote, cursor)
            except WaitingError as problem:
                # The connection may be to a server that is being replaced: the next attempt makes its own.
                self._remote = None
                cursor.problem = str(problem)
                raise
            else:
                cursor.problem = ""
            finally:
                self._save(cursor)

    def _connection(self, cursor: Cursor) -> RemoteRun:
        if self._remote is None:
            opening = _opening(self.folder)
            known_as = cursor.mlflow_run_id
            self._remote = RemoteRun(self.destination, opening, known_as=known_as, on_progress=self._progress)
            self.connected = True
            if known_as and known_as != self._remote.mlflow_run_id:
                # The database is another one by now, or was emptied: it gets everything.
                cursor.offset, cursor.sent, cursor.refused = 0, 0, []
            cursor.experiment_id = self._remote.experiment_id
            cursor.mlflow_run_id = self._remote.mlflow_run_id
            if cursor.offset == 0:
                cursor.parent = opening.parent_id or ""
            self._save(cursor)
        return self._remote

    def _send(self, remote: RemoteRun, cursor: Cursor) -> None:
        together: list[Entry] = []
        size = 0
        for entry in journal.entries(self.folder, cursor.offset):
            if entry.kind in TOGETHER:
                together.append(entry)
                size += len(entry.fields["values"])
                if size < BATCH:
                    continue
                entry_alone = None
            else:
                entry_alone = entry
            self._send_together(remote, cursor, together)
            together, size = [], 0
            if entry_alone is not None:
                self._send_one(remote, cursor, entry_alone)
        self._send_together(remote, cursor, together)

    def _send_together(self, remote: RemoteRun, cursor: Cursor, entries: list[Entry]) -> None:
        if not entries:
            return
        try:
            remote.log(entries)
        except RefusedError:
            # One of them is to blame; the others must not suffer for it.
            for entry in entries:
                self._send_one(remote, cursor, entry)
            return
        cursor.sent += len(entries)
        cursor.offset = entries[-1].end
        self._save(cursor)

    def _send_one(self, remote: RemoteRun, cursor: Cursor, entry: Entry) -> None:
        try:
            self._hand_over(remote, entry)
            cursor.sent += 1
        except RefusedError as refusal:
            logger.warning("MLflow does not take an entry (%s) of %s: %s", entry.kind, self.folder, refusal)
            cursor.refused.append(f"{entry.kind}: {refusal}")
        cursor.offset = entry.end
        self._save(cursor)

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
                raise RefusedError(f"an entry of a newer version of nfbmr ({kind})")

    def _link(self, remote: RemoteRun, cursor: Cursor) -> None:
        if cursor.parent and remote.link_parent(cursor.parent):
            cursor.parent = ""

    def _progress(self) -> None:
        self.loaded = True
        self.progressed = time.monotonic()

    def _save(self, cursor: Cursor) -> None:
        try:
            cursor.save(self.folder, self.destination)
        except OutputError as error:
            raise WaitingError(str(error)) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time sends a journal."""
        fd = os.open(self.folder / "sending.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            journal.lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise WaitingError("another process is sending this run") from error
        finally:
            os.close(fd)


class ShippingThread(threading.Thread):
    """Sends a journal while it is being written.

    A daemon: a process that ends does not wait for it, and :meth:`close` waits only while there is progress.

    Args:
        shipper: What it runs.
        every: Seconds in which news is gathered before it is sent.
    """

    def __init__(self, shipper: Shipper, *, every: float = 2.0) -> None:
        super().__init__(name="nfbmr-tracking", daemon=True)
        self._shipper = shipper
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
                self._shipper.ship()
            except Exception as problem:
                failures += 1
                last_words -= closing
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
        shipper = self._shipper
        self._closing.set()
        self._news.set()
        begun = time.monotonic()
        while self.is_alive():
            local = not shipper.destination.remote
            loading = not self.problem and (not shipper.loaded or (local and not shipper.connected))
            limit = max(patience, LOADING_PATIENCE) if loading else patience
            if time.monotonic() - max(begun, shipper.progressed) > limit:
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
        if not self.problem:
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
    raise WaitingError(f"{folder} does not say which run it is of")
