"""Backups of a server, taken while it runs, and back.

::

    <backup>/
       backup.json           when, of what, and what is in it; written last
       database.sqlite       the database, or database.dump of a PostgreSQL
       artifacts/            those that the database knows
       SHA256SUMS            of all of it: sha256sum -c SHA256SUMS

The database comes first. Artifacts are sent before a run is said to be finished, so what the copied database
calls finished is there when the artifacts are copied; and nothing is removed meanwhile, because a garbage
collection waits. Artifacts of runs that began later are left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mlflow_server.destination import without_password
from mlflow_server.hosting import snapshots
from mlflow_server.hosting.artifacts import Artifacts
from mlflow_server.hosting.database import Database, Schema
from nfbmr.addresses import ObjectPath, store_address
from nfbmr.errors import ServerError
from nfbmr.paths import write_json, write_text
from nfbmr.text import count, size_of

log = logging.getLogger(__name__)

_FORMAT = 2
_SUMS = "SHA256SUMS"
_FOLDER = "artifacts"


@dataclass(frozen=True)
class Backup:
    """A finished backup.

    Attributes:
        folder: That holds it.
        made: When the database was copied, in seconds since 1970.
        backend: Address of the database, without a password.
        kind: ``sqlite`` or ``postgresql``.
        artifacts: Where the artifacts were.
        schema: Versions of its tables.
        rows: How many rows each table of the database has.
        files: How many artifacts are in it.
        size: Of all of it, in bytes.
        outside: Addresses of artifacts that the server does not keep, and that are not in the backup.
    """

    folder: Path
    made: float
    backend: str
    kind: str
    artifacts: str
    schema: Schema
    rows: Mapping[str, int]
    files: int
    size: int
    outside: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Backup:
        """Read what a backup says of itself.

        Raises:
            ServerError: It is none, or was not finished.
        """
        try:
            stored = json.loads((folder / "backup.json").read_text(encoding="utf-8"))
            version = stored.pop("format")
            if version == 1:
                stored["rows"] = stored.pop("contents")["rows"]
            elif version != _FORMAT:
                raise ValueError("made by another version of nfbmr")
            return TypeAdapter(cls).validate_python({**stored, "folder": folder})
        except FileNotFoundError as error:
            what = "not a finished backup" if folder.is_dir() else "no such folder"
            raise ServerError(
                what, where=folder, fix="name a folder that nfbmr server backup made"
            ) from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ServerError(
                f"this backup cannot be read ({error})", where=folder, fix="use another one"
            ) from error

    @property
    def file(self) -> Path:
        """The copy of the database."""
        return self.folder / snapshots.FILES[self.kind]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        made = datetime.fromtimestamp(self.made, UTC).isoformat(timespec="seconds")
        return {**asdict(self), "folder": str(self.folder), "made": made}

    def line(self) -> str:
        """For people."""
        rows = self.rows
        return (
            f"{self.folder}: {count(rows.get('runs', 0), 'run')}, "
            f"{count(rows.get('metrics', 0), 'metric point')}, "
            f"{count(self.files, 'artifact')}, {size_of(self.size)}"
        )

    def sums(self) -> dict[str, str]:
        """Checksums by file.

        Raises:
            ServerError: They cannot be read.
        """
        try:
            lines = (self.folder / _SUMS).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except OSError as error:
            raise ServerError(
                f"this backup cannot be read ({error.strerror})",
                where=self.folder / _SUMS,
                fix="use another one",
            ) from error
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def make_backup(database: Database, artifacts: Artifacts, folder: Path) -> Backup:
    """Copy a server's database and its artifacts, whether it runs or not.

    Args:
        database: The server's database.
        artifacts: The server's artifacts.
        folder: Made for the backup.

    Raises:
        ServerError: The folder is there already, or something cannot be copied; then nothing is left of it.
    """
    with database.lock("upkeep"):
        return write_backup(database, artifacts, folder)


def write_backup(database: Database, artifacts: Artifacts, folder: Path) -> Backup:
    """As :func:`make_backup`, for whoever holds the lock of upkeep."""
    if folder.exists():
        raise ServerError("this folder is there already", where=folder, fix="choose another name")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # A backup holds all that the users may see, and more.
        partial.mkdir(parents=True, mode=0o700)
        backup = _copy(database, artifacts, partial, folder)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if backup.outside:
        log.warning(
            "artifacts that this server does not keep are not in the backup: %s",
            ", ".join(backup.outside[:5]),
        )
    return backup


def _copy(database: Database, artifacts: Artifacts, partial: Path, folder: Path) -> Backup:
    schema = database.schema()
    if schema.records is None:
        raise ServerError(
            "there is nothing in this database",
            where=str(database.backend),
            fix="name the right one: --backend",
        )
    made = time.time()
    snapshot = snapshots.take(database, partial)
    sums = {snapshot.file.name: _digest(snapshot.file)}
    known, outside = _sorted_out(artifacts, snapshot.places)
    size, files = snapshot.file.stat().st_size, 0
    for name in artifacts.files():
        parts = name.split("/")
        if not any("/".join(parts[:length]) in known for length in range(1, len(parts) + 1)):
            continue
        digest, length = _fetch(artifacts, name, partial / _FOLDER / name)
        sums[f"{_FOLDER}/{name}"] = digest
        size, files = size + length, files + 1
    lines = (f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    write_text(partial / _SUMS, "".join(lines))
    backup = Backup(
        folder=folder,
        made=made,
        backend=str(database.backend),
        kind=database.backend.kind,
        artifacts=str(artifacts.root),
        schema=schema,
        rows=snapshot.rows,
        files=files,
        size=size,
        outside=outside,
    )
    stored = {name: value for name, value in asdict(backup).items() if name != "folder"}
    write_json(partial / "backup.json", {"format": _FORMAT, **stored})
    return backup


def _sorted_out(artifacts: Artifacts, places: Iterable[str]) -> tuple[set[str], tuple[str, ...]]:
    """Folders of artifacts that a database names, and addresses that are somewhere else."""
    known, outside = set(), set()
    for place in places:
        if place.startswith(("models:/", "runs:/")):
            continue  # another name for what is named itself
        name = artifacts.locate(place)
        if name:
            known.add(name)
        else:
            outside.add(without_password(place))
    return known, tuple(sorted(outside))


def _fetch(artifacts: Artifacts, name: str, target: Path) -> tuple[str, int]:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        return artifacts.fetch(name, target), target.stat().st_size
    except FileNotFoundError as error:
        raise ServerError(
            "an artifact was removed while it was to be copied", where=name, fix="take the backup again"
        ) from error


# And back


def restore(backup: Backup, database: Database, artifacts: Artifacts) -> dict[str, int]:
    """Fill an empty database and an empty place for artifacts from a backup.

    Where the artifacts were kept in another folder, the addresses of those that runs wrote there themselves
    are changed with it.

    Args:
        backup: To restore.
        database: An empty one, of the same kind.
        artifacts: Where they are to be kept.

    Returns:
        How many rows each table of the database has now.

    Raises:
        ServerError: There is something already, or the backup is damaged. What was begun can be begun again.
    """
    if backup.kind != database.backend.kind:
        raise ServerError(
            f"a backup of {backup.kind} does not go into {database.backend.kind}",
            where=str(database.backend),
            fix="give an empty database of the same kind: --backend",
        )
    with database.lock("upkeep"), database.lock("serving"):
        if database.tables():
            snapshots.put_back(database, backup.file)  # which says why not
        sums = backup.sums()
        _check_room(artifacts, sums)
        if _digest(backup.file) != sums.get(backup.file.name):
            raise _damaged(backup.file)
        for name, digest in sums.items():
            if name.startswith(f"{_FOLDER}/"):
                with suppress(FileNotFoundError):
                    if artifacts.send(backup.folder / name, name.removeprefix(f"{_FOLDER}/")) == digest:
                        continue
                raise _damaged(backup.folder / name)
        snapshots.put_back(database, backup.file)
        _move_addresses(backup, database, artifacts)
        with database.connection() as connection:
            rows = database.rows(connection)
    if rows != backup.rows:
        raise ServerError(
            "the restored database does not hold what the backup says",
            where=str(database.backend),
            fix="use another backup, and keep this one for a look",
        )
    return rows


def _check_room(artifacts: Artifacts, sums: Mapping[str, str]) -> None:
    """Nothing is there, unless an earlier attempt put it there."""
    foreign = [name for name in artifacts.files() if f"{_FOLDER}/{name}" not in sums]
    if foreign:
        raise ServerError(
            f"other artifacts are there already ({count(len(foreign), 'file')}, such as {foreign[0]})",
            where=str(artifacts.root),
            fix="name an empty place: --artifacts",
        )


def _move_addresses(backup: Backup, database: Database, artifacts: Artifacts) -> None:
    old = store_address(backup.artifacts)
    if isinstance(old, ObjectPath) or old == artifacts.root:
        return
    new = "mlflow-artifacts:/" if isinstance(artifacts.root, ObjectPath) else artifacts.root.as_uri()
    snapshots.relocate(database, old.as_uri(), new)
    snapshots.relocate(database, str(old), new)


def _damaged(file: Path) -> ServerError:
    return ServerError(
        "this file of the backup is damaged or missing",
        where=file,
        fix="use another backup; see sha256sum -c",
    )


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise _damaged(file) from error


def default_folder() -> Path:
    """``backups/`` and the time, to the second."""
    return Path("backups") / datetime.now().strftime("%Y-%m-%dT%H%M%S")
