"""Where a study is kept: Optuna's journal, written by one process alone.

The file is the one that :class:`optuna.storages.journal.JournalFileBackend` writes, and every program of
Optuna reads it. As only the holder of the sweep's lock writes, nothing is read twice, and what belongs
together (all that is chosen for a trial, all that is said at its end) goes to the disk in one piece.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nfbmr.errors import OutputError, TrackingError
from tune.search.history import WINDOW, History

log = logging.getLogger(__name__)

_NOTES = {0, 2, 3, 8, 9}
"""The journal's ``op_code`` of entries that decide nothing: asking for a study that is there, attributes of
a study or of a trial."""


class SweepJournal(BaseJournalBackend):
    """A journal's file with one writer.

    Notes of others, as a dashboard's, are taken in after our own entries of the moment. Whatever else they
    write (trials made or ended, parameters, values) is refused: in the file it stands before ours.

    Args:
        path: Path of the file, made where it is missing; its last line is whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = JournalFileSymlinkLock(str(path))
        self._fresh: deque[dict[str, Any]] = deque()
        self._unwritten: list[bytes] = []
        self._depth = 0
        path.touch()
        self._size = 0  # of the file, as far as it was read or written
        self._handed_out = 0

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The entries after the first so many: of the file at first, later what was added here."""
        if log_number_from != self._handed_out:
            raise ValueError(f"entry {log_number_from} of {self._path} was handed out already")
        if self._size == 0:
            yield from self._of_file(None)
        while self._fresh:
            self._handed_out += 1
            yield self._fresh.popleft()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries; they are on the disk when this returns, or at the end of :meth:`together`."""
        for entry in logs:
            line = json.dumps(entry, separators=(",", ":"))
            self._unwritten.append(line.encode() + b"\n")
            self._fresh.append(json.loads(line))  # as a file would give it back
        if not self._depth:
            self._write()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is added meanwhile goes to the disk in one piece, whatever happens meanwhile."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._write()

    def _of_file(self, end: int | None) -> Iterator[dict[str, Any]]:
        """Whole lines of the file from where it is known, up to byte `end`."""
        with self._path.open("rb") as file:
            file.seek(self._size)
            for line in file:
                if not line.endswith(b"\n") or (end is not None and self._size >= end):
                    return
                self._size += len(line)
                self._handed_out += 1
                yield json.loads(line)

    def _write(self) -> None:
        if not self._unwritten:
            return
        data = b"".join(self._unwritten)
        try:
            with contextlib.ExitStack() as stack:
                self._lock.acquire()
                stack.callback(self._lock.release)
                file = stack.enter_context(self._path.open("ab", buffering=0))
                if (end := file.tell()) != self._size:
                    self._take_in(end)
                try:
                    left = memoryview(data)
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self._path, self._size)  # no half line, to which the next would be glued
                    raise
        except OSError as error:
            raise OutputError(
                f"the study's journal cannot be written ({error.strerror})",
                where=self._path,
                fix="free some space, then go on: nfbmr sweep --resume",
            ) from error
        self._size += len(data)
        self._unwritten.clear()

    def _take_in(self, end: int) -> None:
        """What others have added: after what is new here, which the file has behind it."""
        handed_out = self._handed_out
        others = list(self._of_file(end))
        self._handed_out = handed_out
        if any(entry.get("op_code") not in _NOTES for entry in others):
            self._unwritten.clear()
            raise TrackingError(
                "another program has added or changed trials of the study while the sweep was going on",
                where=self._path,
                fix="end it, then go on: nfbmr sweep --resume",
            )
        self._fresh += others


class SweepStorage(JournalStorage):
    """A study's storage, with what is asked for at every trial at hand.

    Args:
        path: Path of the journal, whose last line is whole. The caller alone writes it.

    Attributes:
        history: Counts, and the window of trials that a sampler looks at; from :meth:`follow` on.
    """

    history: History

    def __init__(self, path: Path) -> None:
        self._journal = SweepJournal(path)
        self._window: list[FrozenTrial] | None = None
        self._followed: int | None = None
        super().__init__(self._journal)

    def follow(self, study_name: str, is_own: Callable[[FrozenTrial], bool]) -> None:
        """Keep the history of a study from now on.

        Args:
            study_name: Name of the study.
            is_own: Whether a trial counts as one of this sweep.
        """
        study = self.get_study_id_from_name(study_name)
        maximise = [way == StudyDirection.MAXIMIZE for way in self.get_study_directions(study)]
        self.history = History(maximise, is_own)
        for trial in super().get_all_trials(study, deepcopy=False):
            self.history.update(trial)
        self._followed = study

    def numbered(self, number: int) -> FrozenTrial:
        """A trial of the study that is followed, as it is now."""
        assert self._followed is not None
        return self.get_trial(self.get_trial_id_from_study_id_trial_number(self._followed, number))

    def good_points(self) -> list[dict[str, Any]]:
        """Parameters of the trials that TPE calls good, for a single objective."""
        return [self.numbered(number).params for number in self.history.good()]

    def together(self) -> contextlib.AbstractContextManager[None]:
        """What is written meanwhile goes to the disk in one piece."""
        return self._journal.together()

    @contextlib.contextmanager
    def narrowed(self) -> Iterator[None]:
        """Meanwhile the study seems to have no more trials than a sampler looks at."""
        self.look_at(WINDOW)
        try:
            yield
        finally:
            self._window = None

    def look_at(self, size: int) -> None:
        """Until the end of :meth:`narrowed` the study seems to have at most so many ended trials."""
        self._window = self.history.window(size)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """See :class:`optuna.storages.BaseStorage`; those of the window alone while it is narrowed."""
        if deepcopy or study_id != self._followed:
            return super().get_all_trials(study_id, deepcopy, states)
        if states == (TrialState.WAITING,):  # what Optuna looks for at every trial, among all of them
            return [self.numbered(number) for number in self.history.numbers("WAITING")]
        if self._window is None:
            return super().get_all_trials(study_id, deepcopy, states)
        going = [*self.history.numbers("WAITING"), *self.history.numbers("RUNNING")]
        trials = [*self._window, *map(self.numbered, going)]
        return sorted(
            (trial for trial in trials if states is None or trial.state in states),
            key=lambda trial: trial.number,
        )

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See :class:`optuna.storages.BaseStorage`."""
        trial_id = super().create_new_trial(study_id, template_trial)
        if study_id == self._followed:
            self.history.update(self.get_trial(trial_id))
        return trial_id

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See :class:`optuna.storages.BaseStorage`."""
        changed = super().set_trial_state_values(trial_id, state, values)
        if self._followed is not None:
            self.history.update(self.get_trial(trial_id))
        return changed
