"""What is loaded by name: what the core has from the packages beside it, which it does not import.

Where the core needs one, it says what it takes (a Protocol beside its use), and loads it when it is used.
The commands of all packages are named likewise, in :mod:`nfbmr.cli.main`.
"""

from __future__ import annotations

import importlib
from typing import Any

TRACKER_BACKEND = "mlflow_server.tracking.backend:BACKEND"
"""Records runs on a server: a :class:`nfbmr.trackers.TrackerBackend`."""

LAUNCHER = "cluster.training.trainer:execute_run"
"""A run in several processes, called as :func:`nfbmr.run.execute_run` is, with ``workers`` besides."""

METHODS = "nfbmr.methods.registry:METHODS"
"""Our methods by name, whose settings are part of the configuration far below them."""

REGISTRY_SOURCE = "mlflow_server.registry.model_source:RegistrySource"
"""Models by their registered names: makes a :class:`nfbmr.model_source.ModelSource`."""


def load_object(reference: str) -> Any:
    """What ``module:attribute`` names; the module is imported.

    Example:
        >>> load_object("math:floor")(2.5)
        2
    """
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)
