"""Unsupervised visual defect detection: features once, flows once, numbers one can trust.

The whole of the Python API:

- :func:`train` a method on a folder of images, :func:`evaluate` a finished run again, :func:`predict`;
- :func:`configure` makes a :class:`Config` from a named configuration, files and dotted keys.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfbmr.api import configure, evaluate, predict, train
    from nfbmr.config import Config

# The allocator in pyarrow 25 crashes in every later thread when the thread that imported it first is gone
# (apache/arrow issue 50471). Our threads come and go; memory-mapped shards hardly allocate.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__version__ = "0.1.0"
__all__ = ["Config", "__version__", "configure", "evaluate", "predict", "train"]

_HOME = {
    "Config": "nfbmr.config",
    "configure": "nfbmr.api",
    "evaluate": "nfbmr.api",
    "predict": "nfbmr.api",
    "train": "nfbmr.api",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that the command line answers before torch is imported.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
