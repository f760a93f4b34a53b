"""Whether the three records of a sweep agree: its folder, Optuna's journal, MLflow; and mending MLflow's.

The folder is what was done, Optuna's journal is what the sampler believes, MLflow is what people look at. Ray
keeps nothing here that outlives a driver. MLflow is mended from the journals in the run folders, which hold
all that was ever sent or should have been; Optuna's journal is never written to.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_server.destination import Destination, without_password
from mlflow_server.tracking.journal_uploader import JournalUploader
from mlflow_server.tracking.remote_run import RUN_ID, RetryLater
from mlflow_server.tracking.server_comparison import MISSING, Gap, Server, duplicate
from mlflow_server.tracking.sync import destination_of
from nfbmr import journal
from nfbmr.errors import TrackingError
from nfbmr.evaluation.summary import RunSummary
from nfbmr.locks import is_locked
from nfbmr.paths import RunPaths
from nfbmr.records import Record, close_abandoned, read_record
from tune.execution.trial_spec import State, TrialResult
from tune.records.children import STATUS, Child, child_name, child_tags, children_of, close_record, record_of
from tune.records.paths import AblationPaths, PlanPaths, SweepPaths, find
from tune.records.verification import Difference, Verification

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["Difference", "Verification", "find_plan", "verify"]

log = logging.getLogger(__name__)

ENDED: Mapping[str, State] = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
"""Optuna's words for how a trial ended, in ours."""

_LEFT_OPEN = "its process is gone, and its record was left open"
_MLFLOW = "folder and MLflow"
EVERY = 5.0
"""Seconds between two words about how far it has come."""


def find_plan(name_or_path: str, output: Path) -> PlanPaths:
    """The folder of a sweep or an ablation; see :func:`tune.records.paths.find`."""
    kinds: tuple[type[PlanPaths], ...] = (SweepPaths, AblationPaths)
    paths = find(name_or_path, output.resolve(), *kinds, what="sweep or ablation")
    return type(paths)(paths.root.resolve())


def verify(paths: PlanPaths, *, uri: str | None = None, mend: bool = False) -> Verification:
    """Compare the records of a sweep or an ablation, and mend MLflow's where that is asked for.

    Args:
        paths: Folder of the sweep or ablation.
        uri: The tracking server; the one the runs were recorded for, where it is not given.
        mend: Whether to change anything at all.
    """
    result = Verification(paths.root)
    try:
        runs = _Runs.read(paths)
    except TrackingError as error:
        result.differences.append(
            Difference(paths.name, "folder and Optuna", "study", str(error), mended=False)
        )
        runs = _Runs.read(paths, with_study=False)
    _close_what_is_over(runs, result, mend)
    folders = runs.journals()
    if not folders:
        return result
    states = runs.states(folders)
    result.states = Counter(state for key, state in states.items() if key != paths.name)
    # Whoever writes a journal also sends it.
    maybe = [key for key in folders if runs.driven or states[key] == "running"]
    written = {key for key in maybe if not journal.abandoned(folders[key])}
    idle = {key: folder for key, folder in folders.items() if key not in written}
    result.runs, result.writing = len(idle), len(folders) - len(idle)
    destination = destination_of(next(iter(folders.values())), uri)
    if destination is None:
        return result
    result.uri = without_password(destination.uri)
    try:
        _compare_with_server(runs, idle, destination, result, mend)
    except RetryLater as problem:
        result.problem = str(problem)
    return result


class _Head(NamedTuple):
    """What a journal says of its run, without what the run was and found."""

    run_id: str
    status: str


class _Trial(NamedTuple):
    """What Optuna believes of a trial; its own objects are many times as large, and there may be many."""

    state: str
    values: tuple[float, ...]
    settings: Mapping[str, Any]
    error: str | None


@dataclass
class _Runs:
    """What the folder and Optuna say.

    Attributes:
        children: By key.
        trials: Optuna's, by key; empty for an ablation.
        driven: Whether a process drives it right now.
    """

    paths: PlanPaths
    children: dict[str, Child]
    trials: dict[str, _Trial]
    driven: bool
    _heads: dict[str, _Head] = field(default_factory=dict)

    @classmethod
    def read(cls, paths: PlanPaths, *, with_study: bool = True) -> _Runs:
        children = {child.key: child for child in children_of(paths)}
        return cls(paths, children, _trials(paths) if with_study else {}, is_locked(paths.lock))

    def journals(self) -> dict[str, Path]:
        """Of the parent, by the plan's name, and of its children."""
        parent = {self.paths.name: self.paths.journal} if (self.paths.journal / journal.FILE).exists() else {}
        return parent | {c.key: c.paths.journal for c in self.children.values() if c.journal is not None}

    def head(self, key: str, folder: Path) -> _Head:
        """What a journal says of its run, read once; numbers are not kept, as there may be many runs."""
        if key not in self._heads:
            record = record_of(folder)
            self._heads[key] = _Head(record.run_id, record.status)
        return self._heads[key]

    def changed(self, key: str) -> None:
        """A journal has to be read again."""
        self._heads.pop(key, None)

    def states(self, folders: Mapping[str, Path]) -> dict[str, str]:
        """How each run ended, or will have when what is over is closed."""
        return {key: self.state(key, self.head(key, folder).status) for key, folder in folders.items()}

    def state(self, key: str, recorded: str) -> str:
        """How a run ended: Optuna's word for it, else its journal's."""
        trial = self.trials.get(key)
        if trial is not None and trial.state in ENDED:
            return STATUS[ENDED[trial.state]]
        return recorded


