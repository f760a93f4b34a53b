"""``nfbmr server`` beyond this machine: names and passwords, PostgreSQL's too, and TLS in front."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import psutil
import pytest

from mlflow_server.hosting.settings import Backend, ServerSettings, refuse_shown_password
from nfbmr.errors import ServerError
from tests.hosting.test_server import eventually, listening

EMBEDDED = ServerSettings(Backend("sqlite:////tmp/mlflow.db"), Path("/tmp/mlartifacts"))


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
    completed = call("server", "--port", "0", "--allowed-hosts", "a.example", cwd=tmp_path, check=False)
    assert completed.returncode == 2
    assert "NFBMR_ADMIN_PASSWORD" in completed.stderr
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
    completed = call("server", "--port", "0", "--auth", cwd=tmp_path, check=False)
    assert completed.returncode == 2
    assert "chmod 600" in completed.stderr


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
    completed = call("server", "backup", "saved", cwd=tmp_path, env={"NFBMR_SERVER_BACKEND": full})
    told = (tmp_path / "saved" / "backup.json").read_text() + completed.stdout + completed.stderr
    assert running.end() == 0
    for text in (told, running.said(), json.dumps(running.summary)):
        assert password not in text
        assert "p%40ss" not in text


def test_a_database_that_does_not_answer_is_said_without_its_password(tmp_path, postgres, call):
    wrong = f"postgresql://mlflow:another-password@127.0.0.1:{postgres.port}/postgres"
    nobody = "postgresql://mlflow:another-password@127.0.0.1:1/postgres"
    for address in (wrong, nobody):
        env = {"NFBMR_SERVER_BACKEND": address}
        completed = call("server", "--port", "0", cwd=tmp_path, env=env, check=False)
        assert completed.returncode == 2
        assert "does not answer" in completed.stderr
        assert "another-password" not in completed.stderr + completed.stdout


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
