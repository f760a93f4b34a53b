"""Training: the arithmetic rate of each stage as a share of the machine's own matrix-product rate.

Run ``python -m benchmarks.training`` (``--quick`` for a look). Both are measured in the same run: the rate
of large square products in bf16 and fp32, and the real training loop, batches and all, on random features.
Both arithmetics are trained in, bf16 where the processor has it, each beside its own rate. Goal: 80 % of it
at the paper's size (304 x 24 x 24, 1024 channels inside, batch 8); at 192 x 12 x 12 with 256, 50 % in bf16
and 60 % in float32.

On a GPU, ``--device cuda --setting paper --stage flow --images 242 --epochs 300`` is the paper's stage one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from nfbmr.config import FlowConfig, MappingConfig, StageConfig, TrainConfig
from nfbmr.devices import device_of, limit_threads
from nfbmr.features.table import TensorTable
from nfbmr.flows.flow import Flow
from nfbmr.mapping.bmr import BMR
from nfbmr.processors import has_bf16
from nfbmr.training.batches import Batches
from nfbmr.training.loop import train_stage
from nfbmr.training.stages import FlowStage, MappingStage, Stage


@dataclass(frozen=True)
class Setting:
    """A size to train at.

    Attributes:
        shape: (C, H, W) of the features.
        hidden: Hidden channels of the flow, latent channels of the mapping.
        goals: Share of the rate of each arithmetic.
    """

    shape: tuple[int, int, int]
    hidden: int
    goals: dict[str, float]


SETTINGS = {
    "small": Setting((192, 12, 12), 256, {"bf16": 0.5, "fp32": 0.6}),
    "paper": Setting((304, 24, 24), 1024, {"bf16": 0.8, "fp32": 0.8}),
}
PATIENCE = 1.0
"""Seconds that a matrix product may take which measures a processor's rate."""
STAGES = ("flow", "mapping")


def measure(
    *,
    settings: Sequence[str] = tuple(SETTINGS),
    stages: Sequence[str] = STAGES,
    batch: int = 8,
    images: int = 64,
    epochs: int = 4,
    device: str = "auto",
    precisions: Sequence[Literal["fp32", "bf16"]] | None = None,
    compiled: bool = False,
) -> dict[str, Any]:
    """Rates and shares.

    Args:
        settings: Names in :data:`SETTINGS`.
        stages: Of flow, mapping.
        batch: Images a step.
        images: Images an epoch.
        epochs: The quickest of them counts: whatever else the machine does only ever makes one slower.
        device: As in ``train.device``.
        precisions: What to train in; bf16 where the device has it, and fp32, by default.
        compiled: Whether to ``torch.compile``.

    Returns:
        What is printed as JSON.
    """
    limit_threads()
    where = device_of(device)
    precisions = precisions or (("bf16", "fp32") if has_bf16(where) else ("fp32",))
    products = {"bf16": product_rate(torch.bfloat16, where), "fp32": product_rate(torch.float32, where)}
    rows = []
    for name, kind, precision in product(settings, stages, precisions):
        train = TrainConfig(
            device=device,
            precision=precision,
            compile=compiled,
            checkpoint_every=epochs,
            validate_every=epochs,
        )
        row = _train(kind, SETTINGS[name], StageConfig(epochs=epochs, batch=batch), train, images)
        shares = {f"share_of_{key}": row["tflops"] / rate for key, rate in products.items()}
        rows.append({"setting": name, "stage": kind, "precision": precision, **row, **shares})
    return {
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precisions": precisions,
        "compiled": compiled,
        "batch": batch,
        "images": images,
        "epochs": epochs,
        "matrix_product_tflops": products,
        "settings": {name: asdict(SETTINGS[name]) for name in settings},
        "stages": rows,
    }


def product_rate(dtype: torch.dtype, device: torch.device, repeats: int = 8) -> float:
    """TFLOP/s of a large square matrix product, the best of a few and of several sizes.

    Sizes grow until a product would take longer than `PATIENCE`: a large one takes minutes where bfloat16 is
    emulated.
    """
    best = 0.0
    for n in (4096, 8192) if device.type == "cuda" else (256, 1024, 2048):
        operations = 2 * n**3 / 1e12
        if best and operations / best > PATIENCE:
            break
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        for _ in range(repeats):
            _wait(device)
            start = time.perf_counter()
            torch.mm(a, b)
            _wait(device)
            best = max(best, operations / (time.perf_counter() - start))
    return best


def _train(
    kind: str, setting: Setting, config: StageConfig, train: TrainConfig, images: int
) -> dict[str, float]:
    y = TensorTable(torch.randn(images, *setting.shape).half())
    rows_NV = torch.arange(images).view(images, 1)
    if kind == "flow":
        stage: Stage = FlowStage(Flow(setting.shape, FlowConfig(hidden=setting.hidden), seed=0))
        tables: tuple[TensorTable, ...] = (y,)
    else:
        stage = MappingStage(BMR(setting.shape[0], MappingConfig(latent=setting.hidden)))
        tables = (y, TensorTable(torch.randn(images, *setting.shape).half()))
    operations = _operations(stage, [table.gather(range(1)).float() for table in tables])
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder:
        batches = Batches(tables, rows_NV, config.batch, seed=0)
        start = time.perf_counter()
        result = train_stage(stage, batches, config, train, seed=0, folder=Path(folder) / kind)
        whole = time.perf_counter() - start
    epoch = min(metrics["seconds"] for metrics in result.history)
    return {
        "milliseconds_a_step": 1e3 * epoch / len(batches),
        "tflops": operations * images / epoch / 1e12,
        "parameters": sum(p.numel() for p in stage.module.parameters()),
        "whole_stage_seconds": whole,
    }


def _operations(stage: Stage, inputs: list[torch.Tensor]) -> int:
    """Floating-point operations of the convolutions for one image, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        stage.loss(*inputs).backward()  # type: ignore[no-untyped-call]
    stage.module.zero_grad(set_to_none=True)
    operations: int = counter.get_total_flops()
    return operations


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    products = result["matrix_product_tflops"]
    lines = [
        f"{result['device']}, {result['threads']} threads; matrix products: "
        f"bf16 {products['bf16']:.3f}, fp32 {products['fp32']:.3f} TFLOP/s",
        "",
        "| setting | stage | in | ms a step | TFLOP/s | share of its rate | goal | whole stage, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["stages"]:
        goal = result["settings"][row["setting"]]["goals"][row["precision"]]
        cells = (
            row["setting"],
            row["stage"],
            row["precision"],
            f"{row['milliseconds_a_step']:.1f}",
            f"{row['tflops']:.3f}",
            f"{row['share_of_' + row['precision']]:.0%}",
            f"{goal:.0%}",
            f"{row['whole_stage_seconds']:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small setting, few steps")
    parser.add_argument("--setting", nargs="+", choices=SETTINGS, default=tuple(SETTINGS))
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"))
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    result = measure(
        settings=("small",) if given.quick else given.setting,
        stages=given.stage,
        batch=given.batch,
        images=2 * given.batch if given.quick else given.images,
        epochs=given.epochs,
        device=given.device,
        precisions=given.precision,
        compiled=given.compile,
    )
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
