"""PFM, B-PFM and MB-PFM: their defaults, and as published; :mod:`.model` has the methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nfbmr.methods.method import Method, Settings

_SOURCE = "Wan et al., IEEE Transactions on Industrial Informatics 19(3), 2023"
_SCORE: Settings = {"weights": "paper", "reduction": "max", "smooth": 0.0}
_TRAINING: Settings = {
    "epochs": 200,
    "batch": 8,
    "lr": 3e-3,
    "weight_decay": 1e-5,
    "clip": None,
    "schedule": "constant",
}


def _efficientnets(levels: int) -> Settings:
    """Between the packaged EfficientNet-lite0 and lite1, at their last stages."""
    taps = ["blocks.2", "blocks.4", "blocks.5"][-levels:]
    return {
        "features": {
            "size": 256,
            "taps": taps,
            "target": {"backbone": "tf_efficientnet_lite1", "taps": taps},
        },
        "mapping": {"pfm_latent": [50, 100, 200][-levels:], "pfm_rates": [1.0, 0.5, 0.5][-levels:]},
        "train": {"mapping": {"epochs": 20, "lr": 2e-3, "clip": None}},
        "scoring": _SCORE,
    }


def _resnets(taps: Sequence[str]) -> Settings:
    """Between ResNet34 and ResNet50, as the authors' code has it: latent widths and rates by level."""
    level = {"layer1": (200, 1.0), "layer2": (400, 0.1), "layer3": (900, 0.1)}
    return {
        "features": {
            "backbone": "resnet34.tv_in1k",
            "weights": "hub",
            "taps": list(taps),
            "size": 256,
            "target": {"backbone": "resnet50.tv_in1k", "weights": "hub", "taps": list(taps)},
        },
        "mapping": {
            "pfm_latent": [level[tap][0] for tap in taps],
            "pfm_rates": [level[tap][1] for tap in taps],
        },
        "train": {"mapping": _TRAINING},
        "scoring": _SCORE,
    }


# Zhang et al. 2024, figure 7: source EfficientNet-b5, target EfficientNet-b3.
_FIGURE_7: dict[str, Any] = {
    "features": {
        "backbone": "tf_efficientnet_b5.aa_in1k",
        "weights": "hub",
        "taps": ["blocks.2", "blocks.4", "blocks.5"],
        "target": {
            "backbone": "tf_efficientnet_b3.aa_in1k",
            "weights": "hub",
            "taps": ["blocks.2", "blocks.4", "blocks.5"],
        },
        "size": 768,
        "batch": 8,
    },
    "mapping": {"pfm_latent": [200, 400, 900], "pfm_rates": [1.0, 0.1, 0.1]},
    "train": {"mapping": _TRAINING},
    "scoring": _SCORE,
}

METHODS = {
    "pfm": Method(
        title="pretrained feature mapping, one way",
        source=_SOURCE,
        networks=f"{__name__}.model:OneWayPFM",
        stages=("mapping",),
        defaults=_efficientnets(levels=1),
        published={"pfm-published": _resnets(("layer2",))},
    ),
    "b-pfm": Method(
        title="bidirectional pretrained feature mapping",
        source=_SOURCE,
        networks=f"{__name__}.model:MBPFM",
        stages=("mapping",),
        defaults=_efficientnets(levels=1),
        published={"b-pfm-published": _resnets(("layer2",))},
    ),
    "mb-pfm": Method(
        title="multi-hierarchical bidirectional pretrained feature mapping",
        source=_SOURCE,
        networks=f"{__name__}.model:MBPFM",
        stages=("mapping",),
        defaults=_efficientnets(levels=3),
        published={
            "mb-pfm-published": _resnets(("layer1", "layer2", "layer3")),
            "mb-pfm-efficientnet": _FIGURE_7,
        },
    ),
}
"""By name: one way, both ways, and both ways at several levels."""
