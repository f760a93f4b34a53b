"""Where and in what arithmetic to compute."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from nfbmr.errors import ConfigError
from nfbmr.machine import usable_cores
from nfbmr.processors import has_bf16, warn_if_emulated

log = logging.getLogger(__name__)

_Precision = Literal["auto", "fp32", "bf16"]


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


def gpu_memory(device: torch.device | str) -> dict[str, int] | None:
    """Bytes of GPU memory: what this process took at most (``peak_bytes``), what there is (``total_bytes``).

    What the allocator holds counts, used or not: nobody else can have it. None without a GPU.
    """
    place = torch.device(device)
    if place.type != "cuda":
        return None
    total = torch.cuda.get_device_properties(place).total_memory
    return {"peak_bytes": torch.cuda.max_memory_reserved(place), "total_bytes": total}


def autocast_dtype(precision: _Precision, device: torch.device | str) -> torch.dtype | None:
    """The type that matrix products are computed in: bfloat16, or None for float32 throughout.

    ``auto`` is bfloat16 on a GPU or a CPU that has instructions for it, where it is two to five times as
    fast. The processor decides, not a stopwatch: a command must give the same numbers on a busy machine.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        warn_if_emulated("train.precision", str(device))
        return torch.bfloat16
    return torch.bfloat16 if has_bf16(device) else None


def autocast(precision: _Precision, device: torch.device | str) -> AbstractContextManager[object]:
    """The context to run a network in; no context at all where the arithmetic is float32."""
    dtype = autocast_dtype(precision, device)
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype=dtype)


def limit_threads() -> int:
    """Give torch one thread a usable core, unless OMP_NUM_THREADS says otherwise; returns the number.

    Left alone, torch counts the cores of the machine, and threads beyond a container's quota only wait.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
    return torch.get_num_threads()
