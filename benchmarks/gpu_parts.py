"""The parts of ``python -m benchmarks.gpu``: functions of a folder, the device and whether all is tiny."""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nfbmr
from benchmarks.extraction import write_images
from benchmarks.training import SETTINGS, STAGES, measure, product_rate
from nfbmr.config import FeatureConfig, FlowConfig, StageConfig
from nfbmr.data.synthesize import CLASSES, synthesize
from nfbmr.devices import device_of
from nfbmr.features.extraction import extract
from nfbmr.features.graph import Hooked
from nfbmr.features.models import new_model
from nfbmr.features.store import FeatureStore
from nfbmr.flows.flow import Flow
from nfbmr.training.optimiser import Optimiser
from nfbmr.training.stages import FlowStage

IMAGES, EPOCHS = 242, 300
"""Of a category, as the paper trains."""
ROOM = 90.0
"""Seconds that the whole stage may take; longer ones are estimated from fewer epochs."""
FEW = 20
"""Epochs of the runs that are compared with each other."""
STEPS = 20
TOLERANCE = 1e-3
"""Relative, of losses on two devices in float32 after some steps of Adam."""
TRIALS = 4


def about(device: str) -> dict[str, Any]:
    """The machine."""
    where = device_of(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    return {"name": name, "torch": torch.__version__, "bf16_tflops": product_rate(torch.bfloat16, where)}


def training(folder: Path, device: str, tiny: bool) -> dict[str, Any]:
    """Rates of both stages by batch, plain and compiled, then stage one from beginning to end."""
    setting = "small" if tiny else "paper"
    images, batches = (4, (2,)) if tiny else (IMAGES, (8, 32))
    ways = []
    for batch in batches:
        for compiled in (False,) if tiny else (False, True):
            result = measure(
                settings=(setting,),
                stages=STAGES,
                batch=batch,
                images=images,
                epochs=2 if tiny else 4,
                device=device,
                precisions=("bf16",),
                compiled=compiled,
            )
            ways += [{"batch": batch, "compiled": compiled, **row} for row in result["stages"]]
    epochs = 3 if tiny else EPOCHS
    plain = next(way for way in ways if (way["stage"], way["batch"]) == ("flow", batches[0]))
    estimate = plain["milliseconds_a_step"] * 1e-3 * -(-images // batches[0]) * epochs
    run = min(epochs, max(4, int(epochs * ROOM / estimate)))
    result = measure(
        settings=(setting,),
        stages=("flow",),
        batch=batches[0],
        images=images,
        epochs=run,
        device=device,
        precisions=("bf16",),
    )
    seconds = result["stages"][0]["whole_stage_seconds"] * epochs / run
    how = "measured" if run == epochs else f"estimated from {run} epochs"
    shape = SETTINGS[setting].shape
    return {
        "shape": shape,
        "images": images,
        "ways": ways,
        "whole": {"epochs": epochs, "seconds": seconds, "how": how},
    }


def extraction(folder: Path, device: str, tiny: bool) -> dict[str, Any]:
    """Images a second from JPEG files to the store, and of the bare forward pass on a batch at hand."""
    backbone, size, count = ("tf_efficientnet_lite0", 64, 12) if tiny else ("tf_efficientnet_b5", 768, 256)
    config = FeatureConfig(backbone=backbone, weights="random", size=size, taps=("blocks.5",), batch=16)
    if tiny:
        config = config.model_copy(update={"compute": "fp32", "batch": 4})
    where, work = device_of(device), _empty(folder / "work-extraction")
    pictures = write_images(work / "images", count + config.batch, size * 4 // 3)
    store = FeatureStore(work / "store")
    extract(pictures[: config.batch], config, store, device=str(where))  # kernels are chosen, workers started
    end_to_end = count / extract(pictures, config, store, device=str(where)).seconds
    network = Hooked(new_model(backbone).eval(), ("blocks.5",)).to(where)
    network = network.to(memory_format=torch.channels_last)
    x_B3HW = torch.randn(config.batch, 3, size, size).to(where).contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(where.type, torch.bfloat16, enabled=not tiny):
            network(x_B3HW)

    seconds = _seconds(forward, where, repeats=3 if tiny else 20)
    shutil.rmtree(work)
    return {
        "backbone": backbone,
        "size": size,
        "images": count,
        "end_to_end": end_to_end,
        "forward": config.batch / seconds,
    }


def ddp(folder: Path, device: str, tiny: bool) -> dict[str, Any]:
    """Losses of some steps in float32: DistributedDataParallel with one process, and the CPU without."""
    _full_precision()
    from nfbmr.workers import DistributedGroup

    where = device_of(device)
    backend = "nccl" if where.type == "cuda" else "gloo"
    if where.type == "cuda":
        torch.cuda.set_device(where)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo", rank=0, world_size=1
    )
    try:
        spread = losses(where, tiny, DistributedGroup().wrap_ddp)
    finally:
        torch.distributed.destroy_process_group()
    alone = losses(torch.device("cpu"), tiny, lambda module: module)
    pairs = list(zip(spread, alone, strict=True))
    difference = max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
    return {
        "backend": backend,
        "losses": pairs,
        "difference": difference,
        "tolerance": TOLERANCE,
        "within": difference <= TOLERANCE,
    }


class _Loss(nn.Module):
    def __init__(self, stage: FlowStage) -> None:
        super().__init__()
        self.module, self.stage = stage.module, stage

    def forward(self, y_BCHW: Tensor) -> Tensor:
        return self.stage.loss(y_BCHW)


def losses(where: torch.device, tiny: bool, wrap: Callable[[nn.Module], nn.Module]) -> list[float]:
    """Of some steps of stage one on the same random features."""
    shape, hidden, steps = ((8, 4, 4), 8, 5) if tiny else ((192, 12, 12), 256, STEPS)
    generator = torch.Generator().manual_seed(0)
    stage = FlowStage(Flow(shape, FlowConfig(hidden=hidden), seed=0))
    stage.module.to(where)
    loss, optimiser = wrap(_Loss(stage)), Optimiser(stage.module, StageConfig(), steps, stage.rates)
    values = []
    for step in range(steps):
        value: Tensor = loss(torch.randn(8, *shape, generator=generator).to(where))
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step(step)
        values.append(float(value))
    return values


def scores(folder: Path, device: str, tiny: bool) -> dict[str, Any]:
    """One run in float32 and one in bf16, features and all, and how far scores of test images are apart."""
    _full_precision()
    work = _empty(folder / "work-scores")
    data = _data(work, tiny)
    images = sorted(data.rglob("test/*/*.png"))
    found: dict[str, list[float]] = {}
    auroc: dict[str, float] = {}
    for precision in ("fp32", "bf16"):
        more = {"train.precision": precision, "features.compute": precision}
        summary = nfbmr.train(_config(work / precision, data, device, tiny, more))
        auroc[precision] = summary["metrics"]["test"]["image_auroc"]["value"]
        found[precision] = [
            row.score for row in nfbmr.predict(summary["run_dir"], images) if row.score is not None
        ]
    spread = statistics.stdev(found["fp32"])
    apart = [abs(a - b) / spread for a, b in zip(found["fp32"], found["bf16"], strict=True)]
    shutil.rmtree(work)
    return {
        "images": len(images),
        "auroc": auroc,
        "median": statistics.median(apart),
        "largest": max(apart),
    }


_TRIAL = """
import json, sys, time
import nfbmr
from nfbmr.devices import device_of, gpu_memory
settings = json.loads(sys.argv[1])
summary = nfbmr.train(nfbmr.configure(settings=settings))
auroc = [summary["selection"]["auroc"], summary["metrics"]["test"]["image_auroc"]["value"]]
print(json.dumps({"auroc": auroc, "memory": gpu_memory(device_of(settings["train.device"]))}))
"""


def sharing(folder: Path, device: str, tiny: bool) -> dict[str, Any]:
    """A trial alone, which sizes the others as a sweep with ``gpu=auto`` does; then four, as many as fit."""
    from tune.execution.resources import gpu_share

    work = _empty(folder / "work-sharing")
    data = _data(work, tiny)

    def begin(name: str) -> subprocess.Popen[str]:
        settings = _settings(work / name, data, device, tiny, {"store": str(work / "store")})
        command = [sys.executable, "-c", _TRIAL, json.dumps(settings)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    _end([begin("first")])  # features, which all share
    began = time.monotonic()
    (first,) = _end([begin("alone")])
    alone, memory = time.monotonic() - began, first["memory"]
    share = None if memory is None else gpu_share(memory["peak_bytes"], memory["total_bytes"])
    at_once = TRIALS if share is None else min(TRIALS, int(1 / share))
    began, answers = time.monotonic(), []
    for start in range(0, TRIALS, at_once):
        answers += _end([begin(f"trial-{i}") for i in range(start, min(TRIALS, start + at_once))])
    together = time.monotonic() - began
    shutil.rmtree(work)
    return {
        "trials": TRIALS,
        "at_once": at_once,
        "share": share,
        "memory": memory,
        "alone": alone,
        "together": together,
        "difference": max(
            abs(a - b) for answer in answers for a, b in zip(answer["auroc"], first["auroc"], strict=True)
        ),
    }


def _end(trials: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """What each printed last."""
    answers = []
    for process in trials:
        answer, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"a trial ended with {process.returncode}")
        answers.append(json.loads(answer.splitlines()[-1]))
    return answers


def _data(work: Path, tiny: bool) -> Path:
    counts = {"train": 8, "test_good": 4, "test_defective": 4, "size": 64} if tiny else {"train": 96}
    return synthesize(work / "data", classes=CLASSES[:1], **counts)


def _settings(work: Path, data: Path, device: str, tiny: bool, more: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "data.path": str(data),
        "output": str(work / "runs"),
        "store": str(work / "store"),
        "train.device": device,
        "train.flow.epochs": FEW,
        "train.mapping.epochs": FEW,
        "evaluation.bootstrap": 0,
        "evaluation.heatmaps": 0,
        "tracking.kind": "folder",
    }
    if tiny:
        values |= {
            "features.size": 64,
            "features.scales": [1.0],
            "features.taps": ["blocks.2"],
            "features.detail.taps": [],
            "features.compute": "fp32",
            "flow.blocks": 2,
            "flow.hidden": 8,
            "train.flow.epochs": 2,
            "train.mapping.epochs": 1,
            "train.precision": "fp32",
        }
    return values | more


def _config(work: Path, data: Path, device: str, tiny: bool, more: dict[str, Any]) -> Any:
    return nfbmr.configure(settings=_settings(work, data, device, tiny, more))


def _full_precision() -> None:
    """Float32 is float32, not what tensor cores make of it."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _seconds(step: Callable[[], None], where: torch.device, repeats: int) -> float:
    """The quickest of some."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        step()
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        times.append(time.perf_counter() - began)
    return min(times)


def _empty(folder: Path) -> Path:
    """A part that was broken off left its own behind."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


PARTS: dict[str, Callable[[Path, str, bool], dict[str, Any]]] = {
    "training": training,
    "extraction": extraction,
    "ddp": ddp,
    "scores": scores,
    "sharing": sharing,
}
