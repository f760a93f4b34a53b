"""The SQLite file that runs are recorded in where nobody has named a server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from mlflow_server.destination import Destination
from mlflow_server.remote import connect


def test_a_database_whose_making_was_killed_is_made_by_the_next(tmp_path: Path) -> None:
    database = tmp_path / "runs" / "mlflow.db"
    code = f"""
from mlflow_server.destination import Destination
from mlflow_server.remote import connect
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
