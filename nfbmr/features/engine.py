"""The forward pass as this machine does it fastest: type, device, compilation.

The arithmetic (fp32 or bf16) is part of what stored features are; whether the pass is compiled is not, it
differs by rounding only.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import platform
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from nfbmr.addresses import cache_folder
from nfbmr.config import FeatureConfig
from nfbmr.data.pictures import Size, sides
from nfbmr.errors import Interrupted, OutputError
from nfbmr.features.backbone import Backbone, BackboneInfo, shared_backbone
from nfbmr.features.fused import fused
from nfbmr.features.tiles import tiling_of
from nfbmr.paths import read_json, write_json
from nfbmr.processors import has_bf16

log = logging.getLogger(__name__)

Compute = Literal["fp32", "bf16"]
_DTYPES: dict[Compute, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TRIALS = 3
_PLAIN, _HOPELESS = 1.5, 4.0  # times as slow
_PIXELS_IN_CACHE = 4 * 384**2  # four pictures of 384 px were fastest: 2.1 times as fast as sixteen
_ALL = 1 << 30


class Engine:
    """A backbone in one arithmetic on one device, as fast as it goes there.

    On the CPU convolutions are fused with their activations, and a batch is worked off a few pictures at a
    time: their maps then stay in the cache.

    Args:
        backbone: Left as it is; the engine works on a copy.
        compute: fp32 or bf16.
        size: (H, W) of the pictures in pixels, or the side of a square.
        device: Where it runs.
        compiled: Try torch.compile with frozen weights; where that fails the pass runs without.
        tile: Side in pixels of the tiles of larger pictures (:mod:`nfbmr.features.tiles`); None for none.

    Raises:
        BackboneError: The backbone's maps cannot be joined from tiles.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        compute: Compute,
        size: Size,
        device: str = "cpu",
        compiled: bool = False,
        tile: int | None = None,
    ) -> None:
        self.backbone = backbone
        self.dtype = _DTYPES[compute]
        self.device = torch.device(device)
        on_cpu = self.device.type == "cpu"
        self._tiling = tiling_of(sides(size), tile)
        if self._tiling is not None:
            size = self._tiling.seen
            self._tiling.check(backbone)
        self._chunk = max(1, round(_PIXELS_IN_CACHE / math.prod(sides(size)))) if on_cpu else _ALL
        self._net = copy.deepcopy(backbone).to(self.device, self.dtype)
        self._compiled: Any = None
        if compiled:
            self._compiled = torch.compile(copy.copy(self._net), dynamic=False, options={"freezing": True})
        if on_cpu:
            self._net.net = fused(self._net.net, size, self.dtype)
        self._largest = 0

    def __call__(self, x_B3SS: Tensor) -> tuple[Tensor, ...]:
        """Features of every tap, on the CPU."""
        with torch.inference_mode():
            if self._tiling is None:
                return self._maps(x_B3SS)
            return self._tiling.joined(self._maps, x_B3SS, self.backbone)

    def _maps(self, x_B3SS: Tensor) -> tuple[Tensor, ...]:
        x = x_B3SS.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        parts = [self._run(part) for part in torch.split(x, self._chunk)]
        return tuple(torch.cat(taps).cpu() for taps in zip(*parts, strict=True))

    def _run(self, x: Tensor) -> tuple[Tensor, ...]:
        if self._compiled is not None:
            try:
                return self._run_compiled(x)
            except Exception as error:  # no compiler, an operator it does not know: the pass goes without
                log.warning(
                    "cannot be compiled here (%s); going on without", str(error).splitlines()[0][:160]
                )
                self._compiled = None
        return cast(tuple[Tensor, ...], self._net(x))

    def _run_compiled(self, x: Tensor) -> tuple[Tensor, ...]:
        self._largest = max(self._largest, len(x))
        lacking = self._largest - len(x)  # filled up: another batch size would be compiled anew
        full = torch.cat([x, x[:1].expand(lacking, -1, -1, -1)]) if lacking else x
        return tuple(y[: len(x)] for y in self._compiled(full))


