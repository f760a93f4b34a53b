"""The database of a server: what is in it, and who may work on it at a time.

Two locks, each of which ends with its process: a server holds ``serving`` together with other servers, and
whatever needs the server to be down holds it alone; of backups, garbage collection, upgrades and restores
one at a time holds ``upkeep``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlflow_server.client import CLIENT_SETTINGS
from mlflow_server.hosting.settings import BACKEND_VARIABLE, Backend
from nfbmr.errors import ServerError, missing_package
from nfbmr.locks import lock_open_file

if TYPE_CHECKING:
    from sqlalchemy import Connection

_Lock = Literal["serving", "upkeep"]

_USERS_TABLE = "alembic_version_auth"
_ADVISORY: Mapping[_Lock, int] = {"serving": 1, "upkeep": 2}
_ADVISORY_CLASS = 0x6E66626D  # "nfbm"
_BUSY: Mapping[_Lock, tuple[str, str]] = {
    "serving": (
        "a server is running on this database",
        "end it first (Ctrl-C where it runs), so that nothing is written meanwhile",
    ),
    "upkeep": (
        "a backup, a restore, an upgrade or a garbage collection of this database is under way",
        "wait until it is done",
    ),
}


@dataclass(frozen=True)
class Schema:
    """Versions of a database's tables.

    Attributes:
        records: Of runs and models; None where there are none.
        users: Of users and their roles; None where there are none.
    """

    records: str | None
    users: str | None


class Database:
    """A database of a server.

    Args:
        backend: Which.

    Raises:
        MissingPackageError: Its driver is not installed.
        ServerError: It cannot be reached.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        quiet_mlflow()
        driver = backend.driver
        if driver is not None and importlib.util.find_spec(driver) is None:
            raise missing_package("psycopg2-binary" if driver == "psycopg2" else driver)
        if backend.file is not None:
            backend.file.parent.mkdir(parents=True, exist_ok=True)
        import sqlalchemy

        self.engine = sqlalchemy.create_engine(backend.uri, pool_pre_ping=True)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A transaction.

        Raises:
            ServerError: The database does not answer.
        """
        with self._explained(), self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is in it

    def tables(self) -> list[str]:
        """Names of its tables."""
        import sqlalchemy

        if self.backend.file is not None and not self.backend.file.exists():
            return []  # asking would make an empty file
        with self._explained():
            return sorted(sqlalchemy.inspect(self.engine).get_table_names())

    def schema(self) -> Schema:
        """Versions of its tables.

        Raises:
            ServerError: It holds something else than the records of a tracking server.
        """
        tables = self.tables()
        if not tables:
            return Schema(None, None)
        with self.connection() as connection:
            schema = Schema(
                _version(connection, "alembic_version") if "alembic_version" in tables else None,
                _version(connection, _USERS_TABLE) if _USERS_TABLE in tables else None,
            )
        ours = {"experiments", "runs"} <= set(tables) or (schema.users and "users" in tables)
        if tables and not ours and any(not name.startswith("alembic_") for name in tables):
            raise ServerError(
                "this database holds something else than the records of a tracking server",
                where=str(self.backend),
                fix="name another one, or make an empty one",
            )
        return schema

    def rows(self, connection: Connection) -> dict[str, int]:
        """How many rows each table has."""
        import sqlalchemy as sa

        quote = self.engine.dialect.identifier_preparer.quote
        return {
            name: int(connection.execute(sa.text(f"SELECT count(*) FROM {quote(name)}")).scalar() or 0)
            for name in sorted(sa.inspect(connection).get_table_names())
        }

    def create(self, artifact_root: str) -> None:
        """Make what is missing from an empty database: tables, and the experiment that MLflow starts with.

        Raises:
            ServerError: Its tables are of another version.
        """
        schema = self.schema()
        outdated = self.outdated(schema)
        if outdated:
            raise ServerError(
                f"the tables of this database are of another version of MLflow ({outdated})",
                where=str(self.backend),
                fix="nfbmr server upgrade, which makes a backup first",
            )
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with self._explained():
            store = SqlAlchemyStore(self.backend.uri, artifact_root)  # type: ignore[no-untyped-call]
            store.engine.dispose()

    def outdated(self, schema: Schema) -> str:
        """Which tables are not of the installed MLflow's version, in words; empty where all are."""
        newest = newest_schema()
        differences = [
            f"{what}: {have}, wanted {want}"
            for what, have, want in (
                ("records", schema.records, newest.records),
                ("users", schema.users, newest.users),
            )
            if have is not None and have != want
        ]
        return "; ".join(differences)

    # Who may work on it

    @contextmanager
    def lock(self, name: _Lock, *, shared: bool = False) -> Iterator[None]:
        """Hold one of the two locks.

        Raises:
            ServerError: Somebody else holds it in a way that excludes this.
        """
        held = (
            self._file_lock(name, shared)
            if self.backend.kind == "sqlite"
            else self._advisory_lock(name, shared)
        )
        with held:
            yield

    @contextmanager
    def _file_lock(self, name: _Lock, shared: bool) -> Iterator[None]:
        file = self.backend.file
        assert file is not None
        handle = os.open(file.with_name(f".{file.name}.{name}"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                lock_open_file(handle, shared=shared, wait=False)
            except BlockingIOError as error:
                raise self._busy(name) from error
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _advisory_lock(self, name: _Lock, shared: bool) -> Iterator[None]:
        import sqlalchemy as sa

        kind = "_shared" if shared else ""
        words = sa.text(f"SELECT pg_try_advisory_lock{kind}(:space, :name)")
        with self._explained():
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            with self._explained():
                got = connection.execute(words, {"space": _ADVISORY_CLASS, "name": _ADVISORY[name]}).scalar()
            if not got:
                raise self._busy(name)
            yield
        finally:
            connection.invalidate()  # a lock ends with its session, which a pool would keep
            connection.close()

    def _busy(self, name: _Lock) -> ServerError:
        what, fix = _BUSY[name]
        return ServerError(what, where=str(self.backend), fix=fix)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import sqlalchemy.exc

        try:
            yield
        except sqlalchemy.exc.OperationalError as error:
            raise ServerError(
                f"the database does not answer ({_reason(error)})",
                where=str(self.backend),
                fix="check that it runs and is reachable, and user and password (~/.pgpass, PGPASSWORD, or "
                f"the whole address in {BACKEND_VARIABLE})"
                if self.backend.kind == "postgresql"
                else "check that the file can be read and written, and that it is a SQLite database",
            ) from None
        except sqlalchemy.exc.DatabaseError as error:
            raise ServerError(
                f"the database refuses ({_reason(error)})",
                where=str(self.backend),
                fix="check that it is the database of a tracking server, and what its user may do",
            ) from None


def newest_schema() -> Schema:
    """Versions of the tables that the installed MLflow works with."""
    # By path: importing mlflow.server.auth would read a configuration and build an application.
    from pathlib import Path

    import mlflow
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_latest_schema_revision

    folder = Path(mlflow.__file__).parent / "server" / "auth" / "db" / "migrations"
    records: str = _get_latest_schema_revision()  # type: ignore[no-untyped-call]
    return Schema(records, ScriptDirectory(str(folder)).get_current_head())


def quiet_mlflow() -> None:
    """MLflow's usage reports and its chatter, off for this process; before it is imported."""
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)


def _version(connection: Connection, table: str) -> str | None:
    import sqlalchemy as sa

    value: Any = connection.execute(sa.text(f"SELECT version_num FROM {table}")).scalar()
    return None if value is None else str(value)


def _reason(error: Any) -> str:
    lines = str(error.orig if error.orig is not None else error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
