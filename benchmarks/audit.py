"""Precision and recall of the leak audit on 500 pairs: copies of training images, and images of other parts.

Run ``python -m benchmarks.audit [FOLDER ...]`` (``--quick`` for a look): data sets in the folders given,
split as `nfbmr` splits them, and synthetic textures. Half of the test images of each set are copies of
training images, re-encoded, cropped, turned, mirrored, relit, resized or several of these; half are images of
parts that were not trained on. Goal: precision 0.99, recall 0.95.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.config import DataConfig
from nfbmr.data.audit import audit_split
from nfbmr.data.images import read_image
from nfbmr.data.layouts import categories, load_dataset
from nfbmr.data.samples import Sample, Split
from nfbmr.data.splits import make_split
from nfbmr.data.synthesize import CLASSES, synthesize

Pixels = NDArray[np.uint8]
Copy = Callable[[Pixels, np.random.Generator], Pixels]
PAIRS = 500
MOST_TRAINED = 200


def cropped(x_HWC: Pixels, rng: np.random.Generator) -> Pixels:
    """Up to a twentieth less at each border."""
    height, width = x_HWC.shape[:2]
    top, bottom = (int(v) for v in rng.uniform(0, 0.05, 2) * height)
    left, right = (int(v) for v in rng.uniform(0, 0.05, 2) * width)
    return x_HWC[top : height - bottom, left : width - right]


def turned(x_HWC: Pixels, rng: np.random.Generator) -> Pixels:
    """By one to five degrees, the empty corners cut off."""
    degrees = float(rng.choice([-1, 1]) * rng.uniform(1, 5))
    height, width = x_HWC.shape[:2]
    found = np.asarray(Image.fromarray(x_HWC).rotate(degrees, Image.Resampling.BICUBIC))
    slope = abs(np.tan(np.deg2rad(degrees))) / 2
    y, x = int(width * slope) + 1, int(height * slope) + 1
    return found[y : height - y, x : width - x]


def relit(x_HWC: Pixels, rng: np.random.Generator) -> Pixels:
    """Another exposure, gamma and shading, and noise of its own."""
    height, width = x_HWC.shape[:2]
    y_HW1, x_HW1 = (a[..., None] for a in np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j])
    light = rng.uniform(0.5, 1.2) * (1 + rng.uniform(-0.3, 0.3) * y_HW1 + rng.uniform(-0.3, 0.3) * x_HW1)
    seen = (x_HWC / 255.0) ** rng.uniform(0.8, 1.25) * light + rng.normal(0, 0.006, (height, width, 1))
    return np.asarray((seen.clip(0, 1) * 255).round(), np.uint8)


def encoded(x_HWC: Pixels, rng: np.random.Generator) -> Pixels:
    """As JPEG of quality 50 to 95."""
    file = BytesIO()
    Image.fromarray(x_HWC).save(file, "JPEG", quality=int(rng.integers(50, 96)))
    return np.asarray(Image.open(file).convert("RGB"))


def resized(x_HWC: Pixels, rng: np.random.Generator) -> Pixels:
    """To six to nine tenths."""
    share = rng.uniform(0.6, 0.9)
    size = (max(8, int(x_HWC.shape[1] * share)), max(8, int(x_HWC.shape[0] * share)))
    return np.asarray(Image.fromarray(x_HWC).resize(size, Image.Resampling.BICUBIC))


def mirrored(x_HWC: Pixels, rng: np.random.Generator) -> Pixels:
    """Left to right, or top to bottom."""
    return np.ascontiguousarray(np.flip(x_HWC, int(rng.integers(2))))


def quartered(x_HWC: Pixels, rng: np.random.Generator) -> Pixels:
    """By 90, 180 or 270 degrees."""
    return np.ascontiguousarray(np.rot90(x_HWC, int(rng.integers(1, 4))))


def several(x_HWC: Pixels, rng: np.random.Generator) -> Pixels:
    """Mirrored, by a quarter, relit and re-encoded."""
    return encoded(relit(quartered(mirrored(x_HWC, rng), rng), rng), rng)


COPIES: dict[str, Copy] = {
    "identical": lambda x_HWC, _: x_HWC,
    "encoded": encoded,
    "cropped": cropped,
    "turned": turned,
    "quartered": quartered,
    "mirrored": mirrored,
    "relit": relit,
    "resized": resized,
    "several": several,
}


def measure(folders: list[Path], *, pairs: int) -> dict[str, Any]:
    """Verdicts by kind of pair, over all sets."""
    verdicts: dict[str, Counter[str]] = {}
    sets: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as scratch:
        os.environ["NFBMR_CACHE"] = str(Path(scratch) / "cache")
        splits = list(_splits(folders, Path(scratch) / "data", pairs))
        started = time.perf_counter()
        for number, (name, split) in enumerate(splits):
            per_set = pairs * (number + 1) // len(splits) - pairs * number // len(splits)
            found = _verdicts(split, per_set, Path(scratch) / f"copies-{number}", number)
            sets[name] = {
                "copies_missed": sum(k != "stranger" and v != "twin" for k, v in found),
                "false_alarms": sum(k == "stranger" and v == "twin" for k, v in found),
                "unsure": sum(v == "unsure" for _, v in found),
            }
            print(f"  {name}: {sets[name]}", file=sys.stderr)
            for kind, verdict in found:
                verdicts.setdefault(kind, Counter())[verdict] += 1
        seconds = time.perf_counter() - started
    hits = sum(c["twin"] for kind, c in verdicts.items() if kind != "stranger")
    copies = sum(c.total() for kind, c in verdicts.items() if kind != "stranger")
    alarms = verdicts["stranger"]["twin"]
    return {
        "pairs": copies + verdicts["stranger"].total(),
        "precision": hits / max(1, hits + alarms),
        "recall": hits / max(1, copies),
        "kinds": {kind: dict(c) for kind, c in sorted(verdicts.items())},
        "sets": sets,
        "seconds": seconds,
        "goal_precision": 0.99,
        "goal_recall": 0.95,
    }


def _splits(folders: list[Path], scratch: Path, pairs: int) -> Iterator[tuple[str, Split]]:
    made = synthesize(scratch, train=40, test_good=max(4, pairs // 20), test_defective=1, classes=CLASSES)
    for folder in [*folders, made]:
        for category in categories(folder) or (None,):
            dataset = load_dataset(folder, category=category)
            yield dataset.name, make_split(dataset, DataConfig())


def _verdicts(split: Split, pairs: int, scratch: Path, seed: int) -> list[tuple[str, str]]:
    """Kind and verdict of each test image."""
    rng = np.random.default_rng(seed)
    train = [split.train[i] for i in sorted(rng.permutation(len(split.train))[:MOST_TRAINED])]
    good = [s for s in split.test if s.is_good]
    strangers = [good[i] for i in rng.permutation(len(good))[: pairs // 2]]
    kinds = {s.name: "stranger" for s in strangers}
    tests = list(strangers)
    scratch.mkdir(parents=True)
    names = list(COPIES)
    for number in range(pairs - len(strangers)):
        kind, source = names[(number + seed) % len(names)], train[int(rng.integers(len(train)))]
        path = scratch / f"{number}.png"
        if kind == "identical":
            path.write_bytes(source.path.read_bytes())
        else:
            Image.fromarray(COPIES[kind](read_image(source.path), rng)).save(path)
        tests.append(Sample(path, f"copy-{number}"))
        kinds[f"copy-{number}"] = kind
    audit = audit_split(Split("made", 0, False, tuple(train[1:]), tuple(train[:1]), tuple(tests)))
    verdicts = {m.test.name: m.verdict for m in audit.nearest}
    return [(kind, verdicts.get(name, "different")) for name, kind in kinds.items()]


def main() -> None:
    """Print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="few pairs")
    given = parser.parse_args()
    print(json.dumps(measure(given.folders, pairs=60 if given.quick else PAIRS), indent=2))


if __name__ == "__main__":
    main()
