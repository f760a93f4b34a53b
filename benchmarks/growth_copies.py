"""Copies of one child of a sweep: in its folder, in MLflow's database, and among the artifacts.

Sending ten thousand would take hours, so what there is to be found and compared is copied from one that was
sent. Rows go through SQLAlchemy, so that SQLite and PostgreSQL are filled by the same code.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nfbmr.paths import RunPaths, write_json
from tune.records.paths import SweepPaths

_OF_A_RUN = ("runs", "tags", "params", "metrics", "latest_metrics")
"""Tables of MLflow's database that have rows of a run, in the order in which they may be filled."""

TOGETHER = 200
"""Runs whose rows go into the database at once."""


def fill(paths: SweepPaths, uri: str, template: str, children: Sequence[int]) -> None:
    """Copy a child.

    Args:
        paths: Of the sweep; its first trial is copied.
        uri: Of the database.
        template: Our name of the first trial's run.
        children: Numbers of the copies.
    """
    first = paths.trial(0)
    engine = sa.create_engine(uri)
    tables = sa.MetaData()
    tables.reflect(engine, only=_OF_A_RUN)
    with engine.begin() as connection:
        run, rows = _rows(connection, tables, template)
        for start in range(0, len(children), TOGETHER):
            copies = {
                f"{paths.name}-{n:04d}": (n, uuid.uuid4().hex) for n in children[start : start + TOGETHER]
            }
            made: dict[str, list[dict[str, Any]]] = {name: [] for name in _OF_A_RUN}
            for run_id, (n, copy) in copies.items():
                _copy_folder(first, paths.trial(n), run_id, {template: run_id, run: copy})
                for name in _OF_A_RUN:
                    made[name] += [_renamed(row, {template: run_id, run: copy}) for row in rows[name]]
            for name in _OF_A_RUN:
                if made[name]:
                    connection.execute(tables.tables[name].insert(), made[name])
            for row in made["runs"]:
                files = Path(row["artifact_uri"].removeprefix("file://"))
                files.mkdir(parents=True)
                shutil.copy(first / "notes.txt", files)
    engine.dispose()


def _rows(
    connection: sa.Connection, tables: sa.MetaData, template: str
) -> tuple[str, Mapping[str, list[dict[str, Any]]]]:
    """MLflow's name of the template, and its rows in each table."""
    tags = tables.tables["tags"].c
    named = sa.select(tags.run_uuid).where(tags.key == "nfbmr.run_id", tags.value == template)
    run = str(connection.execute(named).scalar_one())
    rows = {}
    for name in _OF_A_RUN:
        table = tables.tables[name]
        with closing(connection.execute(sa.select(table).where(table.c.run_uuid == run))) as found:
            rows[name] = [dict(row) for row in found.mappings()]
    return run, rows


def _renamed(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A row of another run: both of its names are changed wherever they stand."""
    changed = dict(row)
    for key, value in row.items():
        if isinstance(value, str):
            for old, new in names.items():
                value = value.replace(old, new)  # noqa: PLW2901
            changed[key] = value
    return changed


def _copy_folder(first: Path, folder: Path, run_id: str, names: Mapping[str, str]) -> None:
    """A trial's folder with other names in its journal, and in what says that all of it was sent."""
    target = RunPaths(folder).journal
    target.mkdir(parents=True)
    for file in RunPaths(first).journal.iterdir():
        if file.suffix != ".lock":
            text = file.read_text(encoding="utf-8")
            for old, new in names.items():
                text = text.replace(old, new)
            (target / file.name).write_text(text, encoding="utf-8")
    write_json(RunPaths(folder).identity, {"run_id": run_id})
    for name in ("notes.txt", RunPaths(first).fitted.name):
        shutil.copy(first / name, folder / name)
