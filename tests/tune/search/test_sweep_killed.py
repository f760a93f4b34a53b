"""A sweep whose driver is killed or interrupted, in a process of its own, goes on and runs nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from nfbmr.resolve import dump_yaml
from tune.records.paths import SweepPaths
from tune.search.plan import SweepPlan
from tune.search.sweep import execute_sweep


def start(config_file: Path, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tune", "sweep", "--config", str(config_file), "--local", *arguments]
    root = str(Path(__file__).resolve().parents[3])
    return subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.05)


@pytest.fixture
def long_sweep(tmp_path, tiny_config):
    """A configuration file and arguments of a sweep that takes some seconds a trial."""
    config = tiny_config(tmp_path)
    file, space = tmp_path / "base.yaml", tmp_path / "space.yaml"
    file.write_text(dump_yaml(config))
    space.write_text("mapping.latent: {int: [4, 64], log: true}\nflow.hidden: {choice: [4, 8]}\n")
    arguments = ["--space", str(space), "--name", "killed", "--trials", "5", "--no-prune"]
    arguments += ["--set", "train.mapping.epochs=12"]
    return file, arguments, SweepPaths(config.output / "killed"), tmp_path


@pytest.mark.slow
def test_after_kill_9_of_the_driver_the_sweep_goes_on_and_runs_nothing_twice(long_sweep):
    file, arguments, paths, cwd = long_sweep
    process = start(file, *arguments, cwd=cwd)
    wait_for(RunPaths(paths.trial(2)).config.exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {
        n: (RunPaths(paths.trial(n)).fitted.stat().st_mtime_ns, _searched(paths, n))
        for n in range(5)
        if RunPaths(paths.trial(n)).fitted.exists()
    }
    assert {0, 1} <= finished.keys()
    begun = _searched(paths, 2)

    summary = execute_sweep(SweepPlan.read(paths.plan), paths).as_json()
    assert summary["trials"] == {"asked": 5, "finished": 5, "pruned": 0, "failed": 0, "unfinished": 0}
    assert sorted(path.name for path in (paths.root / "trials").iterdir()) == [f"{n:04d}" for n in range(5)]
    for number, (written, searched) in finished.items():
        assert RunPaths(paths.trial(number)).fitted.stat().st_mtime_ns == written
        assert _searched(paths, number) == searched
    assert _searched(paths, 2) == begun
    assert read_record(RunPaths(paths.trial(2)).journal).status == "finished"
    assert read_record(paths.journal).status == "finished"


def _searched(paths: SweepPaths, number: int) -> str:
    return RunPaths(paths.trial(number)).config.read_text()


@pytest.mark.slow
def test_ctrl_c_checkpoints_and_says_how_to_go_on(long_sweep):
    file, arguments, paths, cwd = long_sweep
    process = start(file, *arguments, "--set", "train.mapping.epochs=2000", cwd=cwd)
    wait_for(RunPaths(paths.trial(0)).checkpoints("mapping").exists, process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "nfbmr sweep --resume" in told
    assert read_record(RunPaths(paths.trial(0)).journal).status == "killed"
    assert read_record(paths.journal).status == "killed"