def _trials(paths: PlanPaths) -> dict[str, _Trial]:
    """Optuna's trials by key, without those that were only imported from an earlier sweep."""
    if not isinstance(paths, SweepPaths) or not paths.study.exists():
        return {}
    from tune.search.imported_trials import is_own
    from tune.search.plots import load_study
    from tune.search.trial_facts import ERROR, SETTINGS

    return {
        f"{trial.number:04d}": _Trial(
            trial.state.name,
            tuple(trial.values or ()),
            trial.user_attrs.get(SETTINGS, {}),
            trial.user_attrs.get(ERROR),
        )
        for trial in load_study(paths.study).get_trials(deepcopy=False)
        if is_own(trial) and trial.state.name != "WAITING"
    }


# The folder and Optuna


def _close_what_is_over(runs: _Runs, result: Verification, mend: bool) -> None:
    """Say where folder and Optuna differ; close records of trials that are over, as Optuna or nobody says."""
    if runs.driven:
        log.info("%s is being worked on: trials that are running are left alone", runs.paths.root)
    parent = runs.paths.journal
    name = runs.paths.name
    if (parent / journal.FILE).exists() and runs.head(name, parent).status == "running" and not runs.driven:
        left = Difference(name, "folder", "journal", _LEFT_OPEN)
        result.differences.append(replace(left, mended=close_abandoned(parent)) if mend else left)
        runs.changed(name)
    for key in sorted({*runs.children, *runs.trials}):
        child, trial = runs.children.get(key), runs.trials.get(key)
        folder = None if child is None else child.journal
        head = None if folder is None else runs.head(key, folder)
        over = trial is not None and trial.state in ENDED
        for difference in list(_disagreements(runs, key, head, trial)):
            mended = None if not mend else False
            if mend and difference.kind == "journal" and over:
                mended = _close(runs, trial, key)
            elif mend and difference.kind == "journal" and folder is not None:
                mended = close_abandoned(folder)
            runs.changed(key)
            result.differences.append(replace(difference, mended=mended))


def _disagreements(runs: _Runs, key: str, head: _Head | None, trial: _Trial | None) -> Iterator[Difference]:
    """Those of kind ``journal`` can be mended here; the others by people, or by going on with the sweep."""
    between = "folder and Optuna"
    state = None if trial is None else trial.state
    if trial is None and runs.trials:
        yield Difference(key, between, "folder", "has a folder, and Optuna knows no such trial")
    if head is None:
        if state in ENDED:
            ended = STATUS[ENDED[str(state)]]
            yield Difference(
                key, between, "journal", f"{ended} for Optuna, and its folder has no record of it"
            )
        return
    result = runs.children[key].paths.fitted
    fitted = RunSummary.read(result) if result.exists() else None
    if state in ENDED:
        ended = STATUS[ENDED[str(state)]]
        # The best trial is gone on with after Optuna was told of it.
        going_on = runs.driven and head.status == "running" and _busy(runs, key)
        if head.status != ended and not going_on:
            yield Difference(key, between, "journal", f"{ended} for Optuna, and {head.status} in its record")
        # Optuna's value is one of the numbers of the result: other code, or another result, if it is not.
        known = None if fitted is None else list(fitted.numbers().values())
        for value in () if trial is None or known is None else trial.values:
            if not any(abs(value - number) <= 1e-9 * max(1.0, abs(value)) for number in known or ()):
                what = f"Optuna was told {value:.6g}, which is not among the numbers of its result"
                yield Difference(key, between, "value", what)
    elif state == "RUNNING" and fitted is not None and not runs.driven:
        what = "has its result, and Optuna was not told: nfbmr sweep --resume does"
        yield Difference(key, between, "state", what)
    if head.status == "running" and state not in ENDED and not runs.driven and not _busy(runs, key):
        yield Difference(key, "folder", "journal", _LEFT_OPEN)


