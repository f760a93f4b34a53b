"""Commands as jobs, on a real job server of a private cluster of two nodes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster.auth_token import TokenError, may_show, read_token
from cluster.jobs.client import Jobs
from cluster.jobs.job_server import JobServer
from cluster.local.local_cluster import ClusterError, LocalCluster
from nfbmr.cli.main import main
from nfbmr.resolve import dump_yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(tiny: Callable[..., Any], tmp_path: Path) -> Path:
    """A configuration file that trains in a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(tiny(features__weights="random")), encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """The exit code, the JSON document and the messages of a command."""
    code = main([*words[:1], *(["--json"] if words[0] == "submit" else []), *words[1:]])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else None, captured.err


def wait_for(job: str, text: str, seconds: float = 120.0) -> str:
    jobs, deadline = Jobs(), time.monotonic() + seconds
    while text not in (log := jobs.logs(job)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert text in log
    return log


def test_a_run_as_a_job(
    on_cluster: LocalCluster, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, messages = run(capsys, "submit", "--", "train", "--config", str(recipe))
    assert code == 0, messages
    assert printed["state"] == "SUCCEEDED"
    assert printed["command"].startswith("nfbmr train")
    summaries = list((tmp_path / "runs").glob("*/summary.json"))
    assert len(summaries) == 1
    assert "preflight of" in messages
    assert "image_auroc" in messages  # the job's own log
    assert main(["jobs", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["jobs"]
    assert printed["job"] in [job["job"] for job in listed]
    assert main(["jobs", "logs", printed["job"]]) == 0
    assert "image_auroc" in capsys.readouterr().out
    # the next one knows how long such a run takes
    code, checked, _ = run(capsys, "submit", "--dry-run", "--", "train", "--config", str(recipe))
    assert code == 0
    assert checked["preflight"]["trials_per_hour"] > 0
    assert checked["preflight"]["at_once"] == 2
    assert len(checked["preflight"]["nodes"]) == 2


def test_all_that_would_not_work_is_said_and_nothing_is_submitted(
    on_cluster: LocalCluster, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {job.submission_id for job in Jobs().all()}
    words = [
        "sweep",
        "--config",
        str(recipe),
        "--data",
        str(tmp_path / "missing"),
        "--resources",
        "cpu=1,gpu=4",
    ]
    words += ["--set", "tracking.kind=mlflow", "--set", "tracking.uri=http://127.0.0.1:9"]
    code, printed, messages = run(capsys, "submit", "--", *words)
    assert code == 2
    found = "\n".join(problem["what"] for problem in printed["preflight"]["problems"])
    assert len(printed["preflight"]["problems"]) == 3
    assert all(
        part in found for part in ("missing is not there", "4 GPU", "http://127.0.0.1:9 is not reached")
    )
    assert printed["error"]["type"] == "PreflightError"
    assert "nothing was submitted" in messages
    assert all(name.startswith("preflight") for name in {job.submission_id for job in Jobs().all()} - before)


@pytest.mark.slow
def test_a_job_that_is_stopped_writes_its_checkpoint_and_can_be_gone_on_with(
    on_cluster: LocalCluster, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = ["--config", str(recipe), "--set", "train.flow.epochs=100000"]
    code, submitted, _ = run(capsys, "submit", "--no-preflight", "--no-follow", "--", "train", *long)
    assert code == 0
    job = submitted["job"]
    wait_for(job, "stage flow, epoch")

    # Ctrl-C ends the following, not the job
    with subprocess.Popen(
        [sys.executable, "-m", "nfbmr", "jobs", "logs", "--follow", job],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stderr is not None
        while "stage flow" not in watching.stderr.readline():
            pass
        watching.send_signal(signal.SIGINT)
        rest = watching.stderr.read()
        assert watching.wait() == 130
    assert f"nfbmr jobs stop {job}" in rest
    assert Jobs().get(job).status == "RUNNING"

    assert main(["jobs", "stop", job, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "STOPPED"
    assert "what is done is kept" in Jobs().logs(job)
    (folder,) = (tmp_path / "runs").iterdir()
    assert list((tmp_path / "store").rglob("*.safetensors")) or list(folder.rglob("*.safetensors"))
    assert main(["jobs", "logs", "--follow", job]) == 130


@pytest.mark.slow
def test_a_command_that_fails_there_fails_here(
    on_cluster: LocalCluster, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--config", str(recipe), "--data", str(tmp_path / "missing")]
    code, printed, messages = run(capsys, "submit", "--no-preflight", "--", *words)
    assert (code, printed["state"], printed["exit_code"]) == (2, "FAILED", 2)
    assert "missing" in messages


@pytest.mark.slow
def test_plain_ray_job_submit(on_cluster: LocalCluster, recipe: Path, tmp_path: Path) -> None:
    entrypoint = ["python", "-m", "tune", "train", "--config", str(recipe)]
    ray = str(Path(sys.executable).with_name("ray"))
    completed = subprocess.run(
        [ray, "job", "submit", "--working-dir", ".", "--", *entrypoint],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert list((tmp_path / "runs").glob("*/summary.json"))


def test_errors_say_what_to_do(
    on_cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError, match="nfbmr jobs list"):
        Jobs().get("no-such-job")
    with pytest.raises(ClusterError, match="no job server answers"):
        Jobs("http://127.0.0.1:9")
    wrong = tmp_path / "token"
    wrong.write_text("wrong", encoding="utf-8")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(wrong))
    with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN_PATH"):
        Jobs()
    wrong.unlink()
    with pytest.raises(TokenError, match="cannot be read"):
        Jobs()


@pytest.fixture
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder where Ray has written no token yet, and no word of one in the environment; the file."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".ray" / "auth_token"


def test_the_token_that_ray_wrote_is_used_for_jobs_as_for_drivers(
    private_cluster: LocalCluster, no_token: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(ClusterError, match=r"wants a(.|\n)*RAY_AUTH_TOKEN_PATH"):
        Jobs(private_cluster.dashboard)
    no_token.parent.mkdir()
    no_token.write_text(private_cluster.token.read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["jobs", "list", "--address", private_cluster.dashboard]) == 0
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    program = (
        "from cluster.connection import connect\n"
        "with connect({!r}) as cluster:\n"
        "    cpus = cluster.resources()['CPU']\n"
        "print(cpus)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program.format(private_cluster.address)],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    assert float(completed.stdout.splitlines()[-1]) == 2


def test_a_token_that_is_named_and_not_there_is_refused(
    no_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_token() is None
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(TokenError, match=r"auth_token(.|\n)*RAY_AUTH_TOKEN_PATH"):
        read_token()
    no_token.parent.mkdir()
    no_token.write_text("\n", encoding="utf-8")
    with pytest.raises(TokenError, match="empty"):
        read_token()
    no_token.write_text("abc\n", encoding="utf-8")
    assert read_token() == "abc"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert read_token() is None


def test_a_token_stays_on_this_machine_unless_it_is_encrypted() -> None:
    here = socket.gethostbyname(socket.gethostname())
    for host in ("localhost", "127.0.0.1", "127.3.2.1", "::1", "[::1]", here):
        assert may_show(host, encrypted=False)
    for host in ("192.0.2.1", "example.invalid", "2001:db8::1"):
        assert not may_show(host, encrypted=False)
        assert may_show(host, encrypted=True)


def test_ray_sends_no_token_by_itself_where_none_may_go(no_token: Path) -> None:
    shown: list[str | None] = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers["Authorization"])
            self.send_error(404)

        def log_message(self, *words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listening) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = "from cluster.jobs.job_server import JobServer; JobServer({!r}).client()"
        subprocess.run(
            [sys.executable, "-c", program.format(f"http://127.0.0.1:{server.server_port}")],
            env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "s3cret", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        server.shutdown()
    assert shown
    assert not any("s3cret" in (header or "") for header in shown)


def test_which_job_server_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (
        "RAY_ADDRESS",
        "RAY_API_SERVER_ADDRESS",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_AUTH_MODE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ClusterError, match="nfbmr cluster up"):
        JobServer.choose(folder=tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")  # for drivers, not for jobs
    with pytest.raises(ClusterError, match="nfbmr cluster up"):
        JobServer.choose(folder=tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "http://localhost:1")
    assert JobServer.choose(folder=tmp_path).address == "http://localhost:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://localhost:2/")
    assert JobServer.choose(folder=tmp_path).address == "http://localhost:2"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
    assert JobServer.choose("localhost:3", folder=tmp_path) == JobServer("http://localhost:3", "abc")
    assert "abc" not in repr(JobServer.choose(folder=tmp_path))
    assert not caplog.records
    assert JobServer.choose("https://example.com", folder=tmp_path).token == "abc"
    assert not caplog.records
    assert JobServer.choose("http://example.invalid:8265", folder=tmp_path).token is None
    assert "all that is sent can be read on the way" in caplog.text
    assert "the token is not sent there" in caplog.text
    with pytest.raises(ClusterError, match="not the address"):
        JobServer.choose("ray://localhost:10001", folder=tmp_path)


def test_the_private_cluster_of_this_folder_is_found(
    private_cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.local.local_cluster import _remember

    for name in private_cluster.environment:
        monkeypatch.delenv(name, raising=False)
    _remember(private_cluster, tmp_path)
    server = JobServer.choose(folder=tmp_path)
    assert server.address == private_cluster.dashboard
    assert server.token == private_cluster.token.read_text(encoding="utf-8")
