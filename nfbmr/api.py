"""The Python API: what the command line does, as functions that return values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nfbmr import rescoring, run
from nfbmr.config import Config, ScoringConfig
from nfbmr.layers import Layer, config_layers
from nfbmr.methods.registry import MethodDefaults, named_configurations
from nfbmr.prediction import predict
from nfbmr.resolve import resolve, unflatten
from nfbmr.tracking import Tracker

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
        *config_layers(names_or_files, (), None, named=named_configurations()),
        Layer("settings", unflatten(settings or {})),
    ]
    return resolve(layers, methods=MethodDefaults()).config


def train(
    config: Config,
    *,
    resume: Path | None = None,
    tracking: Callable[[run.Run], Tracker] = run.journal_only,
) -> dict[str, Any]:
    """Train and evaluate a method on a folder of images; see :func:`nfbmr.run.train`.

    Returns:
        The run's summary, as ``--json`` prints it (:class:`nfbmr.evaluation.summary.RunSummary`).
    """
    return run.train(config, resume=resume, tracking=tracking).as_json()


def evaluate(folder: Path | str, scoring: ScoringConfig | None = None) -> dict[str, Any]:
    """Evaluate a finished run again, without training; see :func:`nfbmr.rescoring.evaluate`.

    Returns:
        The summary, as ``--json`` prints it.
    """
    return rescoring.evaluate(folder, scoring).as_json()