def _busy(runs: _Runs, key: str) -> bool:
    """Whether a process writes the record of a child."""
    return not journal.abandoned(runs.children[key].paths.journal)


def _close(runs: _Runs, trial: _Trial | None, key: str) -> bool:
    """Give a record the end that Optuna was told."""
    if trial is None:
        return False
    settings = dict(trial.settings)
    result = TrialResult(key, ENDED[trial.state], error=trial.error)
    destination = None
    if (runs.paths.journal / journal.FILE).exists():
        of_parent = destination_of(runs.paths.journal)
        destination = None if of_parent is None else of_parent.as_fields()
    opening = {
        "run_id": f"{runs.paths.name}-{key}",
        "run_name": child_name(key, settings),
        "parent_id": runs.paths.name,
        "tags": child_tags(runs.paths.name, key, settings),
        "destination": destination,
    }
    folder = RunPaths(runs.paths.root / "trials" / key)
    closed = close_record(folder.journal, result, opening)
    runs.children.setdefault(key, Child(key, folder))
    return closed


# The folder and MLflow


def _compare_with_server(
    runs: _Runs, folders: Mapping[str, Path], destination: Destination, result: Verification, mend: bool
) -> None:
    server = Server(destination)
    incomplete, strangers = _scan(runs, folders, server)
    for run_id in strangers:
        what = f"{run_id} is on the server, and its folder is not here"
        mended = False if mend else None
        result.differences.append(Difference(run_id, _MLFLOW, "folder", what, mended=mended))
    left = incomplete
    if mend and incomplete:
        left = _mended(runs, folders, destination, server, incomplete)
    for key, lacking in incomplete.items():
        still = {gap.kind for gap in left.get(key, ())}
        for gap in lacking:
            mended = gap.kind not in still if mend else None
            result.differences.append(Difference(key, _MLFLOW, gap.kind, gap.what, gap.count, mended))


def _scan(runs: _Runs, folders: Mapping[str, Path], server: Server) -> tuple[dict[str, list[Gap]], list[str]]:
    """Compare page by page, so that what is held at once does not grow with the number of runs.

    Returns:
        What the server lacks, by key, and the names of runs that are on the server alone.
    """
    name = runs.paths.name
    keys: defaultdict[str, list[str]] = defaultdict(list)  # a folder may have been copied
    for key, folder in folders.items():
        keys[runs.head(key, folder).run_id].append(key)
    known = {runs.head(key, folder).run_id for key, folder in runs.journals().items()}
    parents = server.named(name)
    gaps: dict[str, list[Gap]] = {}
    met: Counter[str] = Counter()
    reported = time.monotonic()
    for page in chain([parents], server.children(name)):
        on_page: list[str] = []
        pairs: list[tuple[Run, Record]] = []
        for run in page:
            run_id = run.data.tags[RUN_ID]
            met[run_id] += 1
            if met[run_id] == 1 and run_id in keys:  # the oldest counts; the others are its duplicates
                on_page += keys[run_id]
                pairs += [(run, read_record(folders[key])) for key in keys[run_id]]
        server.read_histories(pairs)
        for key, (run, record) in zip(on_page, pairs, strict=True):
            gaps[key] = server.gaps([run], record, runs.state(key, record.status), parents)
        if time.monotonic() - reported > EVERY:
            reported = time.monotonic()
            log.info("%d of %d runs compared with MLflow", len(gaps), len(folders))
    for run_id, of_run in keys.items():
        for key in of_run:
            if run_id not in met:
                gaps[key] = [MISSING]
            elif met[run_id] > 1:
                gaps[key] = [duplicate(met[run_id]), *gaps[key]]
    in_order = {key: gaps[key] for key in folders if gaps[key]}
    return in_order, sorted(met.keys() - known)


def _mended(
    runs: _Runs,
    folders: Mapping[str, Path],
    destination: Destination,
    server: Server,
    incomplete: Mapping[str, list[Gap]],
) -> dict[str, list[Gap]]:
    """Send what is missing; what is missing still."""
    ids = {key: runs.head(key, folders[key]).run_id for key in incomplete}
    for run_id in ids.values():
        # The younger ones go first: a journal that was being sent to one of them goes on with the oldest.
        for run in server.named(run_id)[1:]:
            server.delete(run)
    for key in incomplete:
        try:
            JournalUploader(folders[key], destination, again=True).ship()
        except RetryLater as problem:
            log.warning("%s cannot be sent now: %s", key, problem)
    parents = server.named(runs.paths.name)
    server.read_histories(())
    left = {}
    for key, run_id in ids.items():
        record = read_record(folders[key])
        left[key] = server.gaps(server.named(run_id), record, runs.state(key, record.status), parents)
    return left
