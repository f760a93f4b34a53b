"""One run on a tracking server: the only module of the tracker that imports MLflow.

Everything goes through an ``MlflowClient``: no active run, no global tracking address, safe beside any
other use of MLflow in the process. Every call may be made twice.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_server.client import HOPELESS, connect
from mlflow_server.destination import Destination
from mlflow_server.naming import PARAM_LENGTH, TAG_LENGTH, chunks, valid_name, value_text
from mlflow_server.tracking.statistics import refresh_statistics
from mlflow_server.tracking.views import view_tags
from nfbmr.errors import NfbmrError, OutputError
from nfbmr.journal import Entry
from nfbmr.records import Point

if TYPE_CHECKING:
    from mlflow.entities import Run

RUN_ID = "nfbmr.run_id"
"""The tag by which a run is found again."""
PARENT_ID = "nfbmr.parent_id"
"""The tag that names the parent's run by our own name."""
REVISION = "nfbmr.revision"
"""The tag with the commit that a run was made from."""
DESCRIPTION = "nfbmr.description"
"""The tag with a run's description, which becomes MLflow's note."""
PARENT_LINK = "mlflow.parentRunId"
"""MLflow's own tag of a run's parent."""
STATE = "nfbmr.state"
"""The tag that says how a run ended, where MLflow has no word for it."""
# MLflow knows no pruned runs: they are finished there, and the tag nfbmr.state tells them apart.
STATUS = {"finished": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
"""MLflow's word for the end of a run."""

# Says that this is model training, to those of MLflow's pages that ask; those of 3.17 go by the address alone
# (mlflow_server.destination.page).
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""What our experiments say of themselves to MLflow's pages."""

MARK = "nfbmr.views"
"""The tag of an experiment that has our views."""
VIEWS = {**view_tags(), MARK: "1"}  # whoever removes one is not given it again
"""Tags of an experiment that make our views of it, and say that it has them."""


class RetryLater(Exception):
    """The server cannot be used now; the journal keeps what there is to send."""


class ServerUnavailable(RetryLater):
    """The server itself does not answer, or has no place for any run."""


class DeletedOnServer(RetryLater):
    """The run, or its experiment, was deleted: nothing of it can be sent until somebody decides on it."""


class PermanentError(Exception):
    """The server, or the disk, will never take this entry."""


@dataclass(frozen=True)
class Opening:
    """How a run introduces itself, from the first entry of its journal."""

    run_id: str
    run_name: str
    parent_id: str | None
    started: int


class RemoteRun:
    """A run on a tracking server, found by its tag ``nfbmr.run_id`` or made.

    Args:
        destination: Tracking server and experiment.
        opening: Names of the run, and when it began.
        known_as: MLflow's name for it, where an earlier call found out.
        on_progress: Called whenever the server has answered.

    Raises:
        ServerUnavailable: The server does not answer.
        DeletedOnServer: It, or its experiment, was deleted.
        RetryLater: This run cannot be sent now.
    """

    def __init__(
        self,
        destination: Destination,
        opening: Opening,
        *,
        known_as: str = "",
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_progress = on_progress
        self._database = destination.database
        try:
            with translated(on_progress):
                self._client = connect(destination)
                on_progress()
                self.experiment_id = self._experiment(destination)
        except DeletedOnServer:
            raise  # the server is well: other runs can be sent to it
        except RetryLater as problem:
            raise ServerUnavailable(str(problem)) from problem
        with translated(on_progress):
            run = self._known(known_as) or self._find_run(opening.run_id) or self._created(opening)
        self.mlflow_run_id = run.info.run_id
        self._params = dict(run.data.params)
        self._status = run.info.status

    # Finding it

    def _experiment(self, destination: Destination) -> str:
        from mlflow.exceptions import MlflowException

        name = destination.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                tags = EXPERIMENT_TAGS | VIEWS
                return str(self._client.create_experiment(name, destination.artifact_location, tags=tags))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                # Another process was quicker.
                experiment = self._client.get_experiment_by_name(name)
        if experiment is None or experiment.lifecycle_stage == "deleted":
            number = getattr(experiment, "experiment_id", "ID")
            raise DeletedOnServer(
                f"the experiment {name!r} was deleted on the server: restore it (mlflow experiments "
                f"restore -x {number}), or name another for new runs (tracking.experiment)"
            )
        if MARK not in experiment.tags:
            with suppress(MlflowException):  # who may not do that can still record
                for key, value in VIEWS.items():
                    self._client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)

    def _known(self, mlflow_run_id: str) -> Run | None:
        from mlflow.exceptions import MlflowException

        if not mlflow_run_id:
            return None
        try:
            run = self._client.get_run(mlflow_run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        self._check_not_deleted(run)
        return run

    def _check_not_deleted(self, run: Run) -> None:
        if run.info.lifecycle_stage == "deleted":
            raise DeletedOnServer(
                f"the run {run.info.run_id} is deleted on the server: restore it, or send it again (--again)"
            )

    def _find_run(self, run_id: str) -> Run | None:
        text = run_id.replace("\\", "\\\\").replace("'", "\\'")
        runs = self._client.search_runs([self.experiment_id], f"tags.`{RUN_ID}` = '{text}'", max_results=100)
        return min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)

    def _created(self, opening: Opening) -> Run:
        user = str(os.getuid())
        with suppress(Exception):  # a user without a name
            user = getpass.getuser()
        tags = {
            RUN_ID: opening.run_id,
            "mlflow.user": user,
            "mlflow.source.name": "nfbmr",
            "mlflow.source.type": "LOCAL",
        }
        if opening.parent_id:
            tags[PARENT_ID] = opening.parent_id
        return self._client.create_run(
            self.experiment_id, start_time=opening.started, tags=tags, run_name=opening.run_name
        )

    def link_parent(self, parent_id: str) -> bool:
        """Hang the run under its parent.

        Returns:
            Whether the server knows the parent yet.
        """
        with translated(self._on_progress):
            parent = self._find_run(parent_id)
            if parent is None:
                return False
            self._client.set_tag(self.mlflow_run_id, PARENT_LINK, parent.info.run_id)
            return True

    # Sending to it

    def log(self, entries: Sequence[Entry]) -> None:
        """Send parameters, metrics and tags, in as few requests as the server's limits allow.

        Raises:
            PermanentError: The server will never take one of them.
            RetryLater: The server cannot be used now.
        """
        from mlflow.entities import Metric, Param, RunTag

        metrics: list[tuple[str, Any]] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for entry in entries:
            values: Mapping[str, Any] = entry.fields["values"]
            if entry.kind == "metrics":
                point = (entry.time, entry.fields["step"])
                metrics += [(valid_name(name), (float(value), *point)) for name, value in values.items()]
            elif entry.kind == "params":
                self._sort_params(values, params, tags)
            else:
                tags |= _tags(values)
        run, client = self.mlflow_run_id, self._client
        with self._sending():
            for chunk in chunks(params.items(), 100):
                client.log_batch(run, params=[Param(*item) for item in chunk], synchronous=True)
                self._params |= chunk
                self._on_progress()
            for chunk in chunks(metrics, 1000):
                client.log_batch(run, metrics=[Metric(n, *value) for n, value in chunk], synchronous=True)
                self._on_progress()
            for chunk in chunks(tags.items(), 100):
                client.log_batch(run, tags=[RunTag(*item) for item in chunk], synchronous=True)
                self._on_progress()

    def _sort_params(self, values: Mapping[str, Any], params: dict[str, str], tags: dict[str, str]) -> None:
        """A parameter is set once on MLflow; what a later attempt changed is kept as a tag."""
        for key, value in values.items():
            name, text = valid_name(key), value_text(value, PARAM_LENGTH)
            first = self._params.get(name, params.get(name))
            if first is None:
                params[name] = text
            elif first != text:
                tags[valid_name(f"changed.{key}")] = text

    def artifact(self, path: Path, folder: str) -> None:
        """Send a file, or the contents of a folder, into a folder of the run's artifacts.

        Raises:
            PermanentError: There is nothing at `path` any more.
            RetryLater: The server cannot be used now.
        """
        if not path.exists():
            raise PermanentError(f"{path} is gone")
        for file, target in files_of(path, folder):
            with self._sending():
                self._client.log_artifact(self.mlflow_run_id, str(file), target or None)
            self._on_progress()

    def model(self, run: Path, name: str, numbers: Mapping[str, Point]) -> None:
        """Send the model of a run's folder, as what MLflow calls a logged model.

        Args:
            run: The run's folder.
            name: Name of the model.
            numbers: The run's results, by name.

        Raises:
            PermanentError: The folder is damaged.
            RetryLater: The server cannot be used now.
        """
        from mlflow_server.packaging.logged_model import ModelUploader

        uploader = ModelUploader(self._client, self.experiment_id, self.mlflow_run_id, self._on_progress)
        with self._sending():
            try:
                uploader.put(run, name, numbers)
            except NfbmrError as error:
                if isinstance(error, OutputError) and isinstance(error.__cause__, OSError):
                    raise  # a disk that is full now need not be so later
                raise PermanentError(str(error)) from error

    def dataset(self, fields: Mapping[str, Any]) -> None:
        """Send which images the run used.

        MLflow keeps 36 characters of a digest; the whole one, and the counts, are in the profile.

        Raises:
            PermanentError: The server will never take it.
            RetryLater: The server cannot be used now.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = {"digest": fields["digest"], "split": fields["split"], **fields["counts"]}
        dataset = Dataset(
            name=value_text(fields["name"], 500),
            digest=fields["digest"][:32],
            source_type="local",
            source=json.dumps({"uri": fields["source"]}),
            profile=json.dumps({"num_rows": sum(fields["counts"].values()), **profile}),
        )
        context = InputTag("mlflow.data.context", value_text(fields["split"], 500))
        with self._sending():
            self._client.log_inputs(self.mlflow_run_id, [DatasetInput(dataset, [context])])

    def begin(self, fields: Mapping[str, Any]) -> None:
        """An attempt begins: the first one, or another that goes on.

        Raises:
            RetryLater: The server cannot be used now.
        """
        with self._sending():
            if self._status != "RUNNING":
                self._client.update_run(self.mlflow_run_id, status="RUNNING")
                self._status = "RUNNING"
            for chunk in chunks(_tags(fields["tags"]).items(), 100):
                for name, value in chunk:
                    self._client.set_tag(self.mlflow_run_id, name, value)

    def end(self, status: str, time: int) -> None:
        """An attempt ended, at `time` in milliseconds since 1970.

        Raises:
            RetryLater: The server cannot be used now.
        """
        with self._sending():
            self._client.set_tag(self.mlflow_run_id, STATE, status)
            self._client.set_terminated(self.mlflow_run_id, STATUS.get(status, "FAILED"), end_time=time)
            self._status = STATUS.get(status, "FAILED")
        if self._database is not None:
            refresh_statistics(self._database)

    @contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            with translated(self._on_progress, refusable=True):
                yield
        except PermanentError:
            # A deleted run refuses everything, and restoring it mends that.
            with translated(self._on_progress):
                self._check_not_deleted(self._client.get_run(self.mlflow_run_id))
            raise


def files_of(path: Path, folder: str) -> Iterator[tuple[Path, str]]:
    """The files that make an artifact, each with the folder of the run's artifacts that it goes to.

    Args:
        path: A file, or a folder whose contents are meant.
        folder: Artifact folder that it goes to.
    """
    for file in sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]:
        inner = file.relative_to(path).parent.as_posix() if path.is_dir() else "."
        yield file, "/".join(part for part in (folder, inner) if part not in ("", "."))


@contextmanager
def translated(on_progress: Callable[[], None], *, refusable: bool = False) -> Iterator[None]:
    """Sort whatever a call may raise into "later" and, where an entry is to blame, "never"."""
    try:
        yield
    except (RetryLater, PermanentError):
        raise
    except Exception as error:
        if refusable and isinstance(error, FileNotFoundError):
            raise PermanentError(f"{error.filename} is gone") from error
        if refusable and getattr(error, "error_code", None) in HOPELESS:
            raise PermanentError(_short(error)) from error
        raise RetryLater(_short(error)) from error
    on_progress()


def _tags(values: Mapping[str, Any]) -> dict[str, str]:
    tags = {valid_name(name): value_text(value, TAG_LENGTH) for name, value in values.items()}
    if REVISION in tags:
        # The column "Version" of MLflow's table of runs.
        tags["mlflow.source.git.commit"] = tags[REVISION]
    if DESCRIPTION in tags:
        # What its pages show first of a run.
        tags["mlflow.note.content"] = tags.pop(DESCRIPTION)
    return tags


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"
