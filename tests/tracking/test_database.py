"""The SQLite file that runs are recorded in where nobody has named a server."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlflow_server.client import connect
from mlflow_server.destination import Destination


def test_a_database_whose_making_was_killed_is_made_by_the_next(tmp_path: Path) -> None:
    database = tmp_path / "runs" / "mlflow.db"
    code = f"""
from mlflow_server.destination import Destination
from mlflow_server.client import connect
connect(Destination.resolve("sqlite:///{database}"))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while not list(database.parent.glob(".mlflow.db-*/new.db")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not database.exists()
    client = connect(Destination.resolve(f"sqlite:///{database}"))
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]


def test_threads_that_record_at_once_make_it_together(tmp_path: Path) -> None:
    """As a sweep and its trials do in one process, each with an uploader of its own."""
    destination = Destination.resolve(f"sqlite:///{tmp_path / 'mlflow.db'}")

    def names(_: int) -> list[str]:
        return [experiment.name for experiment in connect(destination).search_experiments()]

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(names, range(3))) == [["Default"]] * 3
