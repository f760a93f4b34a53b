"""What a finished run costs to use: milliseconds an image from file to score, and its size.

Measured on this machine, in this process, warm: the model is loaded once; each call reads and decodes its
files, resizes them, and goes through backbone, networks, fusion and reduction, as ``nfbmr predict`` does.
:func:`nfbmr.methods.latency.latency_ms` is the quicker look that sweeps and gates take, without files.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nfbmr.config import FeatureConfig
from nfbmr.data.pictures import picture_from
from nfbmr.devices import device_of, limit_threads
from nfbmr.environment import environment
from nfbmr.errors import NfbmrError
from nfbmr.features.backbone import load_backbone
from nfbmr.features.passes import passes_of
from nfbmr.features.reader import FeatureReader
from nfbmr.features.weights import resolve_weights
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths, read_json
from nfbmr.prediction import Predictor

WARM = 2
"""Calls before those that are timed."""
_CALLS = 15
_FEWEST = 5
SECONDS = 6.0
"""Calls before the stopwatch; with it at most; with it where those take longer than these seconds, three
where they take far longer."""
TAILS = (0.1, 0.9)
"""Between which quantiles of its calls a timing is told."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds an image: the median of several calls, and the range that eight tenths of them lie in."""

    value: float
    low: float
    high: float
    calls: int


@dataclass(frozen=True)
class Cost:
    """What using a model costs.

    Attributes:
        one: One image a call.
        batched: An image among `batch` of them.
        batch: Images a call, as the configuration's ``features.batch`` has it.
        reading: Milliseconds of that from an image's file to features, its test views included.
        views: Number of views of each image; test scores are their mean.
        parameters: Trained numbers.
        model_bytes: The model on disk, measured numbers (a bank, means) included, backbones not.
        backbone_parameters: Parameters of the frozen networks up to their last taps.
        backbone_bytes: The frozen networks' weights on disk, as a packed model carries them.
        machine: Where it was measured: processor, cores, threads, device.
        others: Cores that other processes kept busy meanwhile; timings are too long where that is not next to
            nothing.
    """

    one: Timing
    batched: Timing
    batch: int
    reading: Timing
    views: int
    parameters: int
    model_bytes: int
    backbone_parameters: int
    backbone_bytes: int
    machine: Mapping[str, Any] = field(default_factory=dict)
    others: float = 0.0

    @property
    def total_bytes(self) -> int:
        """Model and frozen networks on disk."""
        return self.model_bytes + self.backbone_bytes

    def as_json(self) -> dict[str, Any]:
        """Plain values, which :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Cost:
        """What :meth:`as_json` gave."""
        timings = {name: Timing(**values[name]) for name in ("one", "batched", "reading")}
        return cls(**{**values, **timings})

    def numbers(self) -> dict[str, float]:
        """What a tracker is told."""
        return {
            "cost/ms_one": self.one.value,
            "cost/ms_batched": self.batched.value,
            "cost/parameters": float(self.parameters),
            "cost/backbone_parameters": float(self.backbone_parameters),
            "cost/model_bytes": float(self.model_bytes),
            "cost/backbone_bytes": float(self.backbone_bytes),
        }


def measure_cost(run: Path, images: Sequence[Path], *, device: str = "auto") -> Cost:
    """Measure a finished run's model.

    Args:
        run: Folder of the run.
        images: Files to score, such as its test images; a few of different sizes say more than one.
        device: Where; ``auto`` takes the GPU where there is one.

    Raises:
        NfbmrError: The model is damaged, its backbone cannot be had, or no image can be read.
    """
    limit_threads()
    paths = RunPaths(run)
    detector = Detector.load(paths.model, device_of(device))
    predictor = Predictor(detector, device)
    batch, features = predictor.batch, predictor.features
    turn = itertools.cycle(images)
    reader = FeatureReader(features, device_of(device), "bf16")

    def several(count: int) -> Callable[[], None]:
        def score() -> None:
            files = list(itertools.islice(turn, count))
            for scored in predictor.score(files):
                if scored.error is not None:
                    where = ", ".join(map(str, files))
                    raise NfbmrError(f"an image cannot be read ({scored.error})", where=where)

        return score

    def reading() -> None:
        files = itertools.islice(turn, batch)
        reader([reader.prepared(picture_from(file)) for file in files])

    busy = _Busy()
    timings = (_timed(several(1), 1), _timed(several(batch), batch), _timed(reading, batch))
    networks: dict[tuple[str, str], FeatureConfig] = {}
    for net in passes_of(features):  # each frozen network once, at whatever scales it is used
        networks.setdefault((net.backbone, net.weights), net)
    bodies = [resolve_weights(net.backbone, net.weights).body for net in networks.values()]
    return Cost(
        *timings[:2],
        batch=batch,
        reading=timings[2],
        views=features.test_rotations,
        parameters=sum(detector.parameters().values()),
        # Without weights of backbones that were packed with it: those lie in a folder.
        model_bytes=sum(path.stat().st_size for path in paths.model.iterdir() if path.is_file()),
        backbone_parameters=sum(
            p.numel() for net in networks.values() for p in load_backbone(net).parameters()
        ),
        backbone_bytes=sum(tensor.nbytes for body in bodies for tensor in body.values()),
        machine=machine_of(device),
        others=busy.others(),
    )


def machine_of(device: str = "auto") -> dict[str, Any]:
    """What timings depend on: two that differ in it are not to be compared."""
    place = device_of(device)
    machine = environment()["machine"]
    gpu = torch.cuda.get_device_name(place) if place.type == "cuda" else None
    return {
        "cpu": machine["cpu"],
        "cpus": machine["cpus"],
        "threads": torch.get_num_threads(),
        "device": place.type,
        "gpu": gpu,
    }


def read_cost(run: Path) -> Cost | None:
    """What :func:`measure_cost` found earlier and somebody wrote down; None where there is nothing."""
    path = RunPaths(run).cost
    if not path.exists():
        return None
    try:
        return Cost.from_json(read_json(path))
    except (NfbmrError, TypeError, KeyError):
        return None


class _Busy:
    """Watches what others do on the cores that this process may use."""

    def __init__(self) -> None:
        self._began, self._before = time.perf_counter(), self._seconds()

    def others(self) -> float:
        """Cores that others kept busy since it was made."""
        busy, by_us = (after - before for after, before in zip(self._seconds(), self._before, strict=True))
        return round(max(0.0, busy - by_us) / (time.perf_counter() - self._began), 2)

    def _seconds(self) -> tuple[float, float]:
        import psutil

        cores, times = os.sched_getaffinity(0), psutil.cpu_times(percpu=True)
        mine = [core_times for core, core_times in enumerate(times) if core in cores]
        busy = sum(core_times.user + core_times.nice + core_times.system for core_times in mine)
        of_process = psutil.Process().cpu_times()
        return busy, of_process.user + of_process.system


def _timed(once: Callable[[], None], images: int) -> Timing:
    for _ in range(WARM if images == 1 else 1):
        once()
    taken: list[float] = []
    while len(taken) < _FEWEST or (len(taken) < _CALLS and sum(taken) < SECONDS):
        if len(taken) >= 3 and sum(taken) > 2 * SECONDS:
            break
        began = time.perf_counter()
        once()  # its result is on the CPU when it ends, so nothing is left under way on a GPU
        taken.append(time.perf_counter() - began)
    median, low, high = 1000 * np.quantile(taken, [0.5, *TAILS]) / images
    return Timing(round(float(median), 3), round(float(low), 3), round(float(high), 3), len(taken))
