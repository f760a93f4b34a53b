"""Sixteen writers at once through a real server: nothing fails, and every point that was sent is there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

WRITERS = Path(__file__).with_name("writers.py")
BACKENDS = ["sqlite", "postgresql"]


def write(running, folder: Path, environment, processes: int, threads: int, seconds: float) -> list:
    folder.mkdir()
    return [
        subprocess.Popen(
            [sys.executable, str(WRITERS), running.address, f"w{n}", str(threads), str(seconds), str(folder)],
            env={**environment(), "MLFLOW_HTTP_REQUEST_TIMEOUT": "90"},  # a busy machine is no lost run
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(processes)
    ]


def outcome(writers: list, seconds: float) -> tuple[dict[str, Any], float]:
    """What all of them say that the server has; the slowest answer."""
    runs: dict[str, Any] = {}
    slowest = 0.0
    for writer in writers:
        said = json.loads(writer.communicate(timeout=seconds + 240)[0])
        assert said["errors"] == []
        runs |= said["runs"]
        slowest = max(slowest, said["slowest"])
    return runs, slowest


def points_in(address: str) -> dict[str, int]:
    """Metric points by run, counted by the database itself."""
    engine = sa.create_engine(address)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT run_uuid, count(*) FROM metrics GROUP BY run_uuid")).all()
    engine.dispose()
    return {run_id: int(number) for run_id, number in rows}


def check(kind, tmp_path, start_on, environment, processes, threads, seconds):
    running, database = start_on(kind, tmp_path / "server")
    begun = time.monotonic()
    runs, slowest = outcome(
        write(running, tmp_path / "files", environment, processes, threads, seconds), seconds
    )
    took = time.monotonic() - begun
    assert all(told["finished"] for told in runs.values())
    wanted = {run_id: told["points"] for run_id, told in runs.items()}
    assert points_in(database) == wanted
    for run_id in list(runs)[:: max(1, len(runs) // 10)]:
        found = running.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}").json()["run"]
        assert found["info"]["status"] == "FINISHED"
        assert len(found["data"]["metrics"]) == 5
    for run_id, told in runs.items():
        name = running.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=pictures").json()
        (file,) = name["files"]
        assert int(file["file_size"]) == len(told["file"])
    assert running.end() == 0
    said = running.said()
    assert said == "", said  # neither "database is locked" nor anything else
    points = sum(wanted.values())
    print(f"{kind}: {processes * threads} writers, {took:.0f} s, {len(runs)} runs, {points} points, "  # noqa: T201
          f"{points / took:.0f} a second, slowest batch {slowest:.2f} s")  # fmt: skip


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_burst_of_sixteen_writers_loses_nothing(kind, tmp_path, start_on, environment):
    check(kind, tmp_path, start_on, environment, processes=1, threads=16, seconds=4)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", BACKENDS)
def test_sixteen_writers_lose_nothing_in_minutes(kind, tmp_path, start_on, environment):
    check(kind, tmp_path, start_on, environment, processes=4, threads=4, seconds=180)
