"""Many trials and many nodes: what placing a trial costs, and what the driver keeps of it.

Run ``python -m benchmarks.scale`` (``--quick`` for a look). Trials do nothing, or sleep, inside all that a
trial has around it: a run folder, a journal, an actor that it takes over, an outcome. Goals: a trial costs
the same at the end as at the beginning, on one node as on eight; and the driver's memory is bounded.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil

from cluster.connection import OBJECT_STORE_BYTES, connect
from cluster.ray_environment import environment
from nfbmr.config import Config
from nfbmr.evaluation.summary import DatasetFacts, RunSummary, SelectionFacts
from nfbmr.run import Run
from nfbmr.stopping import StopRequest
from nfbmr.tracking import Tracker
from tune.execution.settings import Execution
from tune.execution.stop_condition import StopCondition
from tune.execution.trial_spec import TrialResult, TrialSpec


@dataclass(frozen=True)
class Sleep:
    """A run that takes its time and does nothing."""

    seconds: float = 0.0

    def __call__(
        self,
        run: Run,
        tracking: Callable[[Run], Tracker],
        stop: StopRequest,
        *,
        test: bool,
        on_epoch: Callable[[str, int, Mapping[str, float]], None] | None,
    ) -> RunSummary:
        """Sleep, and report one epoch."""
        tracker = tracking(run)
        time.sleep(self.seconds)
        if on_epoch is not None:
            on_epoch("flow", 1, {"objective": 0.5})
        tracker.finish()
        nothing = SelectionFacts(
            on="validation", auroc=None, parts=(), weights=(), reduction="", false_reject_rate=0.05
        )
        return RunSummary(
            run_id=run.run_id,
            run_dir=str(run.paths.root),
            method=run.config.method,
            dataset=DatasetFacts(name="none"),
            split="none",
            seed=run.config.seed,
            test_peeked=False,
            metrics={},
            threshold=0.0,
            selection=nothing,
            timings={},
            config={},
        )


class Counted:
    """Hands out a number of trials, and notes when each ended and how large this process was."""

    def __init__(self, root: Path, count: int, note_every: int) -> None:
        self._root = root
        self._count = count
        self._note_every = note_every
        self._given = 0
        self._config = Config.model_validate({"data": {"path": str(root)}, "tracking": {"kind": "folder"}})
        self.ends: list[float] = []
        self.memory: list[int] = []

    def next(self) -> TrialSpec | None:
        """The next one."""
        if self._given == self._count:
            return None
        self._given += 1
        key = f"{self._given:04d}"
        return TrialSpec(key, self._config, self._root / "trials" / key, f"s-{key}", key, "s")

    def report(self, key: str, step: int, metrics: Mapping[str, float]) -> bool:
        """Go on."""
        return False

    def done(self, outcome: TrialResult) -> None:
        """Note it."""
        if outcome.state != "finished":
            raise RuntimeError(f"a trial ended as {outcome}")
        self.ends.append(time.perf_counter())
        if len(self.ends) % self._note_every == 0:
            gc.collect()
            self.memory.append(psutil.Process().memory_info().rss)


def many_trials(count: int) -> dict[str, Any]:
    """Trials that do nothing, on one node: seconds of each and the driver's memory, by quarters."""
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder, connect("local", cpus=2):
        planner = Counted(Path(folder), count, note_every=count // 4)
        sleep(planner, Path(folder), 0.0)
    quarter = count // 4
    marks = [planner.ends[i] for i in (0, quarter, 2 * quarter, 3 * quarter, count - 1)]
    return {
        "trials": count,
        "ms_a_trial_by_quarter": [1e3 * (end - begin) / quarter for begin, end in pairwise(marks)],
        "driver_megabytes_by_quarter": [size / 2**20 for size in planner.memory],
    }


def many_nodes(nodes: int, trials_a_slot: int, seconds: float) -> dict[str, Any]:
    """Sleeping trials on simulated nodes of one processor each: how busy they were, once all had begun."""
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder, simulated(nodes):
        planner = Counted(Path(folder), nodes * trials_a_slot, note_every=nodes)
        sleep(planner, Path(folder), seconds)
    # The first trial of each node waits for its actor to start; afterwards actors are taken over.
    steady = planner.ends[nodes:]
    ideal = seconds * len(steady) / nodes
    took = planner.ends[-1] - planner.ends[nodes - 1]
    return {
        "nodes": nodes,
        "trials": nodes * trials_a_slot,
        "seconds": took,
        "ideal_seconds": ideal,
        "overhead_ms_a_trial": 1e3 * (took - ideal) * nodes / len(steady),
    }


def sleep(planner: Counted, folder: Path, seconds: float) -> None:
    """Run the planner's trials on the cluster that is connected."""
    from tune.execution.ray_backend import run_on_ray

    run_on_ray(planner, Execution(), StopCondition(StopRequest(), folder / "stop"), Sleep(seconds))


@contextmanager
def simulated(nodes: int) -> Iterator[None]:
    """A cluster of nodes that are processes of this machine."""
    os.environ.update(environment())
    from ray.cluster_utils import Cluster

    settings: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": OBJECT_STORE_BYTES // 2}
    cluster = Cluster(initialize_head=True, head_node_args={**settings, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**settings)
        with connect(cluster.address):
            yield
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def table(result: Mapping[str, Any]) -> str:
    """The result for people."""
    many = result["many_trials"]
    lines = [f"| {many['trials']} trials that do nothing | ms a trial | driver, MB |", "|---|---|---|"]
    for i, (ms, size) in enumerate(
        zip(many["ms_a_trial_by_quarter"], many["driver_megabytes_by_quarter"], strict=True), start=1
    ):
        lines.append(f"| quarter {i} | {ms:.0f} | {size:.0f} |")
    lines += [
        "",
        "| nodes | trials | seconds | without overhead | ms of overhead a trial |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['nodes']} | {row['trials']} | {row['seconds']:.1f} | {row['ideal_seconds']:.1f} "
        f"| {row['overhead_ms_a_trial']:.0f} |"
        for row in result["many_nodes"]
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few trials, few nodes")
    quick = parser.parse_args().quick
    result = {
        "many_trials": many_trials(40 if quick else 2000),
        "many_nodes": [
            many_nodes(n, trials_a_slot=4 if quick else 10, seconds=1.0 if quick else 5.0)
            for n in ((1, 2) if quick else (1, 2, 4, 8))
        ],
    }
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
