"""What clusters do to a sweep: nodes that die or come, drivers that are killed, neighbours.

Each is really done, on a private cluster, to a sweep in its own process. Afterwards the result is complete
and all three records agree: the folder, Optuna's journal, and MLflow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.local import local_cluster as local
from cluster.local.local_cluster import LocalCluster
from nfbmr.paths import RunPaths
from nfbmr.resolve import dump_yaml
from tune.records.paths import SweepPaths
from tune.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
TRIALS = 6


@contextmanager
def cluster_of(nodes: int, folder: Path) -> Iterator[LocalCluster]:
    """A private cluster, one processor a node."""
    try:
        yield local.up(nodes, 1, folder=folder, seconds=280)
    finally:
        local.down(folder)


@dataclass
class Sweep:
    """A sweep in a process of its own."""

    paths: SweepPaths
    process: subprocess.Popen[str]

    def trials_begun(self) -> int:
        """Trials that have a folder."""
        return len(list((self.paths.root / "trials").glob("*/config.yaml")))

    def trials_fitted(self) -> int:
        """Trials that have a result."""
        return len(list((self.paths.root / "trials").glob("*/fitted.json")))

    def until(self, condition: Callable[[], bool], seconds: float = 240) -> None:
        """Wait; the sweep has to be alive all the while."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.05)

    def result(self) -> dict:
        """Its summary, once it has ended well."""
        out, told = self.process.communicate(timeout=400)
        assert self.process.returncode == 0, told
        return json.loads(out)


@pytest.fixture
def begin(tmp_path: Path, small: Any) -> Iterator[Callable[..., Sweep]]:
    """Starts a sweep on a cluster; trials of a few seconds."""
    config = small(
        tmp_path,
        features__compute="fp32",
        flow__blocks=1,
        train__flow__epochs=2,
        train__mapping__epochs=60,
        train__checkpoint_every=1,
        train__validate_every=20,
        tracking__kind="mlflow",
        tracking__uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
    )
    base, space = tmp_path / "base.yaml", tmp_path / "space.yaml"
    base.write_text(dump_yaml(config))
    space.write_text("mapping.latent: {int: [4, 64], log: true}\nflow.hidden: {choice: [4, 8]}\n")
    started: list[Sweep] = []

    def begin(cluster: LocalCluster, name: str, *more: str, resume: bool = False) -> Sweep:
        arguments = ["--config", str(base), "--space", str(space), "--name", name]
        arguments += ["--trials", str(TRIALS), "--no-prune", "--sampler", "random"]
        if resume:
            arguments = ["--output", str(config.output), "--resume", name]
        process = subprocess.Popen(
            [sys.executable, "-m", "tune", "sweep", *arguments, *more, "--json"],
            cwd=tmp_path,
            env={**os.environ, **cluster.environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(Sweep(SweepPaths(config.output / name), process))
        return started[-1]

    yield begin
    for sweep in started:
        if sweep.process.poll() is None:
            sweep.process.kill()
            sweep.process.communicate()


def assert_whole(sweep: Sweep, summary: dict, trials: int = TRIALS) -> None:
    """Every trial is finished once, the best was scored once, and all records agree."""
    assert summary["trials"]["finished"] == summary["trials"]["asked"] == trials
    assert summary["best"]["test"]["image_auroc"]["value"] is not None
    assert sweep.trials_fitted() == trials
    tested = list((sweep.paths.root / "trials").glob("*/summary.json"))
    assert len(tested) == 1
    assert verify(sweep.paths).agreed


def raylet(cluster: LocalCluster, number: int) -> psutil.Process:
    """A node's raylet."""
    return psutil.Process(cluster.nodes[number].processes["raylet"])


def test_a_node_that_dies_costs_no_trial(tmp_path, begin):
    with cluster_of(2, tmp_path / "cluster") as cluster:
        sweep = begin(cluster, "node")
        sweep.until(lambda: sweep.trials_fitted() >= 1)
        raylet(cluster, 1).kill()
        assert_whole(sweep, sweep.result())


def test_a_node_that_comes_is_used(tmp_path, begin):
    with cluster_of(1, tmp_path / "cluster") as cluster:
        sweep = begin(cluster, "grows", "--trials", "14")
        sweep.until(lambda: sweep.trials_fitted() >= 1)
        grown = local.add(1, 1, folder=tmp_path / "cluster", seconds=280)

        def works_there() -> bool:
            return any("Trial" in child.name() for child in raylet(grown, 1).children())

        sweep.until(works_there)
        assert_whole(sweep, sweep.result(), trials=14)


def test_after_kill_9_of_the_driver_the_sweep_goes_on_where_it_was(tmp_path, begin):
    with cluster_of(2, tmp_path / "cluster") as cluster:
        sweep = begin(cluster, "driver")
        sweep.until(lambda: sweep.trials_fitted() >= 2 and sweep.trials_begun() > sweep.trials_fitted())
        sweep.process.send_signal(signal.SIGKILL)
        sweep.process.communicate()
        done = {path: path.stat().st_mtime_ns for path in sweep.paths.root.glob("trials/*/fitted.json")}
        again = begin(cluster, "driver", resume=True)
        assert_whole(again, again.result())
        assert all(path.stat().st_mtime_ns == written for path, written in done.items())


def test_two_sweeps_at_once_share_a_store_and_a_server(tmp_path, begin):
    with cluster_of(2, tmp_path / "cluster") as cluster:
        one, other = begin(cluster, "one"), begin(cluster, "other")
        for sweep in (one, other):
            assert_whole(sweep, sweep.result())
        # Both searched the same two widths of the flow, so there are two flows, whoever trained them.
        assert len(list((tmp_path / "store" / "flows").glob("*/flow.json"))) == 2


def test_trials_that_diverge_are_told_and_do_not_end_the_others(tmp_path, begin):
    with cluster_of(2, tmp_path / "cluster") as cluster:
        space = tmp_path / "diverging.yaml"
        space.write_text("train.mapping.lr: {choice: [1.0e-3, 1.0e+8]}\n")
        starts = ("--start", "train.mapping.lr=1e-3", "--start", "train.mapping.lr=1e8")
        sweep = begin(cluster, "diverges", "--space", str(space), "--trials", "2", *starts)
        summary = sweep.result()
        assert (summary["trials"]["finished"], summary["trials"]["failed"]) == (1, 1)
        assert verify(sweep.paths).agreed
        failed = RunPaths(sweep.paths.trial(1))
        assert not failed.fitted.exists()
