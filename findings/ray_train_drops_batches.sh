#!/usr/bin/env bash
# ray 2.60.0 (train), torch 2.15.0
# With two workers prepare_data_loader() builds a new loader with a DistributedSampler over the
# whole dataset. A batch_sampler is lost in silence, and with it the batches: the loop gets
# single images without a batch axis, of the held-out part too. RandomSampler(num_samples=8)
# is lost in silence as well. A SubsetRandomSampler is lost with a warning in the log of rank 0,
# which advises an argument `with_sampler` that the function does not have. With one worker
# all three are kept.
# Guess: samplers are split among the workers, or refused in words.
# Seen (20 images, of which 0 to 7 are for training; all workers together):
#   1 worker
#     batch_sampler of 4    images 0 to 7, batch axis: True, warnings: 0
#     num_samples=8         8 images an epoch, batch axis: True, warnings: 0
#     SubsetRandomSampler   images 0 to 7, batch axis: True, warnings: 0
#   2 workers
#     batch_sampler of 4    images 0 to 19, batch axis: False, warnings: 0
#     num_samples=8         20 images an epoch, batch axis: True, warnings: 0
#     SubsetRandomSampler   images 0 to 19, batch axis: True, warnings: 1
#   prepare_data_loader has the argument with_sampler: False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" 'ray[train]==2.60.0' torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import inspect
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from ray.train.torch import prepare_data_loader

LOOP = """
import json, logging, sys
import ray.train
from ray.train.torch import TorchTrainer, prepare_data_loader

def loop(config):
    import torch
    from torch.utils import data

    images = data.TensorDataset(torch.arange(20))
    train = data.Subset(images, range(8))
    options = {
        "batch_sampler of 4": {"batch_sampler": data.BatchSampler(data.SequentialSampler(train), 4, False)},
        "num_samples=8": {"sampler": data.RandomSampler(images, num_samples=8), "batch_size": 2},
        "SubsetRandomSampler": {"sampler": data.SubsetRandomSampler(range(8)), "batch_size": 2},
    }
    warned = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.append(record.getMessage())
    logging.getLogger("ray.train").addHandler(handler)
    seen = {}
    for name, kept in options.items():
        warned.clear()
        loader = prepare_data_loader(data.DataLoader(images, **kept))
        batches = [batch[0] for batch in loader]
        images_seen = [int(image) for batch in batches for image in batch.reshape(-1)]
        seen[name] = (images_seen, batches[0].ndim == 1, sum("overwritten" in text for text in warned))
    rank = ray.train.get_context().get_world_rank()
    with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
        json.dump(seen, file)

TorchTrainer(loop, scaling_config=ray.train.ScalingConfig(num_workers=0)).fit()
"""

reached = {}
for workers in (1, 2):
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "loop.py").write_text(LOOP)
    launch = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", str(workers), str(folder / "loop.py"), str(folder)]
    done = subprocess.run(launch, capture_output=True, text=True, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"})
    assert done.returncode == 0, done.stderr
    ranks = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    assert len(ranks) == workers
    print(f"{workers} worker{'s' if workers > 1 else ''}")
    for name in ranks[0]:
        images = [image for rank in ranks for image in rank[name][0]]
        axis, warnings = ranks[0][name][1], sum(rank[name][2] for rank in ranks)
        words = f"{len(images)} images an epoch" if name == "num_samples=8" else f"images {min(images)} to {max(images)}"
        print(f"  {name:21s} {words}, batch axis: {axis}, warnings: {warnings}")
        reached[workers, name] = (len(images), max(images), axis, warnings)
has = "with_sampler" in inspect.signature(prepare_data_loader).parameters
print("prepare_data_loader has the argument with_sampler:", has)
assert reached[1, "batch_sampler of 4"] == (8, 7, True, 0), "the behaviour changed"
assert reached[2, "batch_sampler of 4"] == (20, 19, False, 0), "the behaviour changed"
assert reached[1, "num_samples=8"][0] == 8 and reached[2, "num_samples=8"][0] == 20, "the behaviour changed"
assert reached[2, "num_samples=8"][3] == 0 and not has, "the behaviour changed"
PY
