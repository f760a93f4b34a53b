"""Extraction: images a second from file to store, against the bare forward pass; memory by number of images.

Run ``python -m benchmarks.extraction`` (``--quick`` for a look). The yardstick is the usual way: the network
as timm gives it, cut after the tap, channels_last, eager under bf16 autocast, on a batch already in memory.
Goal: from file to store 1.8 times as fast, and memory that does not grow with the number of images. Stated as
well: the share of the machine's own matrix rate in the same arithmetic.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training import product_rate
from nfbmr.config import FeatureConfig
from nfbmr.data.pictures import Picture, picture_of
from nfbmr.data.samples import Sample
from nfbmr.features.extraction import extract
from nfbmr.features.graph import Hooked
from nfbmr.features.models import new_model
from nfbmr.features.store import FeatureStore

GOAL = 1.8
SETTING = FeatureConfig(weights="auto", size=384, taps=("blocks.5",), batch=16)


def measure(*, images: int = 192, memory_at: tuple[int, ...] = (100, 1000, 10_000)) -> dict[str, Any]:
    """Both figures.

    Args:
        images: How many go through, from JPEG files of 512 x 512 pixels.
        memory_at: Numbers of images, each in a process of its own.

    Returns:
        What ``--json`` prints.
    """
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder:
        root = Path(folder)
        pictures = write_images(root / "images", images, 512)
        yardstick = forward_alone(SETTING.batch)
        in_pairs = forward_alone(2, batches=16)
        ways: dict[str, dict[str, Any]] = {
            "fp32": {"compute": "fp32", "engine": "torch"},
            "fp32, OpenVINO": {"compute": "fp32", "engine": "openvino"},
            "bf16": {"compute": "bf16"},
            "fp32, compiled": {"compute": "fp32", "compile": True},
            "bf16, compiled": {"compute": "bf16", "compile": True},
        }
        end_to_end = {}
        for name, update in ways.items():
            store = FeatureStore(root / name.replace(", ", "-"))
            end_to_end[name] = from_file_to_store(pictures, SETTING.model_copy(update=update), store)
        best = max(end_to_end, key=lambda name: end_to_end[name])
        rates = {"bf16": torch.bfloat16, "fp32": torch.float32}
        products = {name: product_rate(dtype, torch.device("cpu")) for name, dtype in rates.items()}
        operations = operations_an_image()
        shares = {name: rate * operations / 1e12 / products[name[:4]] for name, rate in end_to_end.items()}
        memory = {count: peak_memory(root, count) for count in memory_at}
    return {
        "setting": SETTING.model_dump(mode="json"),
        "threads": torch.get_num_threads(),
        "forward_alone_eager_autocast_bf16": yardstick,
        "forward_alone_in_pairs": in_pairs,
        "end_to_end": end_to_end,
        "matrix_product_tflops": products,
        "gflop_an_image": operations / 1e9,
        "share_of_its_rate": shares,
        "best": best,
        "ratio": end_to_end[best] / yardstick,
        "goal": GOAL,
        "peak_memory_mb": memory,
    }


def write_images(folder: Path, count: int, size: int) -> list[Picture]:
    """Smooth noise as JPEG: costs about what a photograph costs to decode."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (max(2, size // 8),) * 2, dtype=np.uint8))
        path = folder / f"{i:05d}.jpg"
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(path, quality=90)
        pictures.append(picture_of(Sample(path, path.name)))
    return pictures


def forward_alone(batch: int, batches: int = 4) -> float:
    """Images a second of the usual way, decoding left out."""
    model: nn.Module = new_model(SETTING.backbone)
    net = Hooked(model, ("blocks.5",)).to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, SETTING.size, SETTING.size).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            net(x)

    return batch / _best(step, batches)


def operations_an_image() -> int:
    """Floating-point operations of one forward pass."""
    net = Hooked(new_model(SETTING.backbone), ("blocks.5",))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.zeros(1, 3, SETTING.size, SETTING.size))
    operations: int = counter.get_total_flops()
    return operations


def from_file_to_store(pictures: list[Picture], config: FeatureConfig, store: FeatureStore) -> float:
    """Images a second once the first batch (and with it the compiler) is done, until all is on disk."""
    ends: list[float] = []

    def note() -> bool:
        ends.append(time.perf_counter())
        return False

    extraction = extract(pictures, config, store, stop=note)
    return (extraction.computed - config.batch) / (time.perf_counter() - ends[0])


def peak_memory(root: Path, count: int) -> float:
    """Largest resident memory (MB) of a process that extracts `count` images."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.extraction",
        "--memory-of",
        str(count),
        "--folder",
        str(root),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _memory_of(root: Path, count: int) -> float:
    pictures = write_images(root / f"many-{count}", count, 64)
    config = FeatureConfig(
        backbone="tf_efficientnet_lite0", size=64, taps=("blocks.2",), compute="fp32", batch=16
    )
    extract(pictures, config, FeatureStore(root / f"store-{count}"))
    # Not ru_maxrss: that begins with what the parent process had.
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def _best(step: Callable[[], None], repeats: int) -> float:
    step()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    yardstick, shares = result["forward_alone_eager_autocast_bf16"], result["share_of_its_rate"]
    lines = [
        "| lite0 to blocks.5, 384 px | images a second | times the yardstick | share of its rate |",
        "|---|---|---|---|",
    ]
    lines.append(f"| forward alone, eager, autocast bf16 (yardstick) | {yardstick:.1f} | 1.00 | |")
    pairs = result["forward_alone_in_pairs"]
    lines.append(f"| the same, two images at a time | {pairs:.1f} | {pairs / yardstick:.2f} | |")
    lines += [
        f"| file to store, {name} | {rate:.1f} | {rate / yardstick:.2f} | {shares[name]:.0%} |"
        for name, rate in result["end_to_end"].items()
    ]
    lines += ["", "| images | peak memory |", "|---|---|"]
    lines += [f"| {count} | {size:.0f} MB |" for count, size in result["peak_memory_mb"].items()]
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        print(_memory_of(given.folder, given.memory_of))
        return
    result = measure(images=80, memory_at=(100, 1000)) if given.quick else measure()
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
