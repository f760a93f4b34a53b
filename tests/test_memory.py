"""A large picture is scored and drawn in bounded memory, whatever its size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SCRIPT = """
import json, sys
from pathlib import Path
import torch
import nfbmr
from nfbmr.features.reader import FeatureReader
from nfbmr.methods.detector import build, shapes_read
from nfbmr.prediction import Predictor
from nfbmr.scoring.fusion import Scorer

def peak():  # MiB; getrusage's is that of the process that started this one, where it was more
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

method, size, tile, file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
settings = {"features.size": size, "features.tile": tile, "features.aspect": 1.333}
settings["features.compute"] = "fp32"
config = nfbmr.configure(settings={"method": method, **settings})
torch.set_num_threads(1)
shapes = shapes_read(config)
digest = FeatureReader(config.features, torch.device("cpu")).weights_digest
detector = build(config, shapes, digest)
if method == "patchcore":
    channels = sum(shape[0] for shape in shapes)
    detector.networks.stages[0].bank.put(patches_KC=torch.rand(5_000, channels))
for stage in detector.networks.stages:
    if stage.name == "memory":
        stage.bank.put(positions_KC=torch.rand(4000, shapes[1][0]))
components = detector.networks.components
scorer = Scorer(components, tuple(1.0 for _ in components), threshold=1.0)
predictor = Predictor(detector.with_scorer(scorer).eval(), "cpu")
before = peak()
(scored,) = predictor.score([file])
drawn = predictor.heatmap(file, scored.map_HW)
print(json.dumps({"before": before, "peak": peak(), "map": list(scored.map_HW.shape), "drawn": drawn.size}))
"""


def measured(tmp_path: Path, method: str, size: int, tile: int, picture: tuple[int, int]) -> dict[str, Any]:
    """Peak memory in MiB of a process that scores one picture of (width, height)."""
    path = tmp_path / "large.png"
    noise = np.random.default_rng(0).integers(0, 255, (picture[1] // 10, picture[0] // 10, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(picture).save(path, compress_level=1)
    words = [sys.executable, "-c", SCRIPT, method, str(size), str(tile), str(path)]
    completed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    found: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    assert found["drawn"] == list(picture)
    return found


def test_a_picture_in_tiles_takes_little_more_memory_than_its_pixels(tmp_path: Path) -> None:
    found = measured(tmp_path, "patchcore", 1024, 256, (1200, 900))
    assert found["map"] == [112, 144]
    assert found["peak"] - found["before"] < 400


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", ["nf-bmr", "patchcore"])
def test_a_picture_of_twelve_megapixels_is_scored_within_three_gigabytes(tmp_path: Path, method: str) -> None:
    assert measured(tmp_path, method, 3456, 1024, (4000, 3000))["peak"] < 3 * 1024


PRELOAD = """
import json
import torch
from nfbmr.features.table import JoinedTable, TensorTable
from nfbmr.flows.standardise import Standardise
from nfbmr.training.batches import Batches

def peak():  # MiB; getrusage's is that of the process that started this one, where it was more
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

torch.set_num_threads(1)
sides = ((40, 80), (112, 40))  # the detail look's taps at 640 px
tables = [TensorTable(torch.zeros(64, c, side, side, dtype=torch.bfloat16)) for c, side in sides]
table = JoinedTable(tables, "finest", 3)
batches = Batches((table,), torch.arange(64).view(64, 1), 8, seed=0)
before = peak()
(held,) = batches.preload()
loaded = peak()
Standardise(table.shape[0]).fit(table)
print(json.dumps({"before": before, "loaded": loaded, "measured": peak(), "held": held.nbytes / 2**20}))
"""


def test_features_are_brought_into_memory_and_measured_in_little_more_than_they_take() -> None:
    words = [sys.executable, "-c", PRELOAD]
    completed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    taken = json.loads(completed.stdout.splitlines()[-1])
    assert taken["loaded"] - taken["before"] < taken["held"] + 170
    assert taken["measured"] - taken["before"] < taken["held"] + 900


BANK = """
import json
import torch
import nfbmr
from nfbmr.features.table import Features, JoinedTable, TensorTable, ViewedFeatures
from nfbmr.flows.standardise import Standardise
from nfbmr.methods.detail import MemoryStage

def peak():  # MiB; getrusage's is that of the process that started this one, where it was more
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

torch.set_num_threads(1)
sides = ((40, 80), (112, 40))
rows = torch.zeros(256, dtype=torch.long)  # one image again and again
table = JoinedTable([TensorTable(torch.randn(1, c, side, side).half()) for c, side in sides], "finest", 3)
config = nfbmr.configure(settings={"method": "nf-bmr", "detail.bank": 16})
stage = MemoryStage(Standardise(table.shape[0]).fit(table), table.shape[0], config)
seen = ViewedFeatures(Features([table]), rows.view(-1, 1))
before = peak()
stage.prepare(seen)
print(json.dumps({"before": before, "peak": peak(), "candidates": config.detail.candidates}))
"""


def test_a_bank_is_chosen_in_little_more_memory_than_its_candidates_take() -> None:
    completed = subprocess.run([sys.executable, "-c", BANK], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    taken = json.loads(completed.stdout.splitlines()[-1])
    assert taken["peak"] - taken["before"] < 600