def choose_compute(
    backbone: BackboneInfo,
    config: FeatureConfig,
    device: str = "cpu",
    *,
    stop: Callable[[], bool] | None = None,
) -> Compute:
    """fp32 or bf16, whichever is faster for this backbone, size and machine.

    fp32 where the processor has no bf16, and bf16 on a GPU that has it. Only a CPU that has it is measured:
    once, and remembered in the machine's cache, so that the same command gives the same numbers whatever
    store it is given, although the two are often close.

    Args:
        backbone: Whose forward pass it is; the network is loaded where that is measured.
        config: With the size of the pictures.
        device: Where it runs.
        stop: Read between passes; True stops.

    Raises:
        Interrupted: `stop` said so; nothing is remembered.
    """
    if not has_bf16(device):
        return "fp32"
    if torch.device(device).type == "cuda":
        return "bf16"
    memory = cache_folder() / f"machine-{_machine(device)}.json"
    tiling = tiling_of(config.shape, config.tile)
    seen = config.shape if tiling is None else tiling.seen
    key = f"{backbone.name} {','.join(backbone.taps)} {_extent(seen)}"
    known = _remembered(memory)
    if not _is_known(known, key):
        log.info(
            "measuring, once for this machine, whether fp32 or bf16 is faster: %s (or set features.compute)",
            key,
        )
        seconds = _seconds(shared_backbone(config), seen, device, stop)
        log.info("seconds an image, %s: %s", key, seconds)
        known = _remembered(memory)  # anew: whoever measured meanwhile was first
        if not _is_known(known, key):
            known[key] = seconds
            try:
                write_json(memory, known)
            except OutputError as error:
                log.debug("not remembered: %s", error)
    return "bf16" if known[key]["bf16"] < known[key]["fp32"] else "fp32"


def _extent(shape: tuple[int, int]) -> str:
    height, width = shape
    return f"{height}px" if height == width else f"{width}x{height}px"


def _is_known(known: dict[str, Any], key: str) -> bool:
    return set(known.get(key) or ()) == set(_DTYPES)


def _remembered(path: Path) -> dict[str, Any]:
    try:
        known = read_json(path)
    except OutputError:
        return {}
    return known if isinstance(known, dict) else {}


def _seconds(
    backbone: Backbone, seen: tuple[int, int], device: str, stop: Callable[[], bool] | None
) -> dict[Compute, float]:
    x_13HW = torch.randn(1, 3, *seen)

    def passes(compute: Compute) -> Callable[[], object]:
        return partial(Engine(backbone, compute=compute, size=seen, device=device), x_13HW)

    best = compared({compute: passes(compute) for compute in _DTYPES}, stop)
    return {compute: round(seconds, 6) for compute, seconds in best.items()}


def compared(
    passes: Mapping[Compute, Callable[[], object]],
    stop: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Compute, float]:
    """Seconds that a pass takes in each arithmetic, fp32 first.

    In turns, so that a machine that is busy for a moment does not decide, and no longer than until one is
    plainly slower.

    Args:
        passes: One pass in each arithmetic.
        stop: Read before each pass; True stops.
        clock: Seconds.

    Raises:
        Interrupted: `stop` said so.
    """
    best: dict[Compute, float] = {}
    for turn in range(1 + _TRIALS):
        for compute, once in passes.items():
            if stop is not None and stop():
                raise Interrupted(
                    "stopped while fp32 and bf16 were compared", fix="run the same command again"
                )
            start = clock()
            once()
            took = clock() - start
            best[compute] = took if turn <= 1 else min(best[compute], took)  # the first one warms up
        # fp32 warmed up first, for both: bf16 that is many times slower even so will not catch up.
        if turn == 0 and best["bf16"] > _HOPELESS * best["fp32"]:
            break
        if turn > 0 and max(best.values()) > _PLAIN * min(best.values()):
            break
    return best


def _machine(device: str) -> str:
    about = [platform.machine(), torch.backends.cpu.get_cpu_capability(), _cpu_model(), torch.__version__]
    about += [str(torch.get_num_threads()), device]
    if device.startswith("cuda"):
        about.append(torch.cuda.get_device_name(device))
    return hashlib.sha256("\0".join(about).encode()).hexdigest()[:12]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
