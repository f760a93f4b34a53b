"""How many cores this process has, and how busy the machine is. Nothing here loads torch."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may really use: its affinity and its container's quota, whichever is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no quota ("max"), or no such file system
    return cores


def busy() -> str:
    """That this machine has more than twice as much to do as it can, in words; else nothing."""
    load, cores = os.getloadavg()[0], usable_cores()
    return f"this machine is busy: load {load:.0f} on {cores} cores" if load > 2 * cores else ""
