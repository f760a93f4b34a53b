"""Begins sweeps on clusters, and ends what is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.local.local_cluster import LocalCluster
from nfbmr.resolve import dump_yaml
from tests.faults.sweeps import TRIALS, Sweep
from tune.records.paths import SweepPaths

ROOT = Path(__file__).resolve().parents[2]


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

    def begin(
        cluster: LocalCluster, name: str, *more: str, resume: bool = False, **environment: str
    ) -> Sweep:
        arguments = ["--config", str(base), "--space", str(space), "--name", name]
        arguments += ["--trials", str(TRIALS), "--no-prune", "--sampler", "random"]
        if resume:
            arguments = ["--output", str(config.output), "--resume", name]
        process = subprocess.Popen(
            [sys.executable, "-m", "tune", "sweep", *arguments, *more, "--json"],
            cwd=tmp_path,
            env={
                **os.environ,
                **cluster.environment,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                **environment,
            },
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
