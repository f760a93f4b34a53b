"""Where and in what arithmetic to compute."""

from __future__ import annotations

import functools
import logging
import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nfbmr.errors import ConfigError

log = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16"]


def device_of(name: str) -> torch.device:
    """The device of a configuration's ``train.device``: auto is a GPU where there is one.

    Raises:
        ConfigError: There is no such device.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"no device {name!r} ({reason})", where="train.device", fix="set train.device=auto or cpu"
        ) from error
    return device


def autocast_dtype(precision: Precision, device: torch.device | str) -> torch.dtype | None:
    """The type that matrix products are computed in: bfloat16, or None for float32 throughout.

    ``auto`` is bfloat16 on a GPU that has it, and on a CPU where a convolution is measured to be clearly
    faster; the measurement is made once a process and takes a fraction of a second.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return torch.bfloat16 if _bf16_is_faster_on_cpu() else None


def autocast(precision: Precision, device: torch.device | str) -> AbstractContextManager[object]:
    """The context to run a network in; no context at all where the arithmetic is float32."""
    dtype = autocast_dtype(precision, device)
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype=dtype)


def usable_cores() -> int:
    """Cores that this process may really use: its affinity and its container's quota, whichever is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no quota ("max"), or no such file system
    return cores


def limit_threads() -> int:
    """Give torch one thread a usable core, unless OMP_NUM_THREADS says otherwise; returns the number.

    Left alone, torch counts the cores of the machine, and threads beyond a container's quota only wait.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
    return torch.get_num_threads()


@functools.cache
def _bf16_is_faster_on_cpu() -> bool:
    fp32, bf16 = _seconds_of_convolution(torch.float32), _seconds_of_convolution(torch.bfloat16)
    log.debug("a convolution takes %.2f ms in float32, %.2f ms in bfloat16", 1e3 * fp32, 1e3 * bf16)
    return bf16 < 0.8 * fp32


@torch.inference_mode()
def _seconds_of_convolution(dtype: torch.dtype, repeats: int = 5) -> float:
    """The best of a few: other processes only ever make it slower."""
    layout = torch.channels_last

    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=dtype).contiguous(memory_format=layout)

    x, weight = ones(4, 64, 16, 16), ones(128, 64, 3, 3)
    best = float("inf")
    for _ in range(repeats + 1):  # the first one also chooses a kernel
        start = time.perf_counter()
        torch.nn.functional.conv2d(x, weight, padding=1)
        best = min(best, time.perf_counter() - start)
    return best
