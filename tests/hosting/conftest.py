"""Real servers on loopback, and a real PostgreSQL, started and ended by process id."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import requests

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
ROOT = Path(__file__).resolve().parents[2]
ADMIN_PASSWORD = "the-admin-password"
START_SECONDS = 600.0


@dataclass
class Running:
    """A server that runs."""

    process: subprocess.Popen[str]
    summary: Mapping[str, Any]
    log: Path
    folder: Path
    users: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(self.summary["address"])

    def said(self) -> str:
        """Everything on its standard error."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ask(self, method: str, path: str, *, user: str | None = None, **options: Any) -> requests.Response:
        """Plain HTTP, with no client of MLflow's in between."""
        if user is not None:
            options["auth"] = (user, self.users[user])
        options.setdefault("timeout", 60)
        return requests.request(method, f"{self.address}{path}", **options)

    def post(self, path: str, body: Any, user: str | None = None, **options: Any) -> requests.Response:
        return self.ask("POST", f"/api/2.0/mlflow/{path}", user=user, json=body, **options)

    def end(self, number: int = signal.SIGTERM, patience: float = 30.0) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(patience)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "nfbmr", *words]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This one, without what would lead a server or a client elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(
            ("MLFLOW_TRACKING", "NFBMR_SERVER", "NFBMR_ADMIN", "NFBMR_USER", "_MLFLOW", "PG")
        )
    }
    # However busy the machine is that the tests run on.
    patient = {"NFBMR_SERVER_START_TIMEOUT": str(START_SECONDS)}
    settings = {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", **patient}
    return {**kept, **settings, **(extra or {})}


@pytest.fixture(scope="session")
def environment() -> Callable[..., dict[str, str]]:
    """Makes an environment for a process: this one, without what would lead it elsewhere."""
    return clean_environment


@pytest.fixture(scope="session")
def call() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``nfbmr`` in a process of its own."""

    def run(
        *words: str, cwd: Path, env: Mapping[str, str] | None = None, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        completed = subprocess.run(
            command(*words),
            cwd=cwd,
            env=clean_environment(env),
            capture_output=True,
            text=True,
            check=False,
            timeout=options.pop("timeout", 280),
            **options,
        )
        if check and completed.returncode != 0:
            raise AssertionError(f"{words}: {completed.returncode}\n{completed.stdout}\n{completed.stderr}")
        return completed

    return run


@pytest.fixture(scope="session")
def call_watched(call: Callable[..., Any]) -> Callable[..., tuple[Any, set[str]]]:
    """Runs ``nfbmr`` in a process of its own: what it said, and the top-level modules that it imported."""

    def run(*words: str, cwd: Path, **options: Any) -> tuple[Any, set[str]]:
        completed = call(*words, cwd=cwd, env={"PYTHONPROFILEIMPORTTIME": "1"}, **options)
        lines = [line for line in completed.stderr.splitlines() if line.startswith("import time:")]
        return completed, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}

    return run


class Starter:
    """Starts servers, and ends all of them."""

    def __init__(self) -> None:
        self._running: list[Running] = []

    def __call__(
        self, folder: Path, *words: str, env: Mapping[str, str] | None = None, ready: bool = True
    ) -> Running:
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"server-{secrets.token_hex(3)}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                command("server", "--json", "--port", "0", *words),
                cwd=folder,
                env=clean_environment(env),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        running = Running(process, {}, log, folder, {"admin": ADMIN_PASSWORD})
        self._running.append(running)
        if ready:
            running.summary = self._wait(running)
        return running

    @staticmethod
    def _wait(running: Running) -> dict[str, Any]:
        """The document that it prints when it is ready."""
        lines: list[str] = []

        def read() -> None:
            for line in running.process.stdout:
                lines.append(line)
                if line.rstrip() == "}":
                    return

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(START_SECONDS)
        if not lines or lines[-1].rstrip() != "}":
            raise AssertionError(f"the server is not ready: {''.join(lines)}\n{running.said()}")
        said = json.loads("".join(lines))
        assert "address" in said, said
        return said

    def end_all(self) -> None:
        for running in self._running:
            if running.process.poll() is None:
                family = psutil.Process(running.process.pid).children(recursive=True)
                running.process.kill()
                running.process.wait()
                for child in family:
                    if child.is_running():
                        child.kill()
            running.process.stdout.close()


@pytest.fixture(scope="module")
def start() -> Iterator[Starter]:
    starter = Starter()
    yield starter
    starter.end_all()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, start: Starter, call: Callable[..., Any]) -> Running:
    """A server that asks for users: an administrator, a writer and a reader."""
    folder = tmp_path_factory.mktemp("team")
    running = start(
        folder,
        "--allowed-hosts",
        "tracking.example.com",
        "--max-upload",
        "2MB",
        env={"NFBMR_ADMIN_PASSWORD": ADMIN_PASSWORD},
    )
    for name, role in (("rita", "reader"), ("wim", "writer")):
        running.users[name] = f"{name}-has-a-password"
        call(
            "server", "users", "add", name, "--role", role, cwd=folder,
            env={"NFBMR_USER_PASSWORD": running.users[name]},
        )  # fmt: skip
    return running


# PostgreSQL


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL on loopback, run by a user that is not root."""

    port: int
    password: str
    binaries: Path

    def database(self) -> tuple[str, dict[str, str]]:
        """A new, empty database: its address without a password, and the environment that has it."""
        name = f"db_{secrets.token_hex(4)}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return f"postgresql://mlflow@127.0.0.1:{self.port}/{name}", {"PGPASSWORD": self.password}

    def sql(self, database: str, words: str) -> str:
        completed = subprocess.run(
            [
                self.binaries / "psql",
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
                "-U",
                "mlflow",
                "-d",
                database,
                "-v",
                "ON_ERROR_STOP=1",
                "-Atc",
                words,
            ],
            env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=True,
        )
        return completed.stdout.strip()

    def full(self, address: str) -> str:
        """The address with the password in it."""
        return address.replace("mlflow@", f"mlflow:{quote(self.password, safe='')}@")


@pytest.fixture
def start_on(start: Starter, request: pytest.FixtureRequest) -> Callable[..., tuple[Running, str]]:
    """Starts a server on one of the two databases; it and the database's address, password included."""

    def start_server(kind: str, folder: Path, *words: str) -> tuple[Running, str]:
        if kind == "sqlite":
            return start(folder, *words), f"sqlite:///{folder / 'mlflow.db'}"
        postgres = request.getfixturevalue("postgres")
        address, env = postgres.database()
        return start(folder, "--backend", address, *words, env=env), postgres.full(address)

    return start_server


def postgres_binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The real thing; its data are on disk, and are written as it writes them anywhere."""
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (its programs postgres, initdb and pg_dump)")
    pytest.importorskip("psycopg")
    home = Path(tempfile.mkdtemp(prefix="nfbmr-postgres-"))
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:
        account = next((each for each in pwd.getpwall() if each.pw_name in ("postgres", "nobody")), None)
        if account is None:
            pytest.skip("there is no user that PostgreSQL could run as: it does not run as root")
        os.chown(home, account.pw_uid, account.pw_gid)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    # signs that have a meaning in addresses and in configuration files
    password = f"p@ss%2F:{secrets.token_hex(6)}"
    secret = home / "password"
    secret.write_text(password)
    secret.chmod(0o644)
    data = home / "data"
    server = None
    try:
        subprocess.run(
            [binaries / "initdb", "--pgdata", data, "--username", "mlflow", "--pwfile", secret,
             "--auth", "scram-sha-256", "--encoding", "UTF8"],
            check=True, capture_output=True, cwd=home, **as_user,
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-p", str(port), "-k", home, "-h", "127.0.0.1"],
                stdout=log, stderr=log, cwd=home, **as_user,
            )  # fmt: skip
        running = Postgres(port, password, binaries)
        deadline = time.monotonic() + 60
        while True:
            try:
                running.sql("postgres", "SELECT 1")
                break
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise AssertionError((home / "log").read_text()) from None
                time.sleep(0.2)
        yield running
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            server.wait(60)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """An S3 server on loopback with a bucket, ``parts``; the environment that names it."""
    pytest.importorskip("moto")
    program = ROOT / "tests" / "features" / "s3_server.py"
    server = subprocess.Popen(
        [sys.executable, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    endpoint = server.stdout.readline().strip()
    named = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "user",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    assert requests.put(f"{endpoint}/parts", timeout=30).ok
    yield named
    server.communicate()  # its input closes, and it ends


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """Finds loopback ports on which nobody listens."""

    def find(number: int) -> list[int]:
        probes = [socket.socket() for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [int(probe.getsockname()[1]) for probe in probes]
        for probe in probes:
            probe.close()
        return ports

    return find
