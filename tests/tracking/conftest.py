"""An MLflow store that is made once, and what a run looks like on it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from nfbmr.records import DatasetRecord, Point, Record

# Before MLflow is imported anywhere: no report about the tests leaves the machine.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture
def free_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TarPit:
    """A server that takes connections and never answers."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._taken: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{server.getsockname()[1]}"

    def wait(self) -> None:
        """Return once a request is out, which nobody will answer."""
        connection = self._server.accept()[0]
        self._taken.append(connection)
        connection.settimeout(240)
        assert connection.recv(1)

    def close(self) -> None:
        for each in (*self._taken, self._server):
            each.close()


@pytest.fixture
def tar_pit(monkeypatch: pytest.MonkeyPatch) -> Iterator[TarPit]:
    """A server that never answers; who waits for its answer waits for an hour."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(16)
    server.settimeout(240)
    pit = TarPit(server)
    yield pit
    pit.close()


_connecting: list[list[int]] = []


def _note_connection(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        for threads in _connecting:
            threads.append(threading.get_ident())


sys.addaudithook(_note_connection)  # nobody can take it away again: it looks at a list


@pytest.fixture
def connecting() -> Callable[[], AbstractContextManager[list[int]]]:
    """Inside, every thread of this process that connects to something is written down."""

    @contextmanager
    def watch() -> Iterator[list[int]]:
        threads: list[int] = []
        _connecting.append(threads)
        try:
            yield threads
        finally:
            _connecting[:] = [each for each in _connecting if each is not threads]

    return watch


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str, int], str]]:
    """Starts a real tracking server with the command that users are told, and ends it."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(uri: str, port: int) -> str:
        from mlflow_server.destination import ui_hint

        log = (tmp_path / "server.log").open("wb")
        command = f"exec env {ui_hint(uri)} --host 127.0.0.1 --port {port} --start-timeout 600"
        processes.append(
            subprocess.Popen(
                ["bash", "-c", command], cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
            )
        )
        log.close()
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=2):
                    return address
            except OSError:
                time.sleep(0.1)
        raise TimeoutError((tmp_path / "server.log").read_text())

    yield start
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def on_server() -> Callable[..., list[Record]]:
    """Reads runs back from MLflow, as records."""

    def read(uri: str, run_id: str, experiment: str = "nfbmr") -> list[Record]:
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        stored_experiment = client.get_experiment_by_name(experiment)
        if stored_experiment is None:
            return []
        runs = client.search_runs([stored_experiment.experiment_id], f"tags.`nfbmr.run_id` = '{run_id}'")
        return [_record(client, run) for run in runs]

    return read


def _record(client: Any, run: Any) -> Record:
    info = run.info
    record = Record(run_id=run.data.tags["nfbmr.run_id"], run_name=info.run_name)
    record.status, record.started, record.ended = info.status.lower(), info.start_time, info.end_time
    record.params, record.tags = run.data.params, run.data.tags
    record.parent_id = run.data.tags.get("mlflow.parentRunId")
    for name in run.data.metrics:
        history = client.get_metric_history(info.run_id, name)
        record.metrics[name] = [Point(point.value, point.step, point.timestamp) for point in history]
    for item in run.inputs.dataset_inputs:
        context = next(tag.value for tag in item.tags if tag.key == "mlflow.data.context")
        record.datasets.append(DatasetRecord(item.dataset.name, item.dataset.digest, context, "", {}))
    record.models = {"mlflow": Path(info.run_id)}
    return record


@pytest.fixture(scope="session")
def files_on_server() -> Callable[[str, str], dict[str, bytes]]:
    """Every artifact of a run on MLflow, by path."""

    def read(uri: str, mlflow_run_id: str) -> dict[str, bytes]:
        import tempfile

        from mlflow import MlflowClient

        with tempfile.TemporaryDirectory() as name:
            root = Path(MlflowClient(uri).download_artifacts(mlflow_run_id, "", name))
            return {
                file.relative_to(root).as_posix(): file.read_bytes()
                for file in root.rglob("*")
                if file.is_file()
            }

    return read
