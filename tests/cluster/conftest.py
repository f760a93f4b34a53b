"""One private cluster of two nodes, for every test that needs a job server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local.local_cluster import LocalCluster, down, up


@pytest.fixture(scope="session")
def private_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Started as ``nfbmr cluster up --nodes 2 --cpus 1`` does, and ended by process id."""
    folder: Path = tmp_path_factory.mktemp("private") / "cluster"
    try:
        yield up(2, 1, folder=folder, seconds=280)
    finally:
        down(folder)


@pytest.fixture
def on_cluster(private_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """The cluster, with this process's environment pointing to it, as after ``source env.sh``."""
    for name, value in private_cluster.environment.items():
        monkeypatch.setenv(name, value)
    return private_cluster
