"""The frozen backbone by torch and by OpenVINO: images a second from JPEG file to store, one thread.

Run ``python -m benchmarks engines`` (``--quick`` for a look). Processor seconds after the first batch, so
that loading and converting a network do not count; in turns, medians. Files have 512 x 512 pixels. Goal: 1.5
times torch's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.extraction import write_images
from nfbmr.config import FeatureConfig
from nfbmr.data.pictures import Picture
from nfbmr.environment import environment
from nfbmr.features.extraction import extract
from nfbmr.features.store import FeatureStore

GOAL = 1.5
BATCH = 8
LOOKS: tuple[tuple[tuple[str, ...], int, int], ...] = (
    (("blocks.5",), 256, 64),
    (("blocks.2", "blocks.4"), 640, 24),
)
"""Taps, size in pixels, and how many images: NF-BMR's first scale, and its detail level."""
LIBRARIES = ("torch", "openvino")


def measure(*, turns: int, looks: Sequence[tuple[tuple[str, ...], int, int]] = LOOKS) -> dict[str, Any]:
    """Images a second of each library at each look, medians of so many turns."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as name:
        root = Path(name)
        pictures = write_images(root / "images", max(look[2] for look in looks), 512)
        for taps, size, count in looks:
            rates: dict[str, list[float]] = {library: [] for library in LIBRARIES}
            for turn in range(turns):
                for library in LIBRARIES:
                    settings = {"taps": taps, "size": size, "engine": library}
                    store = FeatureStore(root / f"{size}-{library}-{turn}")
                    rates[library].append(_rate(pictures[:count], settings, store))
            medians = {library: statistics.median(each) for library, each in rates.items()}
            ratio = medians["openvino"] / medians["torch"]
            rows.append({"taps": taps, "size": size, **medians, "ratio": ratio})
    return {"environment": environment(), "goal": GOAL, "rows": rows}


def _rate(pictures: Sequence[Picture], settings: dict[str, Any], store: FeatureStore) -> float:
    """Images a second of processor time after the first batch."""
    config = FeatureConfig(weights="packaged", compute="fp32", batch=BATCH, **settings)
    looks: list[float] = []

    def note() -> bool:  # read between batches
        looks.append(time.process_time())
        return False

    extract(pictures, config, store, stop=note)
    return (len(pictures) - BATCH) / (time.process_time() - looks[0])


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = ["| size | taps | torch | OpenVINO | ratio |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['size']} px | {', '.join(row['taps'])} | {row['torch']:.1f} | {row['openvino']:.1f} "
        f"| {row['ratio']:.2f} |"
        for row in result["rows"]
    ]
    return "\n".join(lines)


def main() -> None:
    """Print a table for people, and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images, one turn")
    quick = parser.parse_args().quick
    result = measure(turns=1, looks=(LOOKS[0],)) if quick else measure(turns=3)
    print(table(result), file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
