"""Bringing the tables of a database to the version of the installed MLflow; never without a way back.

``mlflow db upgrade`` and its like for the tables of users do the work. By themselves they upgrade what a
running server is using, and they keep no copy: tests/hosting/test_plain.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow_server.hosting.artifacts import Artifacts
from mlflow_server.hosting.backup import Backup, write_backup
from mlflow_server.hosting.database import Database, Schema
from nfbmr.errors import ServerError


@dataclass(frozen=True)
class Upgrade:
    """What was done to a database.

    Attributes:
        before: Versions of its tables.
        after: Versions now; the same where there was nothing to do.
        backup: What was copied before; None where there was nothing to do.
    """

    before: Schema
    after: Schema
    backup: Backup | None

    @property
    def needed(self) -> bool:
        """Whether anything had to be done."""
        return self.backup is not None


def upgrade(database: Database, artifacts: Artifacts, folder: Path) -> Upgrade:
    """Back up a server that is down, and upgrade its tables; nothing where they are up to date.

    Args:
        database: The server's database.
        artifacts: The server's artifacts, which the backup copies too.
        folder: Made for the backup.

    Raises:
        ServerError: A server is running, the backup cannot be made, or the tables are newer than MLflow.
    """
    with database.lock("upkeep"), database.lock("serving"):
        before = database.schema()
        if before == Schema(None, None):
            raise ServerError(
                "there is nothing in this database",
                where=str(database.backend),
                fix="name the right one: --backend; a server makes the tables of an empty one itself",
            )
        if not database.outdated(before):
            return Upgrade(before, before, None)
        backup = write_backup(database, artifacts, folder)
        _upgrade(database, before)
        return Upgrade(before, database.schema(), backup)


def _upgrade(database: Database, before: Schema) -> None:
    import warnings

    from alembic.util import CommandError
    from mlflow.db import upgrade as records

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.server.auth.db.cli import upgrade as users

    uri = database.backend.uri
    try:
        if before.records is not None:
            records.main([uri], standalone_mode=False)
        if before.users is not None:
            users.main(["--url", uri], standalone_mode=False)
    except CommandError as error:
        raise ServerError(
            "the tables of this database were made by a newer MLflow than the installed one",
            where=str(database.backend),
            fix="install the version of nfbmr that has been used with it",
        ) from error
