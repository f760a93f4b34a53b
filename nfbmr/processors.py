"""What the processor at hand can do, asked of itself: no stopwatch, the same answer on a busy machine."""

from __future__ import annotations

import functools
import logging

import torch

log = logging.getLogger(__name__)


def has_bf16(device: torch.device | str) -> bool:
    """Whether a device multiplies bfloat16 itself; where it only emulates it, float32 is many times faster.

    Args:
        device: A GPU, or anything else for the CPU.

    Example:
        >>> has_bf16("cpu") == cpu_has_bf16()
        True
    """
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has_bf16()


@functools.cache
def warn_if_emulated(setting: str, device: str) -> None:
    """Say, once, that bfloat16 was asked for by `setting` where it is emulated: many times slower."""
    if not has_bf16(device):
        log.warning(
            "%s=bf16: this processor only emulates bfloat16, which takes many times as long as fp32; "
            "auto takes what is faster",
            setting,
        )


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16 (AVX512-BF16, AMX, or Arm's BF16)."""
    has = torch.cpu.get_capabilities()
    return any(bool(has.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
