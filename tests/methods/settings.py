"""Every method small enough to fit in seconds: what differs from the tests' small configuration."""

from __future__ import annotations

from typing import Any

_PFM = {"mapping.pfm_latent": [4], "features.target.backbone": "tf_efficientnet_lite1"}

_DETAIL = {
    "features.detail.taps": ["blocks.1"],
    "features.detail.size": 96,
    "detail.blocks": 2,
    "detail.hidden": 8,
    "detail.bank": 20,
    "detail.candidates": 200,
    "train.detail.steps": 3,
    "train.detail.positions": 8,
}

TINY: dict[str, dict[str, Any]] = {
    "nf-bmr": _DETAIL,
    "nf-b-pfm": {**_DETAIL, "mapping.pfm_latent": [4]},
    "nf": _DETAIL,
    "pfm": {**_PFM, "features.target.taps": ["blocks.2"]},
    "b-pfm": {**_PFM, "features.target.taps": ["blocks.2"]},
    "mb-pfm": {
        **_PFM,
        "features.taps": ["blocks.1", "blocks.2"],
        "features.target.taps": ["blocks.1", "blocks.2"],
    },
    "differnet": {"features.rotations": 3, "features.test_rotations": 2, "flow.hidden": 8},
    "cs-flow": {"features.size": 128},
    "cflow": {"features.taps": ["blocks.1", "blocks.2"], "cflow.code": 8},
    "padim": {"features.taps": ["blocks.1", "blocks.2"], "padim.channels": 6},
    "spade": {"features.taps": ["blocks.1", "blocks.2"], "spade.neighbours": 3},
    "patchcore": {"features.taps": ["blocks.1", "blocks.2"], "patchcore.coreset": 0.1},
}
