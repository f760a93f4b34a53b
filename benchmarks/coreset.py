"""PatchCore's coreset: 2 % of 754 images x 1024 positions x 152 channels.

Run ``python -m benchmarks.coreset`` (``--quick`` for a look). Patches of EfficientNet-lite0's blocks.2 and
blocks.4 at 256 px, of synthetic textures and their flips and turns, in PatchCore's random projection. The
plain way runs some steps of the algorithm as it is defined, on the same patches. The coverage radius is
compared with the plain algorithm's on a part of the patches. Goal: two minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nfbmr
from nfbmr.data.files import images_below
from nfbmr.data.pictures import picture_from
from nfbmr.data.synthesize import synthesize
from nfbmr.data.textures import TEXTURES
from nfbmr.features.extraction import extract
from nfbmr.features.store import FeatureStore
from nfbmr.features.table import Features
from nfbmr.methods.coreset import greedy_coreset
from nfbmr.methods.patchcore import PatchCoreConfig
from nfbmr.methods.patchcore.model import patches_of, projected

SHARE = 0.02
PLAIN_STEPS = 20
SMALL = 20_000
"""Patches of the comparison with the plain algorithm."""


def measure(*, images: int) -> dict[str, Any]:
    """Seconds of the choice, of plain steps, and both radii on the smaller problem.

    Args:
        images: How many; 754 is Magnetic Tile Defects' good training images.
    """
    x_ND = patches(images)
    count = int(len(x_ND) * SHARE)
    started = time.perf_counter()
    greedy_coreset(x_ND, count)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    plain(x_ND, PLAIN_STEPS)
    step = (time.perf_counter() - started) / PLAIN_STEPS
    small_MD = x_ND[torch.randperm(len(x_ND), generator=torch.Generator().manual_seed(0))[:SMALL]]
    chosen, _ = greedy_coreset(small_MD, int(SMALL * SHARE))
    return {
        "patches": list(x_ND.shape),
        "chosen": count,
        "seconds": seconds,
        "plain_seconds_expected": step * count,
        "ratio": seconds / (step * count),
        "radius": radius(small_MD, chosen),
        "plain_radius": radius(small_MD, plain(small_MD, int(SMALL * SHARE))),
        "threads": torch.get_num_threads(),
        "goal_seconds": 120,
    }


def patches(images: int) -> Tensor:
    """Projected patches of so many images."""
    config = nfbmr.configure(settings={"method": "patchcore"})
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder:
        each = -(-images // len(TEXTURES))
        data = synthesize(Path(folder) / "data", train=each, test_good=4, test_defective=4)
        files = sorted(file for file in images_below(data) if file.parts[-3] == "train")[:images]
        store = FeatureStore(Path(folder) / "store")
        features = Features(extract([picture_from(file) for file in files], config.features, store).tables)
        batches = (features.gather(torch.arange(i, min(i + 32, images))) for i in range(0, images, 32))
        found_NC = torch.cat([patches_of(tuple(y.float() for y in batch), 3).half() for batch in batches])
    return projected(found_NC, PatchCoreConfig.of(config).projection, torch.Generator().manual_seed(0))


def plain(x_ND: Tensor, count: int) -> Tensor:
    """The algorithm as it is defined: each choice compared with every row."""
    chosen_K = torch.zeros(count, dtype=torch.long)
    nearest_N = torch.full((len(x_ND),), torch.inf)
    for k in range(1, count):
        nearest_N = torch.minimum(nearest_N, (x_ND - x_ND[chosen_K[k - 1]]).norm(dim=1))
        chosen_K[k] = nearest_N.argmax()
    return chosen_K


def radius(x_ND: Tensor, chosen_K: Tensor) -> float:
    """Largest distance of any row to the nearest chosen one."""
    return float(torch.cdist(x_ND, x_ND[chosen_K]).amin(1).max())


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    rows, dimensions = result["patches"]
    return "\n".join(
        [
            f"| {result['chosen']} of {rows} patches, {dimensions} dimensions | seconds | radius of a part |",
            "|---|---|---|",
            f"| as defined, from {PLAIN_STEPS} steps | {result['plain_seconds_expected']:.0f} "
            f"| {result['plain_radius']:.4f} |",
            f"| here | {result['seconds']:.1f} | {result['radius']:.4f} |",
        ]
    )


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images")
    result = measure(images=40 if parser.parse_args().quick else 754)
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
