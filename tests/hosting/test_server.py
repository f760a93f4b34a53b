"""``nfbmr server``: what it says, whom it serves, what it refuses, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mlflow_server.hosting.settings import Backend, ServerSettings, refuse_shown_password
from nfbmr.errors import ServerError

EMBEDDED = ServerSettings(Backend("sqlite:////tmp/mlflow.db"), Path("/tmp/mlartifacts"))


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
    done = call(*words, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "is not ready after 0.5 s" in done.stderr
    assert "--start-timeout" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said_at_once(tmp_path, call_watched):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done, imported = call_watched("server", "--port", port, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert port in done.stderr
    assert "--port" in done.stderr
    # before anything that takes time: MLflow was not even loaded, and no database made
    assert "mlflow_server" in imported
    assert "mlflow" not in imported
    assert not (tmp_path / "mlflow.db").exists()


# Beyond this machine


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.7.7", "::"])
def test_beyond_this_machine_it_wants_to_know_its_names(host):
    with pytest.raises(ServerError, match="--allowed-hosts"):
        ServerSettings(EMBEDDED.backend, EMBEDDED.artifacts, host=host)


@pytest.mark.parametrize("name", ["*", "https://a.example", "a.example:5000", "a b", "*.example.com", ""])
def test_names_are_host_names(name):
    with pytest.raises(ServerError, match="not a host name"):
        ServerSettings(EMBEDDED.backend, EMBEDDED.artifacts, allowed_hosts=(name,))


def test_beyond_this_machine_it_asks_who_is_there():
    for settings in (
        ServerSettings(EMBEDDED.backend, EMBEDDED.artifacts, host="0.0.0.0", allowed_hosts=("a.example",)),
        ServerSettings(EMBEDDED.backend, EMBEDDED.artifacts, allowed_hosts=("a.example",)),
    ):
        assert settings.authentication
        assert not settings.embedded
        assert settings.artifact_root == "mlflow-artifacts:/"
    assert not EMBEDDED.authentication


def test_without_a_password_there_is_no_first_administrator(tmp_path, call):
    done = call("server", "--port", "0", "--allowed-hosts", "a.example", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "NFBMR_ADMIN_PASSWORD" in done.stderr
    short = call(
        "server",
        "--port",
        "0",
        "--auth",
        cwd=tmp_path,
        env={"NFBMR_ADMIN_PASSWORD": "elf-chars-1"},
        check=False,
    )
    assert short.returncode == 2
    assert "12 characters" in short.stderr
    assert "elf-chars-1" not in short.stderr


def test_the_password_comes_from_a_file_that_only_its_owner_reads(tmp_path, call, start):
    file = tmp_path / "password"
    file.write_text("from-a-private-file\n")
    file.chmod(0o644)
    words = ["--auth", "--admin-password-file", str(file)]
    open_to_all = call("server", "--port", "0", *words, cwd=tmp_path, check=False)
    assert open_to_all.returncode == 2
    assert f"chmod 600 {file}" in open_to_all.stderr
    file.chmod(0o600)
    running = start(tmp_path, *words)
    assert running.post("runs/search", {"experiment_ids": ["0"]}, auth=("admin", "from-a-private-file")).ok
    running.end()


def test_the_secret_key_is_private_and_stays_the_same(tmp_path, start, call):
    password = {"NFBMR_ADMIN_PASSWORD": "the-admin-password"}
    running = start(tmp_path, "--auth", env=password)
    key = tmp_path / ".nfbmr" / "server" / "secret_key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_text()
    assert len(before.strip()) == 64
    inside = " ".join(psutil.Process(running.process.pid).cmdline())
    shown = Path(f"/proc/{running.process.pid}/environ").read_bytes().decode()
    assert before.strip() not in inside + shown + running.said()
    running.end()
    again = start(tmp_path, "--auth")  # users are there already
    assert key.read_text() == before
    again.end()
    key.chmod(0o644)
    done = call("server", "--port", "0", "--auth", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "chmod 600" in done.stderr


# PostgreSQL


def test_a_password_of_the_database_is_shown_nowhere(tmp_path, postgres, call, start):
    address, _ = postgres.database()
    full = postgres.full(address)
    shown = call("server", "--backend", full, "--port", "0", cwd=tmp_path, check=False)
    assert shown.returncode == 2
    assert "PGPASSWORD" in shown.stderr
    password = postgres.password
    assert password not in shown.stderr + shown.stdout
    assert full.split(":")[2].split("@")[0] not in shown.stderr

    running = start(tmp_path, "--workers", "2", env={"NFBMR_SERVER_BACKEND": full})
    assert running.post("runs/search", {"experiment_ids": ["0"]}).ok
    family = [psutil.Process(running.process.pid)]
    family += family[0].children(recursive=True)
    words = " ".join(word for process in family for word in process.cmdline())
    assert password not in words
    assert "p%40ss" not in words
    done = call("server", "backup", "saved", cwd=tmp_path, env={"NFBMR_SERVER_BACKEND": full})
    told = (tmp_path / "saved" / "backup.json").read_text() + done.stdout + done.stderr
    assert running.end() == 0
    for text in (told, running.said(), json.dumps(running.summary)):
        assert password not in text
        assert "p%40ss" not in text


def test_a_database_that_does_not_answer_is_said_without_its_password(tmp_path, postgres, call):
    wrong = f"postgresql://mlflow:another-password@127.0.0.1:{postgres.port}/postgres"
    nobody = "postgresql://mlflow:another-password@127.0.0.1:1/postgres"
    for address in (wrong, nobody):
        env = {"NFBMR_SERVER_BACKEND": address}
        done = call("server", "--port", "0", cwd=tmp_path, env=env, check=False)
        assert done.returncode == 2
        assert "does not answer" in done.stderr
        assert "another-password" not in done.stderr + done.stdout


def test_an_address_with_a_password_is_refused_on_a_command_line():
    refuse_shown_password(["sqlite:///mlflow.db", "postgresql://ann@db.example/mlflow", "--port", "5000"])
    with pytest.raises(ServerError, match="can be read by everybody"):
        refuse_shown_password(["--backend=postgresql://ann:geheim@db.example/mlflow"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mysql://a@b/c", "not a database"),
        ("http://127.0.0.1:5000", "not a database"),
        ("mlruns", "not a database"),
        ("postgresql://ann@db.example", "names no database"),
        ("sqlite://", "in memory"),
        ("postgresql://db.example/x?password=geheim", "among the options"),
    ],
)
def test_backends_that_are_none_are_refused(given, said):
    with pytest.raises(ServerError, match=said) as caught:
        Backend.of(given)
    assert "geheim" not in str(caught.value)


# TLS in front

NGINX = Path(__file__).resolve().parents[2] / "mlflow_server" / "deploy" / "nginx.conf"


@pytest.fixture
def certificate(tmp_path):
    """A certificate for tracking.example.com, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=tracking.example.com", "-addext", "subjectAltName=DNS:tracking.example.com",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return tmp_path / "certificate.pem", tmp_path / "key.pem"


