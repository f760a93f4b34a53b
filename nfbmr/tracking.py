"""Recording a run: parameters, metrics, tags, files, the data set.

A :class:`Tracker` has seven verbs, and there are three of it: :class:`NoTracker` forgets;
:class:`FolderTracker` keeps a journal in the run's folder; ``mlflow_server.tracking.tracker.MLflowTracker``
keeps the same journal and has a thread that sends it on. The journal always comes first, so training never
waits for a server, and a killed process loses nothing.

Example:
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "tracking"
    >>> tracker = FolderTracker(folder, run_id="a", system_metrics_every=None)
    >>> tracker.params({"flow": {"blocks": 4}})
    >>> tracker.metrics({"flow/loss": 0.5}, step=1)
    >>> tracker.finish("finished")
    >>> from nfbmr.records import read_record
    >>> record = read_record(folder)
    >>> record.status, record.params, record.metrics["flow/loss"][0].value
    ('finished', {'flow.blocks': 4}, 0.5)
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from nfbmr.errors import OutputError, TrackingError
from nfbmr.journal import Journal
from nfbmr.monitoring import SystemMetrics
from nfbmr.nesting import flatten

Status = Literal["finished", "pruned", "failed", "killed"]
"""How a run ended, as trackers are told."""


@runtime_checkable
class Tracker(Protocol):
    """Where a run is recorded. No call waits for a network, and none fails because a server is down."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings, nested ones as ``flow.blocks``. The first value of a name stays."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers, ``flow/loss`` and the like, at a step: the epoch of a stage, or 0."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record labels to find runs by: method, split, test_peeked. The last value of a name stays."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file, or a folder under its own name, inside `folder` of the run's artifacts.

        It is sent later: a file inside the run's folder has to stay there, any other is copied at once.
        """

    def dataset(self, name: str, digest: str, split: str, source: str, counts: Mapping[str, int]) -> None:
        """Record which images the run used.

        Args:
            name: Name of the data set.
            digest: Digest of its contents and split, in hex.
            split: Name of the split, ``group`` for example.
            source: The folder or address it was read from.
            counts: Images by part, ``{"train": 200, "validation": 50, "test": 100}`` for example.
        """

    def model(self, folder: Path, name: str = "model") -> None:
        """Record the folder of the finished model under `name`."""

    def finish(self, status: Status = "finished") -> None:
        """Close the record. A run that was stopped to go on later is ``killed``; opening it again goes on.

        ``pruned`` is a sweep's trial that was ended early on purpose.
        """


class NoTracker:
    """Forgets everything."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Forget."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Forget."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Forget."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Forget."""

    def dataset(self, name: str, digest: str, split: str, source: str, counts: Mapping[str, int]) -> None:
        """Forget."""

    def model(self, folder: Path, name: str = "model") -> None:
        """Forget."""

    def finish(self, status: Status = "finished") -> None:
        """Forget."""


class FolderTracker:
    """A journal in the run's folder; :func:`nfbmr.records.read_record` reads it back.

    Opening the journal of an earlier attempt goes on with it: one run, however often it was tried.

    Args:
        folder: Folder of the journal, ``RunPaths.journal``. The folder above it is the run's.
        run_id: What the run is known by, everywhere and for ever.
        run_name: What people call it; `run_id` where it is not given.
        parent_id: `run_id` of the sweep or ablation that this run belongs to.
        tags: The first labels.
        system_metrics_every: Seconds between samples of processor, memory, disk and network; None for none.
        destination: Where the journal is to be sent; kept in it, for when this process is gone.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str,
        run_name: str | None = None,
        parent_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        system_metrics_every: float | None = 10.0,
        destination: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.run_id = run_id
        self._status: Status | None = None
        self._journal = Journal(folder)
        self._record(
            "start",
            run_id=run_id,
            run_name=run_name or run_id,
            parent_id=parent_id,
            tags=_labels(tags or {}),
            destination=destination,
        )
        self._system: SystemMetrics | None = None
        if system_metrics_every is not None:
            self._system = SystemMetrics(self.metrics, every=system_metrics_every)

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings; see :class:`Tracker`."""
        self._record("params", values=flatten(values))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers; see :class:`Tracker`."""
        numbers = {name: float(value) for name, value in values.items()}
        self._record("metrics", step=0 if step is None else int(step), values=numbers)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record labels; see :class:`Tracker`."""
        self._record("tags", values=_labels(values))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file or a folder; see :class:`Tracker`.

        Raises:
            TrackingError: There is nothing at `path`.
        """
        self._record("artifact", path=self._kept(path), folder=_inside(folder))

    def dataset(self, name: str, digest: str, split: str, source: str, counts: Mapping[str, int]) -> None:
        """Record which images the run used; see :class:`Tracker`."""
        self._record(
            "dataset", name=name, digest=digest, split=split, source=str(source), counts=dict(counts)
        )

    def model(self, folder: Path, name: str = "model") -> None:
        """Record the model's folder; see :class:`Tracker`.

        Raises:
            TrackingError: There is nothing at `folder`.
        """
        self._record("model", path=self._kept(folder), name=_inside(name))

    def finish(self, status: Status = "finished") -> None:
        """Close the journal; a second call does nothing."""
        if self._status is not None:
            return
        if self._system is not None:
            self._system.stop()
        self._record("finish", status=status)
        self._status = status
        with contextlib.suppress(OSError):
            self._journal.sync()
        self._journal.close()

    def _record(self, kind: str, **fields: Any) -> None:
        if self._status is not None:
            raise TrackingError(
                f"the record of run {self.run_id} is closed ({self._status}): no {kind} can be added",
                where=self.folder,
                fix="log before finish(), or open the run again with the same folder and run_id",
            )
        self._journal.append(kind, **fields)

    def _kept(self, path: Path) -> str:
        """The path relative to the run's folder, after copying whatever lies outside it.

        Relative, so that a run's folder can be moved and still be sent.
        """
        if not path.exists():
            raise TrackingError(
                "nothing there to record", where=path, fix="write the file before recording it"
            )
        run = self.folder.resolve().parent
        whole = path.resolve()
        if run.is_relative_to(whole):
            raise TrackingError(
                "a folder cannot be recorded in a run that lies inside it",
                where=path,
                fix="name the files, or a folder beside or below the run's own",
            )
        if not whole.is_relative_to(run):
            whole = self._copied(path, run)
        return whole.relative_to(run).as_posix()

    def _copied(self, path: Path, run: Path) -> Path:
        try:
            files = run / self.folder.name / "files"
            files.mkdir(exist_ok=True)
            copy = Path(tempfile.mkdtemp(dir=files)) / path.name
            if path.is_dir():
                shutil.copytree(path, copy)
            else:
                shutil.copyfile(path, copy)
        except OSError as error:
            raise OutputError(
                f"cannot keep a copy for the record ({error.strerror or type(error).__name__})",
                where=path,
                fix="free some space, then run the same command again: it goes on",
            ) from error
        return copy


def _labels(values: Mapping[str, Any]) -> dict[str, str]:
    """Tags are text; yes and no are spelled as in JSON and YAML."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()
    }


def _inside(folder: str) -> str:
    """A folder of the artifacts, which must not point out of them."""
    parts = Path(folder).parts
    if ".." in parts or folder.startswith("/"):
        raise TrackingError("a folder outside the run's artifacts", where=folder, fix="name one inside them")
    return "/".join(parts)
