"""What a trained method costs to use: milliseconds an image, and trained numbers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nfbmr.config import FeatureConfig
from nfbmr.features.backbone import load_backbone
from nfbmr.features.engine import Engine
from nfbmr.features.table import TensorTable, join
from nfbmr.methods.detector import Detector
from nfbmr.training.compute import device_of


def latency_ms(model: Path, *, device: str = "auto", repeats: int = 9) -> float:
    """Milliseconds from a prepared picture to its score parts, one picture at a time.

    The backbone up to its last tap, the flow and the mapping, in the arithmetic the model was made with;
    reading and resizing the file are not in it. The median of several passes after a warm-up, so that one
    disturbed pass says nothing; a busy machine is slower all the same.

    Args:
        model: Folder of the model.
        device: Where to measure; ``auto`` takes the GPU where there is one.
        repeats: Passes that are measured.

    Raises:
        CheckpointError: The model is damaged.
        BackboneError: Its backbone cannot be loaded.
    """
    place = device_of(device)
    detector = Detector.load(model, place)
    features = detector.config.features
    engine = _engine(features, place)
    x_13SS = torch.randn(1, 3, features.size, features.size).to(engine.dtype)

    def once() -> None:
        y_T1CHW = [y.to(torch.float16).cpu() for y in engine(x_13SS)]
        tables = [TensorTable(y, ("picture",)) for y in y_T1CHW]
        detector.parts(join(tables).gather([0]))

    return 1000 * _median_seconds(once, repeats)


def parameters_of(summary: dict[str, Any]) -> int:
    """Trained numbers of all stages together, as a run's summary has them by stage.

    Example:
        >>> parameters_of({"parameters": {"flow": 1200, "mapping": 300}})
        1500
    """
    return int(sum(summary["parameters"].values()))


def _engine(features: FeatureConfig, device: torch.device) -> Engine:
    """The backbone as extraction runs it; a model's configuration says in which arithmetic."""
    compute = "fp32" if features.compute == "auto" else features.compute
    backbone = load_backbone(features)
    return Engine(backbone, compute=compute, size=features.size, device=str(device), compiled=False)


def _median_seconds(once: Callable[[], None], repeats: int) -> float:
    for _ in range(2):
        once()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        once()  # ends with its result on the CPU, so nothing is left under way on a GPU
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
