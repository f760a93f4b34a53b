"""Reading a run's record back from its journal, finished or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nfbmr.errors import TrackingError
from nfbmr.journal import Entry, Journal, entries
from nfbmr.tracking import Status


class Point(NamedTuple):
    """One value of a metric."""

    value: float
    step: int
    time: int


class Artifact(NamedTuple):
    """A file or folder of a run, and the folder of the artifacts that it is shown in."""

    path: Path
    folder: str


class DatasetRecord(NamedTuple):
    """Which images a run used."""

    name: str
    digest: str
    split: str
    source: str
    counts: dict[str, int]


@dataclass
class Record:
    """What a journal says about its run.

    Attributes:
        status: ``running`` until the last attempt was closed.
        started: When the first attempt began, in milliseconds since 1970.
        ended: When the last one ended; None while it is running.
        models: Name to folder.
    """

    run_id: str = ""
    run_name: str = ""
    parent_id: str | None = None
    status: Status | Literal["running"] = "running"
    started: int = 0
    ended: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, list[Point]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    datasets: list[DatasetRecord] = field(default_factory=list)
    models: dict[str, Path] = field(default_factory=dict)

    def add(self, entry: Entry, run: Path) -> None:
        """Take one entry in; `run` is the run's folder."""
        fields = entry.fields
        match entry.kind:
            case "start":
                self.started = self.started or entry.time
                self.run_id, self.run_name = fields["run_id"], fields["run_name"]
                self.parent_id = fields["parent_id"] or self.parent_id
                self.tags |= fields["tags"]
                self.status, self.ended = "running", None
            case "params":
                self.params = fields["values"] | self.params
            case "metrics":
                for name, value in fields["values"].items():
                    point = Point(float(value), fields["step"], entry.time)
                    self.metrics.setdefault(name, []).append(point)
            case "tags":
                self.tags |= fields["values"]
            case "artifact":
                artifact = Artifact(run / fields["path"], fields["folder"])
                if artifact not in self.artifacts:
                    self.artifacts.append(artifact)
            case "dataset":
                dataset = DatasetRecord(**fields)
                if dataset not in self.datasets:
                    self.datasets.append(dataset)
            case "model":
                self.models[fields["name"]] = run / fields["path"]
            case "finish":
                self.status, self.ended = fields["status"], entry.time


def read_record(folder: Path) -> Record:
    """Read a journal back, also one that is still being written or was cut short.

    Args:
        folder: Folder of the journal, ``RunPaths.journal``.

    Raises:
        TrackingError: There is no journal.
    """
    record = Record()
    for entry in entries(folder):
        record.add(entry, folder.parent)
    if not record.run_id:
        raise TrackingError("no record of a run", where=folder, fix="is this the tracking folder of a run?")
    return record


def close_abandoned(folder: Path) -> bool:
    """Close the record of a run whose process is gone: ``killed``, at the time of its last sign of life.

    Returns:
        Whether that was needed.
    """
    try:
        journal = Journal(folder, exclusive=True)
    except BlockingIOError:
        return False
    try:
        last = None
        for last in entries(folder):  # noqa: B007
            pass
        if last is None or last.kind == "finish":
            return False
        journal.append("finish", at=last.time, status="killed")
        return True
    finally:
        journal.close()
