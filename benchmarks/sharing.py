"""The default sweep against the same trials run one by one without the stores.

Run ``python -m benchmarks.sharing`` (``--quick`` for a look). The sweep is ``nfbmr sweep``'s own, trial after
trial in this process: features extracted first, trials and their selection, those that do worse ended early,
the best one scored. Without the stores a trial runs the backbone again in every epoch, as published code
does, on images decoded and in memory already, and nobody ends it early. How long it would have taken to where
the sweep ended it is given as well: the difference is what ending early is worth. Goal: a fifth or less.
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

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

from benchmarks.reuse import configuration, usual_way
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from nfbmr.resolve import load_config
from tune.execution.resources import Resources
from tune.records.paths import SweepPaths
from tune.search.plan import SweepPlan
from tune.search.space import Space
from tune.search.sweep import new_sweep

STAGES = ("flow", "mapping")


def measure(*, images: int, trials: int, epochs: tuple[int, int], size: int = 256) -> dict[str, Any]:
    """Seconds of both ways.

    Args:
        images: Good training images; a fifth of them validates.
        trials: Of the default space.
        epochs: Of the two stages.
        size: Pixels.
    """
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder:
        root = Path(folder)
        journals = {"tracking.kind": "folder"}
        config = configuration(root, images=images, epochs=epochs, size=size, settings=journals)
        plan = SweepPlan(
            "shared", config, Space.load("default"), trials=trials, resources=Resources(backend="local")
        )
        started = time.perf_counter()
        summary = new_sweep(plan)
        sweep = time.perf_counter() - started
        paths = SweepPaths(config.output / "shared")
        in_full = as_far = 0.0
        for number in range(trials):
            trial = RunPaths(paths.trial(number))
            seconds = usual_way(load_config(trial.config))
            reached = epochs_reached(trial)
            in_full += sum(seconds.values())
            shares = (reached.get(stage, 0) / total for stage, total in zip(STAGES, epochs, strict=True))
            as_far += sum(share * seconds[stage] for stage, share in zip(STAGES, shares, strict=True))
            as_far += seconds["validation"]
    return {
        "images": images,
        "trials": trials,
        "epochs": list(epochs),
        "size": size,
        "ended": summary.trials.as_json(),
        "hits": summary.hits.as_json(),
        "sweep_seconds": sweep,
        "without_seconds": in_full,
        "without_seconds_as_far": as_far,
        "ratio": sweep / in_full,
        "ratio_as_far": sweep / as_far,
        "goal": 0.2,
    }


def epochs_reached(trial: RunPaths) -> dict[str, int]:
    """Of each stage, by a trial that may have been ended early."""
    metrics = read_record(trial.journal).metrics
    return {
        stage: max(point.step for point in metrics[f"{stage}/loss"])
        for stage in STAGES
        if f"{stage}/loss" in metrics
    }


def table(result: Mapping[str, Any]) -> str:
    """The result for people."""
    heading = f"{result['trials']} trials, {result['images']} images, {result['size']} px"
    return "\n".join(
        [
            f"| {heading}, epochs {result['epochs']} | seconds | ratio |",
            "|---|---|---|",
            f"| one by one, without the stores | {result['without_seconds']:.0f} | 1.00 |",
            f"| the sweep ({result['ended']}) | {result['sweep_seconds']:.0f} | {result['ratio']:.2f} |",
            f"| one by one, as far as the sweep let them go | {result['without_seconds_as_far']:.0f} | |",
            f"| the sweep over that | | {result['ratio_as_far']:.2f} |",
        ]
    )


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images, trials and epochs")
    quick = parser.parse_args().quick
    result = (
        measure(images=40, trials=3, epochs=(4, 2))
        if quick
        else measure(images=200, trials=16, epochs=(20, 10))
    )
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
