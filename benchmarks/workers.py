"""What Ray Train adds to short epochs: two workers, as its defaults would have it and as it is set here.

Run ``python -m benchmarks.workers`` (``--quick`` for a look). Ray Train's controller asks its workers for
news every 2 s and takes one report each time, so a loop that reports every epoch waits for it. Here it asks
every 0.2 s, an epoch is told through a mailbox, and Ray has a report every few seconds of training. Measured
is the time from the first to the last epoch of stage one, what its steps took, and the whole command, which
starts two processes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cluster.connection import connect
from cluster.training import trainer as training
from cluster.training import worker
from nfbmr import run as core
from nfbmr.api import configure
from nfbmr.data.synthesize import CLASSES, synthesize
from nfbmr.stopping import StopRequest

INTERVAL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
WORKERS = 2


def eager(config: dict[str, Any]) -> dict[str, Any]:
    """What a worker does, with a report every epoch."""
    worker.REPORT_EVERY = 0.0
    return worker.work(config)


def measure(*, epochs: int) -> dict[str, Any]:
    """Seconds of each way.

    Args:
        epochs: Of stage one.
    """
    answer: dict[str, Any] = {"workers": WORKERS, "epochs": epochs}
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder, connect("local", cpus=WORKERS):
        root, careful = Path(folder), worker.work
        synthesize(root / "data", classes=CLASSES[:1], train=60, test_good=4, test_defective=4, size=128)
        one_run(root, 0, epochs)  # features, which all share
        ways = {"defaults": ("2.0", eager), "ours": ("0.2", careful)}
        for seed, (name, (interval, work)) in enumerate(ways.items(), start=1):
            os.environ[INTERVAL] = interval
            training.work = work  # type: ignore[attr-defined]
            answer[name] = one_run(root, seed, epochs, workers=WORKERS)
    return answer


def one_run(root: Path, seed: int, epochs: int, workers: int | None = None) -> dict[str, float]:
    """A run, and when its epochs ended."""
    told: list[float] = []
    steps: list[float] = []

    def on_epoch(stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        if stage == "flow":
            told.append(time.perf_counter())
            steps.append(metrics["seconds"])

    config = configure(
        settings={
            "seed": seed,
            "data.path": str(root / "data"),
            "output": str(root / "runs"),
            "store": str(root / "store"),
            "features.size": 64,
            "features.compute": "fp32",
            "flow.hidden": 16,
            "train.flow.epochs": epochs,
            "train.mapping.epochs": 1,
            "train.precision": "fp32",
            "evaluation.bootstrap": 0,
            "tracking.kind": "folder",
        }
    )
    began = time.perf_counter()
    run, stop = core.new_run(config), StopRequest()
    if workers is None:
        core.execute_run(run, core.journal_only, stop, test=False, on_epoch=on_epoch)
    else:
        training.execute_run(run, core.journal_only, stop, workers=workers, test=False, on_epoch=on_epoch)
    whole = time.perf_counter() - began
    return {"epochs_s": told[-1] - told[0], "steps_s": sum(steps[1:]), "command_s": whole}


def table(answer: Mapping[str, Any]) -> str:
    """The measurements, for people."""
    rows = [
        f"{answer['epochs']} epochs, {answer['workers']} workers     first to last epoch   steps   command"
    ]
    for name in ("defaults", "ours"):
        way = answer[name]
        rows.append(f"{name:24}{way['epochs_s']:17.1f} s{way['steps_s']:8.1f} s{way['command_s']:8.1f} s")
    return "\n".join(rows)


def main() -> None:
    """Measure; JSON to standard output, a table to standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few epochs")
    answer = measure(epochs=10 if parser.parse_args().quick else 30)
    print(table(answer), file=sys.stderr)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
