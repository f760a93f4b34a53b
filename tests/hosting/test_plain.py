"""What plain MLflow does where ``nfbmr server`` has a rule or a command of its own.

Whatever passes here with the first assertion turned round has become needless: it should go.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ADMIN = ("admin", "the-admin-password")
READER = ("rita", "rita-has-a-password")
START_SECONDS = 300.0


class Plain:
    """``mlflow server`` with users, and its folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.address = f"http://127.0.0.1:{port}"
        self.database = f"sqlite:///{folder / 'mlflow.db'}"

    def post(self, path: str, body: Any, user: tuple[str, str] = ADMIN, **options: Any) -> requests.Response:
        where = f"{self.address}/api/2.0/mlflow/{path}"
        return requests.post(where, json=body, auth=user, timeout=120, **options)

    def get(self, path: str, user: tuple[str, str] = ADMIN) -> requests.Response:
        return requests.get(f"{self.address}{path}", auth=user, timeout=120)


def run_mlflow(plain: Plain, environment: Callable[..., dict[str, str]], *words: str) -> str:
    where = {
        "MLFLOW_TRACKING_URI": plain.address,
        "MLFLOW_TRACKING_USERNAME": ADMIN[0],
        "MLFLOW_TRACKING_PASSWORD": ADMIN[1],
    }
    completed = subprocess.run(
        [sys.executable, "-m", "mlflow", *words], cwd=plain.folder, env=environment(where),
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    return completed.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory, environment) -> Iterator[Plain]:
    import socket

    folder = tmp_path_factory.mktemp("plain")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Plain(folder, port)
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {server.database}\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 600\n"
    )
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "k" * 32,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    words = [
        "server", "--app-name", "basic-auth", "--backend-store-uri", server.database, "--workers", "1",
        "--default-artifact-root", "mlflow-artifacts:/", "--artifacts-destination", str(folder / "kept"),
        "--port", str(port), "--allowed-hosts", "127.0.0.1:*", "--cors-allowed-origins", "https://a.example",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], cwd=folder, env=environment(settings),
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                requests.get(f"{server.address}/health", timeout=5)
                break
            except requests.ConnectionError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.3)
        made = server.post("users/create", {"username": READER[0], "password": READER[1]})
        assert made.ok, made.text
        yield server
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for child in family:
            if child.is_running():
                child.kill()


def test_it_answers_parts_that_run_commands_on_the_host(plain):
    assert plain.get("/ajax-api/3.0/mlflow/assistant/providers").json()["providers"]


def test_a_page_of_another_port_of_this_machine_changes_things(plain):
    origin = {"Origin": "http://localhost:8888"}
    assert plain.post("experiments/create", {"name": "foreign"}, headers=origin).ok


def test_a_reader_makes_experiments_and_owns_them(plain):
    made = plain.post("experiments/create", {"name": "of a reader"}, READER)
    assert made.ok
    number = made.json()["experiment_id"]
    assert plain.post("experiments/delete", {"experiment_id": number}, READER).ok


def test_a_removed_user_is_not_asked_for_other_credentials(plain):
    who = ("tom", "tom-has-a-password")
    assert plain.post("users/create", {"username": who[0], "password": who[1]}).ok
    assert plain.post("experiments/search", {"max_results": 1}, who).ok
    with sqlite3.connect(plain.folder / "mlflow.db", timeout=60) as database:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute(
            "DELETE FROM user_role_assignments WHERE user_id = (SELECT id FROM users WHERE username = 'tom')"
        )
        database.execute("DELETE FROM users WHERE username = 'tom'")
    assert plain.post("experiments/search", {"max_results": 1}, who).status_code == 404


def test_any_size_is_taken(plain):
    answer = plain.post("experiments/search", {"max_results": 1, "filter": "x" * 33_000_000})
    assert answer.status_code != 413


def test_it_shows_any_folder_of_the_host(plain, tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    body = {"name": "host", "artifact_location": tmp_path.as_uri()}
    made = plain.post("experiments/create", body, READER)
    run = plain.post("runs/create", {"experiment_id": made.json()["experiment_id"]}, READER).json()["run"]
    place = tmp_path / run["info"]["run_id"] / "artifacts"
    place.mkdir(parents=True)
    os.link(tmp_path / "diary.txt", place / "diary.txt")
    shown = plain.get(f"/get-artifact?run_uuid={run['info']['run_id']}&path=diary.txt", READER)
    assert shown.content == b"mine"


def test_its_upgrade_asks_for_no_backup_and_minds_no_server(plain, environment):
    run_mlflow(plain, environment, "db", "upgrade", plain.database)  # while the server runs on it


@pytest.fixture
def removed(plain) -> tuple[str, Path]:
    """A removed run that a registered model comes from, and a folder outside that another run names."""
    number = plain.post("experiments/create", {"name": "garbage"}).json()["experiment_id"]
    champion, other = (
        plain.post("runs/create", {"experiment_id": number}).json()["run"]["info"] for _ in range(2)
    )
    precious = plain.folder / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    assert plain.post("registered-models/create", {"name": "screws"}).ok
    body = {"name": "screws", "source": champion["artifact_uri"], "run_id": champion["run_id"]}
    assert plain.post("model-versions/create", body).ok
    with sqlite3.connect(plain.folder / "mlflow.db", timeout=60) as database:
        database.execute(
            "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (precious.as_uri(), other["run_id"])
        )
    for each in (champion, other):
        assert plain.post("runs/delete", {"run_id": each["run_id"]}).ok
    return champion["run_id"], precious


def test_its_garbage_collection_takes_what_a_model_needs_and_what_is_not_the_servers(
    plain, removed, environment
):
    run_id, precious = removed
    run_mlflow(
        plain, environment, "gc", "--backend-store-uri", plain.database,
        "--artifacts-destination", str(plain.folder / "kept"),
    )  # fmt: skip
    assert plain.get(f"/api/2.0/mlflow/runs/get?run_id={run_id}").status_code == 404
    assert not (precious / "thesis.txt").exists()
