"""Commands as jobs, on a real job server of a private cluster of two nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.jobs import Jobs, JobServer
from cluster.local import ClusterError, LocalCluster
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
    code, done, messages = run(capsys, "submit", "--", "train", "--config", str(recipe))
    assert code == 0, messages
    assert done["state"] == "SUCCEEDED"
    assert done["command"].startswith("nfbmr train")
    summaries = list((tmp_path / "runs").glob("*/summary.json"))
    assert len(summaries) == 1
    assert "preflight of" in messages
    assert "image_auroc" in messages  # the job's own log
    assert main(["jobs", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["jobs"]
    assert done["job"] in [job["job"] for job in listed]
    assert main(["jobs", "logs", done["job"]]) == 0
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
    before = {job.job_id for job in Jobs().all()}
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
    code, told, messages = run(capsys, "submit", "--", *words)
    assert code == 2
    found = "\n".join(problem["what"] for problem in told["preflight"]["problems"])
    assert len(told["preflight"]["problems"]) == 3
    assert all(
        part in found for part in ("missing is not there", "4 GPU", "http://127.0.0.1:9 is not reached")
    )
    assert told["error"]["type"] == "PreflightError"
    assert "nothing was submitted" in messages
    assert all(name.startswith("preflight") for name in {job.job_id for job in Jobs().all()} - before)


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
        [sys.executable, "-m", "nfbmr.cli.main", "jobs", "logs", "--follow", job],
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
    assert Jobs().get(job).state == "RUNNING"

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
    code, done, messages = run(capsys, "submit", "--no-preflight", "--", *words)
    assert (code, done["state"], done["exit_code"]) == (2, "FAILED", 2)
    assert "missing" in messages


@pytest.mark.slow
def test_plain_ray_job_submit(on_cluster: LocalCluster, recipe: Path, tmp_path: Path) -> None:
    entrypoint = ["python", "-m", "tune", "train", "--config", str(recipe)]
    ray = str(Path(sys.executable).with_name("ray"))
    done = subprocess.run(
        [ray, "job", "submit", "--working-dir", ".", "--", *entrypoint],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
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
    with pytest.raises(ClusterError, match="cannot be read"):
        Jobs()


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
    JobServer.choose("http://example.com:8265", folder=tmp_path)
    assert "can be read on the way" in caplog.text
    with pytest.raises(ClusterError, match="not the address"):
        JobServer.choose("ray://localhost:10001", folder=tmp_path)


def test_the_private_cluster_of_this_folder_is_found(
    private_cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.local import _remember

    for name in private_cluster.environment:
        monkeypatch.delenv(name, raising=False)
    _remember(private_cluster, tmp_path)
    server = JobServer.choose(folder=tmp_path)
    assert server.address == private_cluster.dashboard
    assert server.token == private_cluster.token.read_text(encoding="utf-8")