def test_nginx_in_front_does_the_encryption(tmp_path, start, certificate, free_ports, monkeypatch):
    import requests

    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    running = start(
        tmp_path / "server", "--allowed-hosts", "tracking.example.com", "--max-upload", "3MB",
        env={"NFBMR_ADMIN_PASSWORD": "the-admin-password"},
    )  # fmt: skip
    plain, secure = free_ports(2)
    text = NGINX.read_text()
    for old, new in {
        "127.0.0.1:5000": running.address.removeprefix("http://"),
        "listen 443": f"listen 127.0.0.1:{secure}",
        "listen 80": f"listen 127.0.0.1:{plain}",
        "listen [::]:443": f"listen [::1]:{secure}",
        "listen [::]:80": f"listen [::1]:{plain}",
        "/etc/nginx/tls/certificate.pem": str(certificate[0]),
        "/etc/nginx/tls/key.pem": str(certificate[1]),
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    folders = " ".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = tmp_path / "nginx.conf"
    whole.write_text(
        f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log; worker_processes 1; "
        f"{'user root; ' if os.getuid() == 0 else ''}events {{}}\n"
        f"http {{ access_log off; {folders}\n{text}\n}}\n"
    )
    checked = subprocess.run([nginx, "-t", "-c", whole], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    proxy = subprocess.Popen([nginx, "-c", whole], stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: any(port == secure for _, port in listening(proxy.pid)))
        resolved = socket.getaddrinfo

        def here(host, *rest, **options):
            return resolved("127.0.0.1" if host == "tracking.example.com" else host, *rest, **options)

        monkeypatch.setattr(socket, "getaddrinfo", here)
        base = f"https://tracking.example.com:{secure}"
        session = requests.Session()
        session.trust_env = False  # this machine may have certificates of its own
        session.verify = str(certificate[0])
        session.auth = ("admin", "the-admin-password")
        away = session.get(f"http://tracking.example.com:{plain}/x", allow_redirects=False, timeout=30)
        assert (away.status_code, away.headers["Location"]) == (301, "https://tracking.example.com/x")
        page = session.get(base, timeout=30)
        assert "MLflow" in page.text
        assert "max-age" in page.headers["Strict-Transport-Security"]
        own = {"Origin": base}
        made = session.post(
            f"{base}/api/2.0/mlflow/experiments/create", json={"name": "x"}, headers=own, timeout=30
        )
        assert made.ok, made.text
        foreign = {"Origin": "https://evil.example.com"}
        answer = session.post(
            f"{base}/api/2.0/mlflow/experiments/create", json={"name": "y"}, headers=foreign, timeout=30
        )
        assert answer.status_code == 403
        info = session.post(
            f"{base}/api/2.0/mlflow/runs/create",
            json={"experiment_id": made.json()["experiment_id"]},
            timeout=30,
        ).json()["run"]["info"]
        place = (
            f"{base}/api/2.0/mlflow-artifacts/artifacts/{info['experiment_id']}/{info['run_id']}/artifacts"
        )
        content = os.urandom(2_500_000)  # more than nginx lets through by itself
        assert session.put(f"{place}/weights.bin", data=content, timeout=60).ok
        assert session.get(f"{place}/weights.bin", timeout=60).content == content
        assert session.put(f"{place}/more.bin", data=b"x" * 3_500_000, timeout=60).status_code == 413
        session.auth = None
        assert session.get(base, timeout=30).status_code == 401
        # whoever comes through the proxy is not taken for somebody on this machine
        spoofed = session.get(
            f"{base}/ajax-api/3.0/mlflow/assistant/providers/claude_code/health", timeout=30
        )
        assert spoofed.status_code == 404
    finally:
        proxy.send_signal(signal.SIGQUIT)
        proxy.wait(30)
    assert running.end() == 0
