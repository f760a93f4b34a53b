"""Inference: milliseconds an image from file to score, and images a second, by batch size.

Run ``python -m benchmarks.inference`` (``--quick`` for a look). One process, warm: the model is loaded once;
each batch is decoded, sent through backbone, flow and mapping, fused and reduced.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import nfbmr
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths
from nfbmr.prediction import Predictor


def measure(*, batches: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Median over `repeats` calls for each batch size."""
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder:
        root = Path(folder)
        config = nfbmr.configure(
            settings={
                "output": str(root / "runs"),
                "store": str(root / "work" / "store"),
                "train.flow.epochs": 1,
                "train.mapping.epochs": 1,
                "evaluation.bootstrap": 0,
                "evaluation.heatmaps": 0,
            }
        )
        run = RunPaths(Path(nfbmr.train(config)["run_dir"]))
        images = sorted((root / "work" / "synthetic").rglob("test/*/*.png"))
        predictor = Predictor(Detector.load(run.model))
        rows = {size: _one(predictor, images, size, repeats) for size in batches}
    return {"threads": torch.get_num_threads(), "size": config.features.size, "batches": rows}


def _one(predictor: Predictor, images: list[Path], size: int, repeats: int) -> dict[str, float]:
    chosen = (images * (size // len(images) + 1))[:size]
    _score(predictor, chosen)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        _score(predictor, chosen)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    return {"milliseconds_an_image": 1e3 * median / size, "images_a_second": size / median}


def _score(predictor: Predictor, images: list[Path]) -> None:
    for _ in predictor(images):
        pass


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [f"| batch, {result['size']} px | ms an image | images a second |", "|---|---|---|"]
    lines += [
        f"| {size} | {row['milliseconds_an_image']:.0f} | {row['images_a_second']:.1f} |"
        for size, row in result["batches"].items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images")
    quick = parser.parse_args().quick
    result = measure(batches=(1, 8), repeats=2) if quick else measure(batches=(1, 4, 16, 64), repeats=5)
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
