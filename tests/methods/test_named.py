"""Named configurations end to end, as their users run them but for the weights, sizes and epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import nfbmr
from nfbmr.config import Config
from nfbmr.features.table import Features, TensorTable, ViewedFeatures
from nfbmr.methods.patchcore.model import PatchCoreStage

SMALL: dict[str, dict[str, Any]] = {
    "patchcore-published": {"features.size": 64},
    "anomalydino": {"features.size": 70, "features.rotations": 2, "data.limit_train": 1},
    "paper": {
        "features.size": 64,
        "flow.blocks": 1,
        "flow.hidden": 8,
        "mapping.latent": 8,
        "mapping.residual_blocks": 1,
        "train.flow.epochs": 1,
        "train.mapping.epochs": 1,
    },
    "nf-bmr-dinov2": {
        "features.size": 70,
        "flow.blocks": 1,
        "flow.hidden": 8,
        "mapping.latent": 8,
        "mapping.residual_blocks": 1,
        "train.flow.epochs": 1,
        "train.mapping.epochs": 1,
    },
}


@pytest.mark.parametrize("name", SMALL)
def test_a_named_configuration_runs_from_images_to_scores(name: str, textures: Path, tmp_path: Path) -> None:
    settings = {
        **SMALL[name],
        "data.path": str(textures),
        "output": str(tmp_path / "runs"),
        "store": str(tmp_path / "store"),
        "features.weights": "random",
        "features.compute": "fp32",
        "train.precision": "fp32",
        "evaluation.bootstrap": 20,
        "evaluation.heatmaps": 1,
        "tracking.kind": "folder",
    }
    summary = nfbmr.train(nfbmr.configure(name, settings=settings))
    assert 0.0 <= summary["metrics"]["test"]["image_auroc"]["value"] <= 1.0
    rows = list(nfbmr.predict(summary["run_dir"], sorted(textures.rglob("*.png"))[:1]))
    assert len(rows) == 1


def test_the_cosine_distance_is_one_minus_the_cosine_to_the_nearest_patch() -> None:
    settings = {"patchcore.coreset": 1.0, "patchcore.patch": 1, "patchcore.distance": "cosine"}
    config: Config = nfbmr.configure(settings={"method": "patchcore", "patchcore.neighbours": 1, **settings})
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randn(2, 6, 3, 3, generator=generator) for _ in range(2))
    stage = PatchCoreStage(((6, 3, 3),), config)
    stage.prepare(ViewedFeatures.of(Features((TensorTable(train),)), 1))
    bank, asked = (y.permute(0, 2, 3, 1).flatten(0, 2) for y in (train, test))
    cosine = torch.nn.functional.cosine_similarity(asked[:, None], bank[None], dim=2)
    expected = (1.0 - cosine.amax(1)).view(2, 3, 3)
    found = stage.maps(test)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[:, 1].amax((1, 2)), expected.amax((1, 2)), rtol=1e-3, atol=1e-3)
