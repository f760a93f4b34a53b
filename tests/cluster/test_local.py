"""A private cluster: on loopback, behind a token, and gone without a trace when it is ended."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from cluster.jobs.client import Jobs
from cluster.jobs.upload import Upload
from cluster.local import local_cluster as local
from cluster.local.local_cluster import ClusterError, LocalCluster, has_mark, marked
from nfbmr.cli.main import main


def processes_of(cluster: LocalCluster) -> list[psutil.Process]:
    return marked(cluster.mark)


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.2)
    return true()


def listening(process: psutil.Process) -> set[str]:
    try:
        connections = process.net_connections("inet")
    except psutil.Error:
        return set()
    return {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}


def test_it_listens_on_loopback_alone(private_cluster: LocalCluster) -> None:
    heard = {ip for process in processes_of(private_cluster) for ip in listening(process)}
    assert heard
    assert heard <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_it_asks_for_a_token_that_only_its_owner_can_read(private_cluster: LocalCluster) -> None:
    assert stat.S_IMODE(private_cluster.token.stat().st_mode) == 0o600
    assert stat.S_IMODE(private_cluster.home.stat().st_mode) == 0o700
    url = f"{private_cluster.dashboard}/api/jobs/"
    assert requests.get(url, timeout=10).status_code == 401
    assert requests.get(url, headers={"Authorization": "Bearer wrong"}, timeout=10).status_code == 403
    token = private_cluster.token.read_text(encoding="utf-8")
    assert requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code == 200
    assert token not in json.dumps(asdict(private_cluster), default=str)
    assert all(token not in " ".join(process.cmdline()) for process in processes_of(private_cluster))


def test_drivers_without_the_token_are_refused(private_cluster: LocalCluster, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0" * 48, encoding="utf-8")
    environment = os.environ | private_cluster.environment | {"RAY_AUTH_TOKEN_PATH": str(wrong)}
    program = "import ray; ray.init(); print('joined')"
    completed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode != 0
    assert "joined" not in completed.stdout


def test_status_says_what_there_is_and_what_to_export(
    private_cluster: LocalCluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    local._remember(private_cluster, folder)
    assert main(["cluster", "status", "--folder", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [node["alive"] for node in shown["nodes"]] == [True, True]
    assert eventually(lambda: local.usage(private_cluster).get("CPU", (0, 0))[1] == 2)
    assert main(["cluster", "status", "--folder", str(folder)]) == 0
    assert f"source {folder / 'env.sh'}" in capsys.readouterr().out
    exported = subprocess.run(
        ["bash", "-c", f"source {folder / 'env.sh'} && env"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {f"{name}={value}" for name, value in private_cluster.environment.items()} <= set(exported)


def test_where_there_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = ["--folder", str(tmp_path / "none")]
    assert main(["cluster", "status", *folder]) == 1
    assert "nfbmr cluster up" in capsys.readouterr().out
    assert main(["cluster", "down", *folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ended": []}
    assert main(["cluster", "add", *folder]) == 2


def test_a_damaged_memory_is_told(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ClusterError, match="cannot be read"):
        local.find(tmp_path)


def test_two_commands_at_once_do_not_meet(tmp_path: Path) -> None:
    with local._locked(tmp_path), pytest.raises(ClusterError, match="another command"):
        local.down(tmp_path)


def test_the_environment_of_others_does_not_leak_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "other")
    environment = local._environment(LocalCluster(tmp_path, "mark"), 0, 0)
    assert not {"RAY_ADDRESS", "RAY_AUTH_TOKEN"} & environment.keys()
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


def test_each_node_has_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def gpus(number: int) -> Any:
        return local._environment(LocalCluster(tmp_path, "mark"), number, 2)["CUDA_VISIBLE_DEVICES"]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7,8")
    assert [gpus(0), gpus(1)] == ["3,5", "7,8"]
    with pytest.raises(ClusterError, match="4 are visible"):
        gpus(2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus(1) == "2,3"


def test_a_node_that_does_not_start_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    before = set(Path("/tmp").glob("nfbmr-*"))
    with pytest.raises(ClusterError, match="node 0 ended; the last it said"):
        local.up(1, 1, folder=tmp_path / "cluster", object_store=1)
    assert local.find(tmp_path / "cluster") is None
    new = set(Path("/tmp").glob("nfbmr-*")) - before
    assert not [path for path in new if (path / "node-0.log").exists()]


@pytest.mark.slow
def test_a_start_that_is_killed_half_way_leaves_no_process(tmp_path: Path) -> None:
    starting = subprocess.Popen(
        [sys.executable, "-m", "nfbmr", "cluster", "up", "--nodes", "2", "--cpus", "1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.DEVNULL,
    )
    here = psutil.Process(starting.pid)
    assert eventually(lambda: any(child.name() == "gcs_server" for child in here.children(recursive=True)))
    family = here.children(recursive=True)
    words = here.children()[0].cmdline()
    home = Path(words[words.index("--temp-dir") + 1]).parent
    starting.send_signal(signal.SIGKILL)
    starting.wait()
    assert eventually(lambda: not any(process.is_running() for process in family))
    assert eventually(lambda: not home.exists())


@pytest.mark.slow
def test_a_life(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--folder", str(tmp_path / "cluster")]
    patient = ["--start-timeout", "280", *folder, "--json"]
    assert main(["cluster", "up", "--nodes", "1", "--cpus", "1", *patient]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["cluster", "up", *folder]) == 2
    assert first["dashboard"] in capsys.readouterr().err

    assert main(["cluster", "add", "--cpus", "3", *patient]) == 0
    cluster = local.require(tmp_path / "cluster")
    assert [node.cpus for node in cluster.nodes] == [1, 3]
    assert eventually(lambda: local.usage(cluster).get("CPU", (0, 0))[1] == 4)

    # the second node's raylet is killed: `ray start` ends what is left of it, and the head stays
    os.kill(cluster.nodes[1].processes["raylet"], signal.SIGKILL)
    assert eventually(lambda: not has_mark(cluster.nodes[1].processes["node"], cluster.mark))
    assert cluster.alive
    assert not cluster.running(cluster.nodes[1])

    # the head's `ray start` is killed outright: nothing of it lives on, and `down` clears away what it left
    os.kill(cluster.nodes[0].processes["node"], signal.SIGKILL)
    assert eventually(lambda: not cluster.alive)
    assert main(["cluster", "status", *folder]) == 1
    assert "gone" in capsys.readouterr().out
    assert main(["cluster", "down", *folder]) == 0
    assert processes_of(cluster) == []
    assert not cluster.home.exists()
    assert local.find(tmp_path / "cluster") is None


WORK = """
import os, ray
ray.init(logging_level="error")
print("waiting", flush=True)

@ray.remote(num_cpus=3)
def there():
    return os.path.exists("work.py")

here = os.path.join(os.getcwd(), "work.py")
print("there", ray.get(there.remote()), "here", os.path.exists(here), flush=True)
"""


@pytest.mark.slow
def test_a_node_that_comes_later_leaves_a_running_job_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cluster"
    cluster = local.up(1, 1, folder=folder, seconds=280)
    try:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "work.py").write_text(WORK)
        jobs = Jobs()
        command = f"{sys.executable} work.py"
        job = jobs.submit(command, Upload({"work.py": tmp_path / "work.py"}), name="work", environment={})
        assert eventually(lambda: "waiting" in jobs.logs(job), 120)
        local.add(1, 3, folder=folder, seconds=280)
        assert eventually(lambda: "there" in jobs.logs(job), 120)
        assert "there True here True" in jobs.logs(job)
    finally:
        local.down(folder)
