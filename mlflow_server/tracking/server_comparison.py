"""What a tracking server has of a run, compared with the run's journal: number by number, file by file."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_server.client import connect
from mlflow_server.destination import Destination
from mlflow_server.naming import valid_name
from mlflow_server.packaging.logged_model import ModelUploader, is_model
from mlflow_server.tracking.histories import Histories
from mlflow_server.tracking.journal_uploader import artifact_folder
from mlflow_server.tracking.remote_run import (
    PARENT_ID,
    PARENT_LINK,
    RUN_ID,
    STATE,
    STATUS,
    RetryLater,
    ServerUnavailable,
    files_of,
    translated,
)
from nfbmr.records import Point, Record

if TYPE_CHECKING:
    from mlflow.entities import Run

PAGE = 200
"""Runs that are read, and held, at once."""

AT_ONCE = 5
"""Histories of metrics from which on those of a page are read together."""

MORE = 5
"""How many names of missing things a sentence lists."""


@dataclass(frozen=True)
class Gap:
    """Something that a server lacks, or has otherwise.

    Attributes:
        kind: ``child`` (the run itself), ``duplicate``, ``status``, ``parent``, ``parameters``, ``metrics``,
            ``artifacts``, ``model``, ``data set`` or ``deleted file``.
        what: For people.
        count: How many things of the kind are missing.
    """

    kind: str
    what: str
    count: int = 1


MISSING = Gap("child", "is not on the server")
"""Of a run that a server does not know at all."""


def duplicate(times: int) -> Gap:
    """Of a run that a server has several times."""
    return Gap("duplicate", f"is there {times} times", times - 1)


class Server:
    """Reads runs of one experiment.

    Args:
        destination: Tracking server that is asked.

    Raises:
        ServerUnavailable: The server does not answer.
    """

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self._histories: dict[tuple[str, str], set[tuple[int, int, float]]] = {}
        self._together = Histories(destination)
        try:
            with translated(lambda: None):
                self._client = connect(destination)
                self._client.get_experiment_by_name(destination.experiment)
        except RetryLater as problem:
            raise ServerUnavailable(str(problem)) from problem

    def named(self, run_id: str) -> list[Run]:
        """The runs of a name, oldest first; more than one are duplicates.

        Raises:
            RetryLater: The server cannot be used now.
        """
        return [run for page in self._search(RUN_ID, run_id) for run in page]

    def children(self, parent_id: str) -> Iterator[list[Run]]:
        """Whatever names a run as its parent, oldest first, a page at a time.

        Raises:
            RetryLater: The server cannot be used now.
        """
        return self._search(PARENT_ID, parent_id)

    def read_histories(self, pairs: Iterable[tuple[Run, Record]]) -> None:
        """Read together what :meth:`gaps` of these runs is going to ask for; what was read before is dropped.

        Args:
            pairs: Runs, each with its record.

        Raises:
            RetryLater: The server cannot be used now.
        """
        self._histories = {}
        wanted: dict[str, list[str]] = defaultdict(list)
        for run, record in pairs:
            for name, points in record.metrics.items():
                there = valid_name(name)
                if self._tells(run, there, {_point(point) for point in points}) is None:
                    wanted[there].append(run.info.run_id)
        if sum(map(len, wanted.values())) < AT_ONCE:
            return
        with translated(lambda: None):
            for name, ids in wanted.items():
                for run_id, history in self._together.of(name, ids).items():
                    self._histories[run_id, name] = set(map(_point, history))

    def delete(self, run: Run) -> None:
        """Put a run among the deleted ones, from which MLflow can restore it.

        Raises:
            RetryLater: The server cannot be used now.
        """
        with translated(lambda: None):
            self._client.delete_run(run.info.run_id)

    def gaps(
        self, runs: Sequence[Run], record: Record, status: str, parents: Sequence[Run] = ()
    ) -> list[Gap]:
        """What the server lacks of a run.

        Args:
            runs: That the server has of its name, oldest first: that one counts, which a retry goes on with
                too; the others are duplicates.
            record: Record of the run, from its journal.
            status: What the run's status should be: ``running``, or as in a journal.
            parents: That the server has of the name of its sweep or ablation, oldest first.

        Raises:
            RetryLater: The server cannot be used now.
        """
        if not runs:
            return [MISSING]
        run = runs[0]
        with translated(lambda: None):
            return [
                *([duplicate(len(runs))] if len(runs) > 1 else ()),
                *_differences(run, record, status, parents),
                *self._metrics(run, record),
                *self._artifacts(run, record),
                *self._models(run, record),
            ]

    def _search(self, tag: str, value: str) -> Iterator[list[Run]]:
        with translated(lambda: None):
            experiment = self._client.get_experiment_by_name(self.destination.experiment)
        token, quoted = None, value.replace("\\", "\\\\").replace("'", "\\'")
        while experiment is not None:
            with translated(lambda: None):
                page = self._client.search_runs(
                    [experiment.experiment_id],
                    f"tags.`{tag}` = '{quoted}'",
                    max_results=PAGE,
                    order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
                    page_token=token,
                )
            yield list(page)
            token = page.token
            if not token:
                return

    def _metrics(self, run: Run, record: Record) -> Iterator[Gap]:
        missing: dict[str, int] = {}
        for name, points in record.metrics.items():
            wanted = {_point(point) for point in points}
            there = self._points(run, valid_name(name), wanted)
            if lacking := len(wanted - there):
                missing[name] = lacking
        if missing:
            count = sum(missing.values())
            yield Gap("metrics", f"{count} points are missing: {_listed(missing)}", count)

    def _points(
        self, run: Run, name: str, wanted: set[tuple[int, int, float]]
    ) -> set[tuple[int, int, float]]:
        latest = self._tells(run, name, wanted)
        if latest is not None:
            return latest
        if (known := self._histories.get((run.info.run_id, name))) is not None:
            return known
        history = self._client.get_metric_history(run.info.run_id, name)
        return {_point(Point(point.value, point.step, point.timestamp)) for point in history}

    def _tells(
        self, run: Run, name: str, wanted: set[tuple[int, int, float]]
    ) -> set[tuple[int, int, float]] | None:
        """The points that a run itself tells of; None where its history has to be asked for."""
        latest = run.data.metrics.get(name)
        if latest is None:
            return set()
        if len(wanted) == 1:  # the run itself tells the last value of each metric: most have no other
            ((step, time, value),) = wanted
            if _number(latest) == value:
                return {(step, time, value)}
        return None

    def _artifacts(self, run: Run, record: Record) -> Iterator[Gap]:
        wanted: dict[str, Path] = {}
        gone = []
        sources = [(a.path, artifact_folder(a.path, a.folder)) for a in record.artifacts]
        models = [
            (path, name) for name, path in record.models.items() if not is_model(path.parent, path.name)
        ]
        for path, folder in [*sources, *models]:
            if not path.exists():
                gone.append(path)
                continue
            for file, target in files_of(path, folder):
                wanted["/".join(part for part in (target, file.name) if part)] = file
        there = self._files(run) if wanted or gone else {}
        missing = [name for name, file in wanted.items() if there.get(name) != file.stat().st_size]
        if missing:
            yield Gap("artifacts", f"{len(missing)} files are missing: {_listed(missing)}", len(missing))
        lost = [path for path in gone if not any(name.endswith(path.name) for name in there)]
        if lost:
            names = _listed(path.name for path in lost)
            yield Gap("deleted file", f"{len(lost)} artifacts are neither here nor there: {names}", len(lost))

    def _models(self, run: Run, record: Record) -> Iterator[Gap]:
        uploader = ModelUploader(self._client, run.info.experiment_id, run.info.run_id)
        for name, path in record.models.items():
            if is_model(path.parent, path.name) and not uploader.has(path.parent):
                yield Gap("model", f"the model {name!r} is missing")

    def _files(self, run: Run) -> dict[str, int]:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        # The client would ask for the run again, all of it, before each list.
        artifacts = get_artifact_repository(run.info.artifact_uri, tracking_uri=self.destination.uri)
        files: dict[str, int] = {}
        folders = [""]
        while folders:
            for item in artifacts.list_artifacts(folders.pop() or None):
                if item.is_dir:
                    folders.append(item.path)
                else:
                    files[item.path] = item.file_size or 0
        return files


def _differences(run: Run, record: Record, status: str, parents: Sequence[Run]) -> Iterator[Gap]:
    """What the run itself tells: its status, the run that it hangs under, parameters and data sets."""
    wanted = "RUNNING" if status == "running" else STATUS[status]
    state = run.data.tags.get(STATE)
    if run.info.status != wanted:
        yield Gap("status", f"is {run.info.status.lower()} on the server, and {status} here")
    elif status not in ("running", state):
        yield Gap("status", f"its tag {STATE} is {state or 'missing'}, and should be {status}")

    for parent in parents[:1]:
        hangs_there = run.data.tags.get(PARENT_LINK) == parent.info.run_id
        if record.parent_id == parent.data.tags[RUN_ID] and not hangs_there:
            yield Gap("parent", f"does not hang under {record.parent_id}")
    missing = [name for name in record.params if valid_name(name) not in run.data.params]
    if missing:
        yield Gap("parameters", f"{len(missing)} parameters are missing: {_listed(missing)}", len(missing))

    there = Counter(item.dataset.digest for item in run.inputs.dataset_inputs) if run.inputs else Counter()
    missing = [data.name for data in record.datasets if data.digest[:32] not in there]
    if missing:
        yield Gap("data set", f"the data set is missing: {_listed(missing)}", len(missing))


def _point(point: Point) -> tuple[int, int, float]:
    return point.step, point.time, _number(point.value)


def _number(value: float) -> float:
    """A value that can be compared: NaN and the infinities as MLflow's databases keep them."""
    if math.isnan(value):
        return 0.0
    return max(-1.7976931348623157e308, min(1.7976931348623157e308, value))


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - MORE} more" if len(every) > MORE else ""
    return ", ".join(every[:MORE]) + more
