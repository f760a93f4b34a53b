"""Which arithmetic and which library compute features where the configuration leaves it to the machine.

Either decides the last bits of a feature, so it is part of what stored features are and stands in the model.
What a store has is taken; else it is measured, once a machine, so that no stopwatch decides a second time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import math
import platform
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from nfbmr.addresses import cache_folder
from nfbmr.config import FeatureConfig
from nfbmr.disk_cache import versions
from nfbmr.errors import BackboneError, Interrupted, MissingPackageError, OutputError
from nfbmr.features.backbone import Backbone, BackboneInfo, backbone_info, shared_backbone
from nfbmr.features.engine import DTYPES, Compute, Engine, Library
from nfbmr.features.keys import space_spec
from nfbmr.features.passes import passes_of
from nfbmr.features.store import FeatureStore
from nfbmr.features.symmetry import GROUPS
from nfbmr.features.tiles import tiling_of
from nfbmr.locks import file_lock
from nfbmr.paths import read_json, write_json
from nfbmr.processors import has_bf16, warn_if_emulated

log = logging.getLogger(__name__)

Name = TypeVar("Name", bound=str)
Stop = Callable[[], bool] | None
"""Says whether a stop was asked for; None where nobody asks."""

_TRIALS = 3
_PLAIN, _HOPELESS = 1.5, 4.0  # times as slow
PIXELS_THAT_PAY = 32 * 1024**2
"""Of all pictures at all sizes, from which OpenVINO is asked at all: 512 of 256 px. Bringing networks
into it and measuring both takes about as long as it saves on these."""
WORTH = 1.1
"""Times as fast that OpenVINO has to be, so that noise does not choose it."""


class Arithmetic(NamedTuple):
    """How features are computed, as far as it decides their last bits."""

    compute: Compute
    library: Library


def arithmetic_for(
    config: FeatureConfig,
    store: FeatureStore,
    keys: Collection[str],
    device: str,
    stop: Stop,
    *,
    openvino: bool = True,
) -> Arithmetic:
    """What was asked for; for auto what the store has most rows of, else what is faster here.

    Features of OpenVINO's that are all stored are taken wherever they are read: nothing is computed then.

    Args:
        config: All passes; all of them are computed alike.
        store: Where features are kept.
        keys: Of the distinct pictures.
        device: Where the networks run.
        stop: Read between passes of a measurement; True stops.
        openvino: Whether every process that takes part has OpenVINO for its device.

    Raises:
        Interrupted: `stop` said so.
    """
    passes = passes_of(config)
    if keys and config.engine != "torch" and config.compute != "bf16" and not config.compile:
        made = Arithmetic("fp32", "openvino")
        if all(_rows(store, net, keys, made) == len(keys) * len(net.taps) for net in passes):
            return made
    possible = _possible(config, device, openvino=openvino)
    if len(possible) == 1:
        return possible[0]
    first = passes[0]
    rows = {made: _rows(store, first, keys, made) for made in possible}
    if any(rows.values()):
        return max(rows, key=lambda made: rows[made])
    computes = {made.compute for made in possible}
    if len(computes) > 1:
        compute = choose_compute(backbone_info(first), first, device, stop=stop)
    else:
        compute = computes.pop()
    if Arithmetic(compute, "openvino") not in possible:
        return Arithmetic(compute, "torch")
    return Arithmetic(compute, choose_library(config, len(keys), stop=stop))


def _possible(config: FeatureConfig, device: str, *, openvino: bool) -> tuple[Arithmetic, ...]:
    """All that a configuration leaves open here, never nothing."""
    reason = openvino_unfit(device)
    if reason is None and not openvino:
        reason = "another process of this run has no OpenVINO"
    if config.engine == "openvino" and reason is None:
        return (Arithmetic("fp32", "openvino"),)
    if config.engine == "openvino":
        log.warning("features.engine=openvino: %s; torch computes the features", reason)
    if config.compute == "bf16":
        warn_if_emulated("features.compute", device)
    computes: tuple[Compute, ...] = ("bf16", "fp32") if config.compute == "auto" else (config.compute,)
    possible = [Arithmetic(compute, "torch") for compute in computes]
    if config.engine == "auto" and reason is None and "fp32" in computes and not config.compile:
        possible.append(Arithmetic("fp32", "openvino"))
    return tuple(possible)


def openvino_unfit(device: torch.device | str) -> str | None:
    """Why OpenVINO is of no use on a device, in words; None where it is."""
    if torch.device(device).type != "cpu":
        return "OpenVINO runs on the CPU here"
    if importlib.util.find_spec("openvino") is None:
        return 'OpenVINO is not installed (pip install "nfbmr[export]")'
    return None


def _rows(store: FeatureStore, config: FeatureConfig, keys: Collection[str], made: Arithmetic) -> int:
    """Rows of these pictures that the store has of a pass, made in one way."""
    info = backbone_info(config)
    specs = [space_spec(info, tap, config, *made) for tap in info.taps]
    if not all(map(store.exists, specs)):
        return 0
    return sum(len(keys) - len(store.space(spec).missing(keys)) for spec in specs)


def choose_compute(
    backbone: BackboneInfo,
    config: FeatureConfig,
    device: str = "cpu",
    *,
    stop: Stop = None,
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
    key = _described(backbone.name, backbone.taps, config)

    def measure() -> dict[str, float | None]:
        net = shared_backbone(config)
        passes: dict[str, Callable[[], object]] = {
            dtype: _passes([(net, config)], device, dtype, "torch") for dtype in DTYPES
        }
        return dict(compared(passes, stop))

    seconds = _measured_once(key, tuple(DTYPES), "fp32 or bf16", "features.compute", device, measure)
    return "bf16" if _wins(seconds, "bf16", "fp32") else "fp32"


def choose_library(config: FeatureConfig, count: int, *, stop: Stop = None) -> Library:
    """Torch or OpenVINO, for all passes of a configuration in float32 on this CPU.

    OpenVINO where it is plainly faster and there are enough pictures (:data:`PIXELS_THAT_PAY`); the number
    alone decides whether it is asked, so that the same command always gets the same answer.

    Args:
        config: All passes.
        count: Of distinct pictures, stored or not.
        stop: Read between passes; True stops.

    Raises:
        Interrupted: `stop` said so; nothing is remembered.
    """
    passes = passes_of(config)
    if count * sum(math.prod(net.shape) * len(GROUPS[net.symmetry]) for net in passes) < PIXELS_THAT_PAY:
        return "torch"
    infos = [backbone_info(net) for net in passes]
    described = [_described(info.name, info.taps, net) for info, net in zip(infos, passes, strict=True)]
    key = "; ".join([*described, f"openvino {versions('openvino')['openvino']}"])

    def measure() -> dict[str, float | None]:
        looks = [(shared_backbone(net), net) for net in passes]
        ways: dict[str, Callable[[], object]] = {"torch": _passes(looks, "cpu", "fp32", "torch")}
        try:
            ways["openvino"] = _passes(looks, "cpu", "fp32", "openvino")
        except (BackboneError, MissingPackageError) as error:
            log.info("%s: torch computes the features", error.what)
            return {"torch": None, "openvino": None}
        return dict(compared(ways, stop))

    seconds = _measured_once(
        key, ("torch", "openvino"), "torch or OpenVINO", "features.engine", "cpu", measure
    )
    return "openvino" if _wins(seconds, "openvino", "torch", by=WORTH) else "torch"


def _wins(seconds: Mapping[str, float | None], first: str, other: str, by: float = 1.0) -> bool:
    mine, its = seconds[first], seconds[other]
    return mine is not None and its is not None and by * mine < its


def _described(name: str, taps: tuple[str, ...], config: FeatureConfig) -> str:
    height, width = _seen(config)
    size = f"{height}px" if height == width else f"{width}x{height}px"
    averaged = "" if config.symmetry == "none" else f" {config.symmetry}"
    return f"{name} {','.join(taps)} {size}{averaged}"


def _seen(config: FeatureConfig) -> tuple[int, int]:
    """(H, W) in pixels that the network is given at once."""
    tiling = tiling_of(config.shape, config.tile)
    return config.shape if tiling is None else tiling.seen


def _passes(
    looks: list[tuple[Backbone, FeatureConfig]], device: str, compute: Compute, library: Library
) -> Callable[[], object]:
    """One picture through every look."""
    ready = [
        partial(
            Engine(
                net,
                compute=compute,
                size=_seen(config),
                device=device,
                symmetry=config.symmetry,
                library=library,
            ),
            torch.randn(1, 3, *_seen(config)),
        )
        for net, config in looks
    ]
    return lambda: [run_pass() for run_pass in ready]


def _measured_once(
    key: str,
    names: tuple[str, ...],
    between: str,
    setting: str,
    device: str,
    measure: Callable[[], dict[str, float | None]],
) -> dict[str, float | None]:
    """Seconds an image by name, as this machine remembers them; measured where it does not."""
    memory = cache_folder() / f"machine-{_machine(device)}.json"
    known = _remembered(memory)
    if not _is_known(known, key, names):
        log.info(
            "measuring, once for this machine, whether %s is faster: %s (or set %s)", between, key, setting
        )
        seconds = {name: took and round(took, 6) for name, took in measure().items()}
        log.info("seconds an image, %s: %s", key, seconds)
        if None in seconds.values():  # one of them failed: perhaps for want of memory, which passes
            return seconds
        try:
            known = _first_to_measure(memory, key, names, seconds)
        except OutputError as error:
            log.debug("not remembered: %s", error)
            return seconds
    return dict(known[key])


def _first_to_measure(
    memory: Path, key: str, names: tuple[str, ...], seconds: dict[str, float | None]
) -> dict[str, Any]:
    """What the machine remembers from now on: of several processes that measure at once, the first one's."""
    with file_lock(memory.with_suffix(".lock")):
        known = _remembered(memory)
        if not _is_known(known, key, names):
            known[key] = seconds
            write_json(memory, known)
        return known


