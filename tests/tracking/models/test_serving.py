"""``mlflow models serve`` works as it is, on a model named by its alias."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mlflow_server.registry.promotion import alias_state, promote
from mlflow_server.registry.registry import Registry
from nfbmr.paths import RunPaths

Ask = Callable[[dict[str, Any]], Any]


@pytest.fixture
def served(registry: Registry, stock: str, free_port: int, tmp_path: Path) -> Iterator[str]:
    promote(alias_state(registry, "parts", "champion"), registry.version("parts", "1"), ())
    command = [shutil.which("mlflow", path=str(Path(sys.executable).parent)) or "mlflow", "models", "serve"]
    command += ["-m", "models:/parts@champion", "--env-manager", "local", "--port", str(free_port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": stock, "PATH": path_with_python()}
    environment.pop("PYTHONPATH", None)  # the model brings its own code
    with (tmp_path / "served.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{free_port}"
    deadline = time.monotonic() + 180
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=2).close()
                break
            except OSError:
                alive = process.poll() is None and time.monotonic() < deadline
                assert alive, (tmp_path / "served.log").read_text()
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def path_with_python() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.slow
def test_a_champion_is_served_by_name(served: str, runs: Any) -> None:
    def ask(body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{served}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["predictions"]

    rows = [row for row in pq.read_table(RunPaths(runs.first).scores).to_pylist() if row["side"] == "test"]
    images = [Path(row["path"].decode()) for row in rows]
    texts = [base64.b64encode(image.read_bytes()).decode() for image in images]
    answers = ask({"inputs": [*texts, "no image", str(images[0])], "params": {"heatmap": True}})
    for row, answer in zip(rows, answers, strict=False):
        assert answer["score"] == pytest.approx(row["score"], rel=1e-4, abs=1e-5)
        assert answer["rejected"] == row["rejected"]
        assert base64.b64decode(answer["heatmap"]).startswith(b"\x89PNG")
    assert answers[-2]["error"]
    assert "paths are not read" in answers[-1]["error"]
    (strict,) = ask({"inputs": texts[:1], "params": {"threshold": -1e9}})
    assert strict["rejected"] is True
    bodies: list[dict[str, Any]] = [
        {"inputs": "x"},
        {"images": []},
        {"inputs": [], "params": {"threshold": "x"}},
    ]
    for wrong in bodies:
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(wrong)
        assert caught.value.code == 400
        caught.value.close()
