"""Where a result came from: the machine, the versions, the revision of the code."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "nfbmr",
    "torch",
    "torchvision",
    "timm",
    "FrEIA",
    "numpy",
    "scikit-learn",
    "pyarrow",
    "pillow",
    "mlflow",
    "ray",
    "optuna",
)


def environment() -> dict[str, Any]:
    """Versions, machine and code revision, as plain JSON; no heavy package is imported.

    Returns:
        ``python``, ``platform``; ``machine``: ``cpu``, ``cpus`` (those this process may use),
        ``memory_bytes`` and ``gpus`` (those already in use); ``packages``, name to version, missing ones
        left out; ``code``, see :func:`code_revision`; and the environment ``variables`` that change how
        things are computed.
    """
    import psutil

    torch = sys.modules.get("torch")
    gpus = torch.cuda.device_count() if torch is not None and torch.cuda.is_initialized() else 0
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": {
            "cpu": _processor(),
            "cpus": len(os.sched_getaffinity(0)),
            "memory_bytes": psutil.virtual_memory().total,
            "gpus": [torch.cuda.get_device_name(index) for index in range(gpus)] if torch else [],
        },
        "packages": _versions(),
        "code": code_revision(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG")


def code_revision(folder: Path | None = None) -> dict[str, Any]:
    """The git commit that the code is run from.

    Args:
        folder: A checkout; the one this package lies in, where it is not given.

    Returns:
        ``{"revision": 40 hex digits or None, "dirty": whether tracked files differ from it, or None}``.
    """
    root = folder or Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        # An installed package may lie inside somebody else's repository; that one's commit would be a lie.
        return {"revision": None, "dirty": None}
    revision = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"revision": revision or None, "dirty": None if changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        # Optional locks off: looking must not get in the way of a git command of the user's.
        result = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
