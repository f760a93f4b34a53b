"""Sending on what others could not: journals whose own process gave up on the server, or is gone.

A run sends its own journal, and stops waiting for a server that is down so that the next run can begin.
Whoever looks after many runs has a :class:`UploadQueue`, which tries again until each has arrived, its link
to its parent included.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from pathlib import Path

from mlflow_server.tracking.journal_uploader import LONGEST_PAUSE, JournalUploader
from mlflow_server.tracking.remote_run import ServerUnavailable
from mlflow_server.tracking.sync import destination_of
from mlflow_server.tracking.upload_state import UploadState

logger = logging.getLogger(__name__)


class UploadQueue:
    """A thread that sends journals until the server has them.

    Args:
        every: Seconds between rounds; longer while the server does not answer.
    """

    def __init__(self, *, every: float = 2.0) -> None:
        self._every = every
        self._waiting: dict[Path, JournalUploader] = {}
        self._news_of: set[Path] = set()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._progressed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="nfbmr-uploads", daemon=True)
        self._thread.start()

    def post(self, folder: Path) -> None:
        """See to it that this journal arrives; one that was meant for no server is left alone."""
        destination = destination_of(folder)
        if destination is None:
            return
        with self._lock:
            self._waiting.setdefault(folder, JournalUploader(folder, destination))
            self._news_of.add(folder)
        self._news.set()

    @property
    def waiting(self) -> tuple[Path, ...]:
        """Folders of the journals that have not arrived."""
        with self._lock:
            return tuple(self._waiting)

    def close(self, patience: float = 10.0) -> tuple[Path, ...]:
        """Wait as long as there is progress.

        Args:
            patience: Seconds without progress after which waiting ends.

        Returns:
            The journals that have not arrived.
        """
        self._closing.set()
        self._news.set()
        begun = time.monotonic()
        while self._thread.is_alive() and time.monotonic() - max(begun, self._progressed) < patience:
            self._thread.join(0.05)
        return self.waiting

    def _run(self) -> None:
        failures = 0
        while True:
            self._news.wait()
            self._news.clear()
            failures = 0 if self._round() else failures + 1
            if not self.waiting:
                if self._closing.is_set():
                    return
                continue
            self._news.set()
            if self._closing.is_set():
                time.sleep(0.5)
            else:
                # What arrives for good meanwhile is not lost: it is in the list for the next round.
                pause = min(LONGEST_PAUSE, self._every * 2**failures) * random.uniform(0.5, 1.0)
                self._closing.wait(pause)

    def _round(self) -> bool:
        """Try each once; whether the server answered."""
        for folder in self.waiting:
            uploader = self._waiting[folder]
            with self._lock:
                self._news_of.discard(folder)
            try:
                uploader.ship()
            except ServerUnavailable as problem:
                logger.debug("MLflow does not answer (%s)", problem)
                return False
            except Exception as problem:
                # Another process is sending it, or it was deleted on the server: the others go on.
                logger.debug("%s is not sent yet (%s)", folder, problem)
                continue
            if UploadState.load(folder, uploader.destination).waiting(folder):
                continue  # its parent is not there yet
            with self._lock:
                if folder not in self._news_of:
                    del self._waiting[folder]
            self._progressed = time.monotonic()
        return True
