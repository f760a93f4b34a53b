"""Private clusters, and sweeps on them in processes of their own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.local import local_cluster as local
from cluster.local.local_cluster import LocalCluster
from tune.records.paths import SweepPaths
from tune.verify import verify

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
