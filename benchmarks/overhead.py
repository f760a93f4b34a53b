"""What a sweep costs beside its arithmetic: 16 trials of about 20 s.

Run ``python -m benchmarks.overhead`` (``--quick`` for a look). The bare way runs the same trials one
after another in this process: no Ray, no tracker, one thread; divided by the trials at a time that is what a
sweep without overhead would take. The sweep runs them on Ray with reused actors and journals. Both find the
features in the store; no flow is shared, because every trial has its own learning rate. As many epochs as by
default, and as many images as make a trial that long. Goal: 1.15 or less.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a trial has one thread, here as there

import nfbmr
from cluster.connection import connect
from nfbmr.config import Config
from nfbmr.data.synthesize import CLASSES, synthesize
from nfbmr.machine import usable_cores
from nfbmr.run import execute_run, new_run
from nfbmr.stopping import StopRequest
from nfbmr.tracking import NoTracker
from tune.execution.execute import execute
from tune.execution.settings import Execution
from tune.execution.trial_spec import TrialResult, TrialSpec

FEW = 60
"""Images of the trial that tells how long others are going to take."""


class Listed:
    """Hands out a list of tasks and prunes none."""

    def __init__(self, tasks: list[TrialSpec]) -> None:
        self._left = list(tasks)
        self.outcomes: list[TrialResult] = []

    def next(self) -> TrialSpec | None:
        """The next of the list."""
        return self._left.pop(0) if self._left else None

    def report(self, key: str, step: int, metrics: Mapping[str, float]) -> bool:
        """Go on."""
        return False

    def done(self, outcome: TrialResult) -> None:
        """Remember it."""
        self.outcomes.append(outcome)


def measure(*, trials: int, seconds: float) -> dict[str, Any]:
    """Seconds of both ways.

    Args:
        trials: How many.
        seconds: About how long one is to take.
    """
    at_a_time = usable_cores()
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder:
        root = Path(folder)
        few = images_in(root / "few", FEW)
        probe = configuration(few, root / "probes", number=0)
        bare(probe, root / "first")  # features are made, files and libraries are read
        took = bare(probe.model_copy(update={"seed": 1}), root / "probe")
        count = round(FEW * seconds / took)
        data, bare_store = images_in(root / "data", count), root / "store"
        bare(configuration(data, bare_store, number=1), root / "warm")
        store = root / "store of the sweep"
        shutil.copytree(bare_store, store, ignore=shutil.ignore_patterns("stages"))
        configs = [configuration(data, bare_store, number=10 + i) for i in range(trials)]
        alone = [bare(config, root / "bare" / str(i)) for i, config in enumerate(configs)]
        tasks = [
            TrialSpec(
                f"{i:04d}",
                c.model_copy(update={"store": store}),
                root / "sweep" / str(i),
                f"s-{i}",
                f"{i}",
                "s",
            )
            for i, c in enumerate(configs)
        ]
        started = time.perf_counter()
        with connect("local", cpus=at_a_time):
            connected = time.perf_counter()
            planner = Listed(tasks)
            execute(planner, Execution(), StopRequest(), stop_file=root / "sweep" / "stop")
            swept = time.perf_counter()
    states = {outcome.state for outcome in planner.outcomes}
    if states != {"finished"}:
        raise RuntimeError(f"trials ended as {states}: {planner.outcomes}")
    ideal = sum(alone) / at_a_time
    inside = sum(outcome.seconds for outcome in planner.outcomes) / at_a_time
    return {
        "trials": trials,
        "at_a_time": at_a_time,
        "images": count,
        "bare_seconds_a_trial": sum(alone) / trials,
        "ideal_seconds": ideal,
        "ray_start_seconds": connected - started,
        "sweep_seconds": swept - connected,
        "ratio": (swept - connected) / ideal,
        "ratio_with_ray_start": (swept - started) / ideal,
        "between_trials_seconds": (swept - connected - inside) * at_a_time / trials,
        "goal": 1.15,
    }


def images_in(folder: Path, count: int) -> Path:
    """A small data set with so many good training images."""
    return synthesize(folder, classes=CLASSES[:1], train=count, test_good=4, test_defective=4, size=192)


def configuration(data: Path, store: Path, *, number: int) -> Config:
    """Of a trial; its learning rate is its own, so that it shares no flow."""
    return nfbmr.configure(
        settings={
            "data.path": str(data),
            "store": str(store),
            "train.flow.lr": 1e-3 * (1 + number / 1000),
            "features.size": 192,
            "features.compute": "fp32",
            "flow.hidden": 32,
            "flow.kernels": [3],
            "mapping.latent": 32,
            "train.precision": "fp32",
            "tracking.kind": "folder",
        }
    )


def bare(config: Config, folder: Path) -> float:
    """Seconds of a trial's stages, in this process and with nobody told."""
    run = replace(new_run(config, folder=folder), run_id="bare")
    started = time.perf_counter()
    execute_run(run, lambda _: NoTracker(), StopRequest(), test=False)
    return time.perf_counter() - started


def table(result: Mapping[str, Any]) -> str:
    """The result for people."""
    return "\n".join(
        [
            f"| {result['trials']} trials of {result['bare_seconds_a_trial']:.1f} s, "
            f"{result['at_a_time']} at a time | seconds | ratio |",
            "|---|---|---|",
            f"| the stages alone, divided by {result['at_a_time']} | {result['ideal_seconds']:.1f} | 1.00 |",
            f"| the sweep | {result['sweep_seconds']:.1f} | {result['ratio']:.2f} |",
            f"| the sweep, and starting Ray | {result['sweep_seconds'] + result['ray_start_seconds']:.1f} "
            f"| {result['ratio_with_ray_start']:.2f} |",
            f"| between two trials, actors' start shared out | {result['between_trials_seconds']:.2f} | |",
        ]
    )


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short trials")
    quick = parser.parse_args().quick
    result = measure(trials=4, seconds=2) if quick else measure(trials=16, seconds=20)
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
