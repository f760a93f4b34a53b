"""Garbage: runs, logged models and experiments that were removed, and their artifacts.

MLflow marks what is removed and keeps it, so that it can be restored. This removes it for good, unless a
registered model still comes from it. ``mlflow gc`` removes that too, whatever its options name, and empties
any folder that a run names as its own: tests/hosting/test_plain.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mlflow_server.hosting.artifacts import Artifacts
from mlflow_server.hosting.database import Database
from nfbmr.errors import ServerError
from nfbmr.text import count, size_of

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([dhm])")
_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000}
_LOGGED_MODEL = re.compile(r"models:/(m-[0-9a-f]+)")


@dataclass
class Collection:
    """What was collected, or would be.

    Attributes:
        runs: Ids of removed runs.
        models: Ids of removed logged models.
        experiments: Ids of removed experiments.
        kept: Ids of removed runs and models that stay, because a registered model comes from them.
        files: Artifacts that go.
        size: Of these, in bytes.
        elsewhere: Addresses of artifacts that the server does not keep: they are left alone.
    """

    runs: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    experiments: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0
    elsewhere: list[str] = field(default_factory=list)

    def line(self, *, dry_run: bool = False) -> str:
        """For people."""
        what = ", ".join(
            (
                count(len(self.runs), "run"),
                count(len(self.models), "logged model"),
                count(len(self.experiments), "experiment"),
                f"{count(self.files, 'artifact')} ({size_of(self.size)})",
            )
        )
        lines = [f"{'would remove' if dry_run else 'removed'} {what}"]
        if self.kept:
            lines.append(f"kept, because registered models come from them: {', '.join(self.kept)}")
        if self.elsewhere:
            lines.append(
                f"left alone, because they are not in the server's place: {', '.join(self.elsewhere)}"
            )
        return "\n".join(lines)


def collect(
    database: Database, artifacts: Artifacts, *, older_than: int = 0, dry_run: bool = False
) -> Collection:
    """Remove for good what was removed, while the server may go on.

    Args:
        database: Of the server.
        artifacts: The server's artifacts.
        older_than: Milliseconds that something must have been removed for.
        dry_run: Only say what would go.

    Raises:
        ServerError: A backup is under way, or the database is of another version of MLflow.
    """
    with database.lock("upkeep"):
        if database.schema().records is None or database.outdated(database.schema()):
            raise ServerError(
                "this is not the database of a server of this version",
                where=str(database.backend),
                fix="name it with --backend, or bring it up to date: nfbmr server upgrade",
            )
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store: Any = SqlAlchemyStore(database.backend.uri, "mlflow-artifacts:/")  # type: ignore[no-untyped-call]
        try:
            return _collect(store, database, artifacts, older_than, dry_run)
        finally:
            store.engine.dispose()


def age_of(text: str) -> int:
    """A length of time as people write it, in milliseconds.

    Raises:
        ServerError: It is none.

    Example:
        >>> age_of("30d"), age_of("1d12h"), age_of("90m")
        (2592000000, 129600000, 5400000)
    """
    parts = _AGE.findall(text)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != text.replace(" ", ""):
        raise ServerError("not a length of time", where=text, fix="write it like 30d, 12h or 1d12h")
    return int(sum(float(number) * _MILLISECONDS[unit] for number, unit in parts))


def _collect(
    store: Any, database: Database, artifacts: Artifacts, older_than: int, dry_run: bool
) -> Collection:
    garbage = Collection()
    needed_runs, needed_models = _needed(database)
    for run_id in sorted(store._get_deleted_runs(older_than)):
        if run_id in needed_runs:
            garbage.kept.append(run_id)
            continue
        run = store.get_run(run_id)
        if run.info.lifecycle_stage != "deleted":
            continue  # restored a moment ago
        _empty(artifacts, run.info.artifact_uri, garbage, dry_run)
        if not dry_run:
            store._hard_delete_run(run_id)
        garbage.runs.append(run_id)
    for model_id in sorted(store._get_deleted_logged_models(older_than)):
        if model_id in needed_models:
            garbage.kept.append(model_id)
            continue
        model = store.get_logged_model(model_id, allow_deleted=True)
        _empty(artifacts, model.artifact_location, garbage, dry_run)
        if not dry_run:
            store._hard_delete_logged_model(model_id)
        garbage.models.append(model_id)
    for experiment_id, run_ids in _deleted_experiments(database, older_than).items():
        if run_ids - set(garbage.runs):
            continue
        if not dry_run:
            store._hard_delete_experiment(experiment_id)
        garbage.experiments.append(experiment_id)
    return garbage


def _empty(artifacts: Artifacts, uri: str, garbage: Collection, dry_run: bool) -> None:
    """Remove the artifacts at an address; before their record, so that nothing is forgotten half-way."""
    folder = artifacts.locate(uri)
    if not folder:
        garbage.elsewhere.append(uri)
        return
    files = artifacts.files(folder)
    garbage.files += len(files)
    garbage.size += sum(file.size for file in files.values())
    if not dry_run:
        # With the folder of the run, or of the model, that holds nothing else.
        artifacts.discard_folder(folder.removesuffix("/artifacts"))


def _needed(database: Database) -> tuple[set[str], set[str]]:
    """Runs and logged models that versions of registered models come from."""
    rows = _rows(
        database,
        "SELECT run_id, source, storage_location FROM model_versions "
        "WHERE current_stage IS NULL OR current_stage <> 'Deleted_Internal'",
    )
    runs, models = set(), set()
    for run_id, *sources in rows:
        runs |= {run_id} - {None, ""}
        for source in filter(None, sources):
            models |= set(_LOGGED_MODEL.findall(source))
    if models:
        names = ", ".join(f"'{model}'" for model in sorted(models))  # of hexadecimal digits alone
        owners = _rows(database, f"SELECT source_run_id FROM logged_models WHERE model_id IN ({names})")
        runs |= {owner for (owner,) in owners if owner}
    return runs, models


def _deleted_experiments(database: Database, older_than: int) -> dict[str, set[str]]:
    """Removed experiments, each with its runs."""
    rows = _rows(
        database,
        "SELECT experiments.experiment_id, run_uuid FROM experiments LEFT JOIN runs USING (experiment_id) "
        f"WHERE experiments.lifecycle_stage = 'deleted' AND last_update_time <= "
        f"{int(time.time() * 1000) - older_than} ORDER BY experiments.experiment_id",
    )
    experiments: dict[str, set[str]] = {}
    for number, run_id in rows:
        experiments.setdefault(str(number), set()).update({run_id} - {None})
    return experiments


def _rows(database: Database, words: str) -> Iterable[Any]:
    import sqlalchemy as sa

    with database.connection() as connection:
        return connection.execute(sa.text(words)).all()
