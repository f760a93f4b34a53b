"""SQLite is told how large its tables are: what MLflow's page asks for is then answered by its indexes."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient

from mlflow_server.destination import Destination
from mlflow_server.tracking.remote_run import Opening, RemoteRun
from mlflow_server.tracking.statistics import SMALL, kept_fresh, refresh_statistics

THROUGH_ALL = re.compile("SCAN .* LEFT-JOIN")
"""For each run all values of the metric are looked through."""


@pytest.fixture
def database(uri: str) -> Path:
    """A database with more than a few runs."""
    path = Path(uri.removeprefix("sqlite:///"))
    add_runs(path, 0, 20 * SMALL)
    return path


def add_runs(database: Path, first: int, end: int) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for n in range(first, end):
            connection.execute(
                "INSERT INTO runs (run_uuid, experiment_id, lifecycle_stage, status, start_time, "
                "source_type, user_id, artifact_uri) VALUES (?, 0, 'active', 'FINISHED', 1, 'LOCAL', 'ann', 'file:///a')",
                [f"{n:032x}"],
            )
            connection.execute("INSERT INTO tags VALUES ('nfbmr.trial', ?, ?)", [str(n), f"{n:032x}"])
            connection.execute(
                "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
                "VALUES ('validation/image_auroc', 0.5, 0, 0, 0, ?)",
                [f"{n:032x}"],
            )
        connection.commit()


def question(database: Path) -> tuple[str, Any]:
    """What MLflow asks for its table of runs, the best first, with its parameters."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "ORDER BY" in statement and "latest_metrics" in statement and "LIMIT" in statement:
            asked.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        order = ["metrics.`validation/image_auroc` DESC"]
        MlflowClient(f"sqlite:///{database}").search_runs(["0"], "tags.`nfbmr.trial` != ''", order_by=order)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    (answer,) = asked
    return answer


def plan(database: Path, open_already: sqlite3.Connection | None = None) -> str:
    """How SQLite answers that, in a new connection or in one that is open."""
    statement, parameters = question(database)
    with closing(sqlite3.connect(database)) as new:
        asked = open_already or new
        asked.execute(statement, parameters).fetchall()  # explaining alone notices nothing that is new
        rows = asked.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return "\n".join(str(row[3]) for row in rows)


def test_sorting_by_a_metric_does_not_look_through_all_values_for_every_run(database: Path) -> None:
    assert THROUGH_ALL.search(plan(database))
    assert refresh_statistics(database)
    assert not THROUGH_ALL.search(plan(database))


def test_connections_that_are_open_use_them_as_well(database: Path) -> None:
    """A server's stay open for as long as it runs."""
    with closing(sqlite3.connect(database, cached_statements=0)) as before:
        assert THROUGH_ALL.search(plan(database, before))
        assert refresh_statistics(database)
        assert not THROUGH_ALL.search(plan(database, before))


def test_connections_that_knew_older_ones_use_the_new_ones(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM runs WHERE run_uuid >= ?", [f"{2 * SMALL:032x}"])
        for table in ("tags", "latest_metrics"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid >= ?", [f"{2 * SMALL:032x}"])
        connection.commit()
    assert refresh_statistics(database)
    with closing(sqlite3.connect(database, cached_statements=0)) as before:
        plan(database, before)
        add_runs(database, 2 * SMALL, 40 * SMALL)
        assert refresh_statistics(database)
        assert plan(database, before) == plan(database)


def test_they_are_made_anew_when_there_are_many_more_runs(database: Path) -> None:
    assert refresh_statistics(database)
    assert not refresh_statistics(database)
    add_runs(database, 20 * SMALL, 39 * SMALL)
    assert not refresh_statistics(database)
    add_runs(database, 39 * SMALL, 40 * SMALL)
    assert refresh_statistics(database)


def test_small_missing_busy_and_foreign_databases_are_left_as_they_are(
    tmp_path: Path, uri: str, database: Path
) -> None:
    assert not refresh_statistics(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "other.db").write_text("no database at all")
    assert not refresh_statistics(tmp_path / "other.db")
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not refresh_statistics(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM runs WHERE run_uuid >= ?", [f"{SMALL - 1:032x}"])
        connection.commit()
    assert not refresh_statistics(database)


def test_a_run_that_ends_sees_to_them(uri: str, database: Path) -> None:
    now = int(time.time() * 1000)
    RemoteRun(Destination(uri), Opening("one", "one", None, now)).end("finished", now)
    assert not THROUGH_ALL.search(plan(database))


def test_a_server_sees_to_them_while_it_runs(database: Path) -> None:
    with kept_fresh(database, every=0.05):
        deadline = time.monotonic() + 60
        while THROUGH_ALL.search(plan(database)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not THROUGH_ALL.search(plan(database))
    with kept_fresh(None):
        pass
