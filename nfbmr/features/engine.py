"""The forward pass as this machine does it fastest: type, device, compilation.

The arithmetic (fp32 or bf16) is part of what stored features are; whether the pass is compiled is not, it
differs by rounding only.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import platform
import time
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from nfbmr.addresses import cache_folder
from nfbmr.config import FeatureConfig
from nfbmr.errors import OutputError
from nfbmr.features.backbone import Backbone
from nfbmr.features.fused import fused
from nfbmr.paths import read_json, write_json

log = logging.getLogger(__name__)

Compute = Literal["fp32", "bf16"]
_DTYPES: dict[Compute, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TRIAL_BATCH = 4
_TRIALS = 3
_PIXELS_IN_CACHE = 4 * 384**2  # four pictures of 384 px were fastest: 2.1 times as fast as sixteen
_ALL = 1 << 30


class Engine:
    """A backbone in one arithmetic on one device, as fast as it goes there.

    On the CPU convolutions are fused with their activations, and a batch is worked off a few pictures at a
    time: their maps then stay in the cache.

    Args:
        backbone: Left as it is; the engine works on a copy.
        compute: fp32 or bf16.
        size: Of the pictures, in pixels.
        device: Where it runs.
        compiled: Try torch.compile with frozen weights; where that fails the pass runs without.
    """

    def __init__(
        self, backbone: Backbone, *, compute: Compute, size: int, device: str = "cpu", compiled: bool = False
    ) -> None:
        self.backbone = backbone
        self.dtype = _DTYPES[compute]
        self.device = torch.device(device)
        on_cpu = self.device.type == "cpu"
        self._chunk = max(1, round(_PIXELS_IN_CACHE / size**2)) if on_cpu else _ALL
        self._net = copy.deepcopy(backbone).to(self.device, self.dtype)
        self._compiled: Any = None
        if compiled:
            import torch._inductor.config as inductor

            inductor.freezing = True
            self._compiled = torch.compile(copy.copy(self._net), dynamic=False)
        if on_cpu:
            self._net.net = fused(self._net.net, size, self.dtype)
        self._largest = 0

    def __call__(self, x_B3SS: Tensor) -> tuple[Tensor, ...]:
        """Features of every tap, on the CPU."""
        x = x_B3SS.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
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


def choose_compute(backbone: Backbone, config: FeatureConfig, device: str = "cpu") -> Compute:
    """fp32 or bf16, whichever is faster for this backbone, size and machine.

    Measured once, and remembered in the machine's cache: the same command gives the same numbers whatever
    store it is given, although the two are often close.
    """
    memory = cache_folder() / f"machine-{_machine(device)}.json"
    key = f"{backbone.name} {','.join(backbone.taps)} {config.size}px"
    known = _remembered(memory)
    if not _is_known(known, key):
        seconds = _seconds(backbone, config, device)
        log.info("seconds an image, %s: %s", key, seconds)
        known = _remembered(memory)  # anew: whoever measured meanwhile was first
        if not _is_known(known, key):
            known[key] = seconds
            try:
                write_json(memory, known)
            except OutputError as error:
                log.debug("not remembered: %s", error)
    return "bf16" if known[key]["bf16"] < known[key]["fp32"] else "fp32"


def _is_known(known: dict[str, Any], key: str) -> bool:
    return set(known.get(key) or ()) == set(_DTYPES)


def _remembered(path: Path) -> dict[str, Any]:
    try:
        known = read_json(path)
    except OutputError:
        return {}
    return known if isinstance(known, dict) else {}


def _seconds(backbone: Backbone, config: FeatureConfig, device: str) -> dict[str, float]:
    """Seconds an image; in turns, so that a machine that is busy for a moment does not decide."""
    engines = {c: Engine(backbone, compute=c, size=config.size, device=device) for c in _DTYPES}
    x = torch.randn(min(config.batch, _TRIAL_BATCH), 3, config.size, config.size)
    best = dict.fromkeys(engines, float("inf"))
    for attempt in range(1 + _TRIALS):
        for compute, engine in engines.items():
            start = time.perf_counter()
            engine(x)
            if attempt:  # the first one warms up
                best[compute] = min(best[compute], time.perf_counter() - start)
    return {compute: round(seconds / len(x), 6) for compute, seconds in best.items()}


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
