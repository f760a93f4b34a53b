"""The Python API: what the command line does, as functions that return values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nfbmr.config import Config
from nfbmr.layers import Layer, config_layers
from nfbmr.methods.named import NAMED
from nfbmr.methods.table import MethodDefaults
from nfbmr.prediction import predict
from nfbmr.rescoring import evaluate
from nfbmr.resolve import nested, resolve
from nfbmr.run import train

__all__ = ["configure", "evaluate", "predict", "train"]


def configure(*names_or_files: str, settings: Mapping[str, Any] | None = None) -> Config:
    """A configuration from named ones, YAML files and dotted keys; later ones win.

    Args:
        names_or_files: ``"demo"``, ``"paper"``, ``"my.yaml"``, ...
        settings: Dotted keys to values.

    Raises:
        ConfigError: Unknown keys or impossible values, all of them named.

    Example:
        >>> configure("demo", settings={"flow.blocks": 8}).flow.blocks
        8
    """
    layers = [
        *config_layers(names_or_files, (), None, named=NAMED),
        Layer("settings", nested(settings or {})),
    ]
    return resolve(layers, methods=MethodDefaults()).config
