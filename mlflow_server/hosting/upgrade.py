"""Bringing the tables of a database to the version of the installed MLflow; never without a way back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow_server.hosting.backup import Backup
from mlflow_server.hosting.database import Contents, Database, Schema, newest_schema
from mlflow_server.hosting.errors import ServerError


@dataclass(frozen=True)
class Upgrade:
    """What was done to a database.

    Attributes:
        before: Versions of its tables.
        after: Versions now; the same where there was nothing to do.
    """

    before: Schema
    after: Schema

    @property
    def needed(self) -> bool:
        """Whether anything had to be done."""
        return self.before != self.after


def upgrade(database: Database, backup: Path | None) -> Upgrade:
    """Upgrade the tables of a database that no server is using.

    Args:
        database: Which.
        backup: Folder of a backup with all that is in the database now; not needed where there is nothing
            to do.

    Raises:
        ServerError: There is no such backup, a server is running, or the tables are newer than MLflow.
    """
    with database.lock("upkeep"), database.lock("serving"):
        before = database.schema()
        if before.records is None and before.users is None:
            raise ServerError(
                "there is nothing in this database",
                where=str(database.backend),
                fix="name the right one: --backend; a server makes the tables of an empty one itself",
            )
        if not database.outdated(before):
            return Upgrade(before, before)
        _see_that_they_are_older(before, database)
        _check(backup, database, before)
        _upgrade(database, before)
        return Upgrade(before, database.schema())


def _check(folder: Path | None, database: Database, schema: Schema) -> None:
    """The backup is of this database as it is now."""
    make = "nfbmr server backup FOLDER"
    if folder is None:
        raise ServerError(
            "an upgrade cannot be taken back, and no backup was named",
            where=str(database.backend),
            fix=f"{make}, then: nfbmr server upgrade --backup FOLDER",
        )
    backup = Backup.read(folder)
    if backup.backend != str(database.backend) or backup.schema != schema:
        raise ServerError(
            f"this is a backup of another database or of other tables ({backup.backend})",
            where=folder,
            fix=f"take one of {database.backend}: {make}",
        )
    lost = _differences(backup.contents, database.contents())
    if lost:
        raise ServerError(
            f"this backup is not of what the database holds now ({lost})",
            where=folder,
            fix=f"take another one, with no server running: {make}",
        )


def _differences(then: Contents, now: Contents) -> str:
    found = [
        f"{table}: {then.rows.get(table, 0)} then, {rows} now"
        for table, rows in now.rows.items()
        if then.rows.get(table, 0) != rows
    ]
    found += [f"{name} has changed" for name, time in now.latest.items() if then.latest.get(name) != time]
    return ", ".join(found[:3])


def _see_that_they_are_older(schema: Schema, database: Database) -> None:
    """A version that the installed MLflow does not know is a newer one's."""
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config

    config = _get_alembic_config("")  # type: ignore[no-untyped-call]
    folder = config.get_main_option("script_location")
    try:
        if schema.records is not None:
            ScriptDirectory(folder).get_revision(schema.records)
        if schema.users is not None:
            ScriptDirectory(str(Path(folder).parents[1] / "server/auth/db/migrations")).get_revision(
                schema.users
            )
    except CommandError as error:
        raise ServerError(
            "the tables of this database were made by a newer MLflow than the installed one",
            where=str(database.backend),
            fix="install the version of nfbmr that has been used with it",
        ) from error


def _upgrade(database: Database, schema: Schema) -> None:
    from mlflow.store.db.utils import _upgrade_db

    newest = newest_schema()
    if schema.records not in (None, newest.records):
        _upgrade_db(database.engine)  # type: ignore[no-untyped-call]
    if schema.users not in (None, newest.users):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow.server.auth.db.utils import migrate_if_needed

        migrate_if_needed(database.engine, "head")
