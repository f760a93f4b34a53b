"""A database as it was at one moment, in a file; and back into an empty database.

SQLite copies itself in one step of its online backup, while others go on reading and wait to write.
PostgreSQL's own ``pg_dump`` and ``pg_restore`` do the work; what is counted is counted in the very snapshot
that is dumped.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from mlflow_server.hosting.database import Database
from mlflow_server.hosting.settings import Backend
from nfbmr.errors import ServerError
from nfbmr.paths import atomic

if TYPE_CHECKING:
    from sqlalchemy import Connection

FILES = {"sqlite": "database.sqlite", "postgresql": "database.dump"}
"""A database's file in a backup, by its kind."""

# Wherever a database names artifacts: table, column, and which of its rows.
_PLACES = (
    ("runs", "artifact_uri", "TRUE"),
    ("logged_models", "artifact_location", "TRUE"),
    ("model_versions", "source", "TRUE"),
    ("model_versions", "storage_location", "TRUE"),
    ("trace_tags", "value", "key = 'mlflow.artifactLocation'"),
)
_PLACES_OF_NEW_RUNS = (("experiments", "artifact_location", "TRUE"),)


@dataclass(frozen=True)
class Snapshot:
    """A database at one moment.

    Attributes:
        file: That holds it.
        rows: How many rows each table has.
        places: Every address of artifacts in it, those of experiments left out.
    """

    file: Path
    rows: Mapping[str, int]
    places: frozenset[str]


def take(database: Database, folder: Path) -> Snapshot:
    """Copy a database into a folder, whoever is writing to it.

    Raises:
        ServerError: It cannot be copied.
    """
    file = folder / FILES[database.backend.kind]
    if database.backend.kind == "sqlite":
        return _take_sqlite(database, file)
    return _take_postgres(database, file)


def put_back(database: Database, file: Path) -> None:
    """Fill an empty database from a copy; whole or not at all.

    Raises:
        ServerError: It is not empty, or cannot be filled.
    """
    if database.tables():
        raise ServerError(
            "this database is not empty, and nothing is restored over anything",
            where=str(database.backend),
            fix="name another one with --backend, or move the old one away first",
        )
    if database.backend.kind == "postgresql":
        options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", str(file)]
        _run(database, "pg_restore", options)
        return
    target = database.backend.file
    assert target is not None
    database.close()
    with atomic(target) as temporary:
        shutil.copyfile(file, temporary)


def places_in(connection: Connection) -> frozenset[str]:
    """The addresses of artifacts that a database names."""
    import sqlalchemy as sa

    known = set(sa.inspect(connection).get_table_names())
    places: set[str] = set()
    for table, column, condition in _PLACES:
        if table in known:
            rows = connection.execute(sa.text(f"SELECT DISTINCT {column} FROM {table} WHERE {condition}"))
            places |= {str(value) for (value,) in rows if value}
    return frozenset(places)


def relocate(database: Database, old: str, new: str) -> int:
    """Let a database look for artifacts below `new` that were below `old`; how many addresses changed.

    Example:
        ``relocate(database, "file:///old/mlartifacts", "file:///new/mlartifacts")``
    """
    import sqlalchemy as sa

    changed = 0
    known = database.tables()
    with database.connection() as connection:
        for table, column, condition in (*_PLACES_OF_NEW_RUNS, *_PLACES):
            if table not in known:
                continue
            updated = connection.execute(
                sa.text(
                    f"UPDATE {table} SET {column} = :new || substr({column}, :length) "
                    f"WHERE ({column} = :old OR substr({column}, 1, :length) = :below) AND {condition}"
                ),
                {"new": new.rstrip("/"), "old": old, "below": f"{old}/", "length": len(old) + 1},
            )
            changed += updated.rowcount
    return changed


# SQLite


def _take_sqlite(database: Database, file: Path) -> Snapshot:
    source = database.backend.file
    assert source is not None
    if not source.exists():
        raise ServerError(
            "there is no database", where=source, fix="name it with --backend sqlite:///FILE.db"
        )
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=60)) as there,
            closing(sqlite3.connect(file)) as here,
        ):
            there.backup(here)
            problem = here.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        raise ServerError(
            f"the database cannot be copied ({error})",
            where=source,
            fix="check that it is one, and try again",
        ) from error
    if problem != "ok":
        raise ServerError(
            f"the database is damaged ({problem})",
            where=source,
            fix="restore an earlier backup: nfbmr server restore",
        )
    with Database(Backend(f"sqlite:///{file}")) as copy, copy.connection() as connection:
        return Snapshot(file, copy.rows(connection), places_in(connection))


# PostgreSQL


def _take_postgres(database: Database, file: Path) -> Snapshot:
    import sqlalchemy as sa

    with database.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        snapshot = connection.execute(sa.text("SELECT pg_export_snapshot()")).scalar()
        rows, places = database.rows(connection), places_in(connection)
        # a snapshot can be dumped for as long as the transaction lasts that has exported it
        _run(
            database,
            "pg_dump",
            [
                "--format=custom",
                "--no-owner",
                "--no-privileges",
                f"--snapshot={snapshot}",
                f"--file={file}",
            ],
        )
    return Snapshot(file, rows, places)


def _run(database: Database, name: str, options: Sequence[str]) -> None:
    import sqlalchemy as sa

    with database.connection() as connection:
        version = int(connection.execute(sa.text("SHOW server_version_num")).scalar() or 0)
    program = _program(name, version // 10_000)
    with _credentials(database.backend) as (address, environment):
        completed = subprocess.run(
            [program, f"--dbname={address}", "--no-password", *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if completed.returncode != 0:
        said = completed.stderr.strip().splitlines() or [f"exit code {completed.returncode}"]
        raise ServerError(
            f"{name} failed ({said[0][:200]})",
            where=str(database.backend),
            fix="check disk space, and that the user may read and make all tables of this database",
        )


def _program(name: str, major: int) -> str:
    """The oldest of PostgreSQL's programs here that is not older than the server."""
    versions = {
        int(path.parts[-3]): path
        for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
        if path.parts[-3].isdigit()
    }
    fitting = sorted(version for version in versions if version >= major)
    if fitting:
        return str(versions[fitting[0]])
    on_path = shutil.which(name)
    if on_path is None:
        raise ServerError(
            f"{name} is not installed",
            fix=f"install PostgreSQL's programs, version {major} or newer (Debian: postgresql-client)",
        )
    return on_path


@contextmanager
def _credentials(backend: Backend) -> Iterator[tuple[str, dict[str, str]]]:
    """The address for PostgreSQL's programs, and an environment; the password goes by a file of its own."""
    parts = urlsplit(backend.uri)
    user_and_host = parts.netloc.rpartition("@")[2]
    if parts.username:
        user_and_host = f"{parts.username}@{user_and_host}"
    address = urlunsplit(parts._replace(scheme="postgresql", netloc=user_and_host))
    environment = dict(os.environ)
    if parts.password is None:
        yield address, environment
        return
    with tempfile.TemporaryDirectory(prefix="nfbmr-") as folder:
        file = Path(folder) / "pgpass"
        file.touch(mode=0o600)
        password = unquote(parts.password).replace("\\", "\\\\").replace(":", "\\:")
        file.write_text(f"*:*:*:*:{password}\n", encoding="utf-8")
        environment.pop("PGPASSWORD", None)
        yield address, {**environment, "PGPASSFILE": str(file)}
