"""``nfbmr server``: what it says, whom it serves, what it refuses, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable

import psutil
import pytest


def eventually(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return true()


def listening(pid: int) -> set[tuple[str, int]]:
    found = psutil.Process(pid).net_connections("inet")
    return {(each.laddr.ip, each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN}


# The default


def test_a_newcomers_run_is_shown_by_a_server_in_the_same_folder(tmp_path, tiny, start, call, environment):
    from nfbmr.resolve import dump_yaml

    config = tmp_path / "tiny.yaml"
    config.write_text(dump_yaml(tiny(tracking__kind="auto")))
    call("train", "--config", str(config), cwd=tmp_path)
    running = start(tmp_path)
    assert running.summary["backend"] == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert running.summary["embedded"] is True
    (experiment,) = (
        each
        for each in running.post("experiments/search", {"max_results": 9}).json()["experiments"]
        if each["name"] == "nfbmr"
    )
    body = {"experiment_ids": [experiment["experiment_id"]]}
    (run,) = running.post("runs/search", body).json()["runs"]
    assert run["info"]["status"] == "FINISHED"
    run_id = run["info"]["run_id"]
    report = running.ask("GET", f"/get-artifact?run_uuid={run_id}&path=report.html")
    assert report.text.startswith("<!doctype html>")
    # and one that is sent through the server, and one that is written beside it once it has ended
    where = {"MLFLOW_TRACKING_URI": running.address}
    call("train", "--config", str(config), "--seed", "1", cwd=tmp_path, env=where)
    assert len(running.post("runs/search", body).json()["runs"]) == 2
    assert running.end() == 0
    assert running.said() == ""
    call("train", "--config", str(config), "--seed", "2", cwd=tmp_path)
    again = start(tmp_path)
    runs = again.post("runs/search", body).json()["runs"]
    assert [each["info"]["status"] for each in runs] == ["FINISHED"] * 3
    for each in runs:
        found = again.ask("GET", f"/get-artifact?run_uuid={each['info']['run_id']}&path=report.html")
        assert found.status_code == 200
    again.end()


def test_one_process_on_loopback_that_says_where_in_one_line(tmp_path, call, environment):
    import sys

    process = subprocess.Popen(
        [sys.executable, "-m", "nfbmr", "server", "--port", "0"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line
        assert str(tmp_path / "mlflow.db") in line
        assert psutil.Process(process.pid).children(recursive=True) == []
        assert {ip for ip, _ in listening(process.pid)} == {"127.0.0.1"}
    finally:
        process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_it_ends_with_all_of_its_processes(tmp_path, start, number, workers):
    running = start(tmp_path, "--workers", str(workers))
    family = psutil.Process(running.process.pid).children(recursive=True)
    assert bool(family) is (workers > 1)
    assert running.ask("GET", "/health").ok
    port = int(running.address.rpartition(":")[2])
    assert running.end(number) == 0
    assert eventually(lambda: not any(child.is_running() for child in family))
    assert running.said() == ""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.slow
def test_workers_end_with_a_server_that_is_killed(tmp_path, start):
    running = start(tmp_path, "--workers", "2")
    family = psutil.Process(running.process.pid).children(recursive=True)
    running.process.kill()
    running.process.wait()
    assert eventually(lambda: not any(child.is_running() for child in family))


def alive(running) -> list[psutil.Process]:
    """The workers of a server."""
    found = []
    for child in psutil.Process(running.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(tmp_path, start):
    running = start(tmp_path, "--workers", "2")
    workers = alive(running)
    workers[0].kill()
    assert eventually(lambda: len(alive(running)) == 2 and workers[0] not in alive(running), 60)
    assert all(running.ask("GET", "/health").ok for _ in range(20))
    assert running.end() == 0


def test_what_pages_ask_for_when_they_open_is_answered_without_a_user_too(tmp_path, start):
    running = start(tmp_path)
    who = running.ask("GET", "/ajax-api/2.0/mlflow/users/current")
    assert (who.status_code, who.json()) == (200, {"user": None, "is_basic_auth": False})


@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_that_takes_too_long_is_given_up_with_words(tmp_path, call, workers):
    words = ["server", "--port", "0", "--workers", str(workers), "--start-timeout", "0.5"]
    completed = call(*words, cwd=tmp_path, check=False)
    assert completed.returncode == 2
    assert "is not ready after 0.5 s" in completed.stderr
    assert "--start-timeout" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_a_port_that_is_taken_is_said_at_once(tmp_path, call_watched):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        completed, imported = call_watched("server", "--port", port, cwd=tmp_path, check=False)
    assert completed.returncode == 2
    assert port in completed.stderr
    assert "--port" in completed.stderr
    # before anything that takes time: MLflow was not even loaded, and no database made
    assert "mlflow_server" in imported
    assert "mlflow" not in imported
    assert not (tmp_path / "mlflow.db").exists()
