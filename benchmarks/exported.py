"""Exported models beside the product: largest difference of a score, and processor time an image.

Run ``python -m benchmarks.exported RUN=EXPORTED ...``: folders of finished runs, and what ``nfbmr export``
made of them. Each image's file is scored by both in turn, in one thread; the time is what the processor spent
on this process, so that a busy machine counts for less, decoding included.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nfbmr.environment import environment
from nfbmr.export.export_model import in_float32, sample_of
from nfbmr.export.exported import ExportedModel
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths
from nfbmr.prediction import Predictor


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and the milliseconds of processor time that it took."""
    start = time.process_time()
    answer = call()
    return answer, 1000 * (time.process_time() - start)


def compared(run: Path, exported: Path, limit: int | None) -> dict[str, Any]:
    """One model's row."""
    predictor = Predictor(in_float32(Detector.load(RunPaths(run).model)), "cpu")
    model = ExportedModel.load(exported, threads=1)
    files = sample_of(run, (), limit).files
    product, other, product_ms, other_ms = [], [], [], []
    for number, file in enumerate((files[0], *files)):
        (scored,), ours = timed(lambda file=file: list(predictor.score([file])))  # type: ignore[misc]
        outputs, theirs = timed(lambda file=file: model.score(file))  # type: ignore[misc]
        if number and scored.score is not None:  # the first call warms up
            product.append(scored.score)
            other.append(float(outputs["score"][0]))
            product_ms.append(ours)
            other_ms.append(theirs)
    spread = statistics.pstdev(product)
    return {
        "method": model.about["method"],
        "format": model.about["format"],
        "images": len(product),
        "difference": max(abs(a - b) for a, b in zip(product, other, strict=True)) / spread,
        "product_ms": statistics.median(product_ms),
        "exported_ms": statistics.median(other_ms),
        "megabytes": sum((exported / name).stat().st_size for name in model.about["files"]) / 1e6,
    }


def main() -> None:
    """Compare each pair, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="+", metavar="RUN=EXPORTED")
    parser.add_argument("--limit", type=int, help="test images of each, evenly drawn")
    given = parser.parse_args()
    torch.set_num_threads(1)
    pairs = [pair.partition("=") for pair in given.pairs]
    rows = [compared(Path(run), Path(exported), given.limit) for run, _, exported in pairs]
    print(f"{platform.machine()}: {environment()['machine']['cpu']}", file=sys.stderr)
    print("| method | format | images | largest difference | predict | exported | file |", file=sys.stderr)
    print("|---|---|---|---|---|---|---|", file=sys.stderr)
    for row in rows:
        print(
            f"| {row['method']} | {row['format']} | {row['images']} | {row['difference']:.1e} "
            f"| {row['product_ms']:.0f} ms | {row['exported_ms']:.0f} ms | {row['megabytes']:.1f} MB |",
            file=sys.stderr,
        )
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
