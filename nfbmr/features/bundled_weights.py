"""Backbones' weights beside a model, so that it loads where neither a network nor their package is at hand.

Legend of a model's folder: ``backbones/source.safetensors`` and, for methods that read two networks,
``backbones/target.safetensors``: timm's names, without the classifier.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nfbmr.config import FeatureConfig
from nfbmr.errors import WeightsError
from nfbmr.features.keys import joined_digest
from nfbmr.features.weights import resolve_weights
from nfbmr.tensors import write_tensors

FOLDER = "backbones"
"""Where a model's folder holds backbones' weights."""


def keep_weights(config: FeatureConfig, weights_digest: str, folder: Path) -> int:
    """Write the weights of a model's backbones into its folder.

    Random weights are not written: they come from a seed.

    Args:
        config: Which backbones, and where their weights come from.
        weights_digest: Of the weights that the model was trained with.
        folder: The model's.

    Returns:
        Files written.

    Raises:
        WeightsError: The weights cannot be had here, or are other ones.
        OutputError: The folder cannot be written.
    """
    networks = [("source", config.backbone, config.weights)]
    if config.target.backbone is not None:
        networks.append(("target", config.target.backbone, config.target.weights))
    if all(weights == "random" for _, _, weights in networks):
        return 0
    resolved = {side: resolve_weights(name, weights) for side, name, weights in networks}
    if joined_digest(entry.digest for entry in resolved.values()) != weights_digest:
        raise WeightsError(
            "these are not the weights that the model was trained with",
            where=", ".join(entry.origin for entry in resolved.values()),
            fix="give those (features.weights)",
        )
    needed = {side: entry for side, entry in resolved.items() if entry.source != "random"}
    for side, entry in needed.items():
        write_tensors(_file(folder, side), entry.body)
    return len(needed)


def with_kept_weights(config: FeatureConfig, folder: Path) -> FeatureConfig:
    """The same features, from the weights that lie in a model's folder, where there are any."""
    updates: dict[str, Any] = {}
    source, target = (_file(folder, side) for side in ("source", "target"))
    if source.is_file():
        updates["weights"] = str(source)
    if target.is_file():
        updates["target"] = config.target.model_copy(update={"weights": str(target)})
    return config.model_copy(update=updates)


def _file(folder: Path, side: str) -> Path:
    return folder / FOLDER / f"{side}.safetensors"