def _is_known(known: dict[str, Any], key: str, names: tuple[str, ...]) -> bool:
    seconds = known.get(key) or {}
    return set(seconds) == set(names) and None not in seconds.values()  # before, failures were kept as well


def _remembered(path: Path) -> dict[str, Any]:
    try:
        known = read_json(path)
    except OutputError:
        return {}
    return known if isinstance(known, dict) else {}


def compared(
    passes: Mapping[Name, Callable[[], object]],
    stop: Stop = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, float]:
    """Seconds that a pass takes in each of two ways, the usual one first.

    In turns, so that a machine that is busy for a moment does not decide, and no longer than until one is
    plainly slower.

    Args:
        passes: One pass in each way.
        stop: Read before each pass; True stops.
        clock: Seconds.

    Raises:
        Interrupted: `stop` said so.
    """
    usual, other = passes
    best: dict[Name, float] = {}
    for turn in range(1 + _TRIALS):
        for way, once in passes.items():
            if stop is not None and stop():
                raise Interrupted(
                    f"stopped while {usual} and {other} were compared", fix="run the same command again"
                )
            start = clock()
            once()
            took = clock() - start
            best[way] = took if turn <= 1 else min(best[way], took)  # the first one warms up
        # The usual way warmed up first, for both: what is many times slower even so will not catch up.
        if turn == 0 and best[other] > _HOPELESS * best[usual]:
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
