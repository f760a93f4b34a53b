"""DifferNet: its defaults, and its configuration as published; :mod:`.model` has the method."""

from __future__ import annotations

from typing import Any

from nfbmr.methods.method import Method

_ADAM: dict[str, Any] = {
    "lr": 2e-4,
    "betas": [0.8, 0.8],
    "eps": 1e-4,
    "weight_decay": 1e-5,
    "schedule": "constant",
}

METHOD = Method(
    title="flow on pooled features of several sizes and turns",
    source="Rudolph et al., WACV 2021",
    networks=f"{__name__}.model:DifferNet",
    stages=("flow",),
    shares="differnet",
    defaults={
        "features": {
            "size": 256,
            "scales": [1.0, 0.5, 0.25],
            "pooled": True,
            "rotations": 16,
            "test_rotations": 16,
        },
        "flow": {"blocks": 8, "hidden": 512, "clamp": 3.0},
        "train": {"flow": {**_ADAM, "epochs": 60, "batch": 96, "clip": 1.0}, "validate_every": 5},
        "scoring": {"weights": "paper", "reduction": "mean", "smooth": 0.0},
    },
    published={
        "differnet-published": {
            "features": {
                "backbone": "alexnet",
                "weights": "hub",
                "taps": ["features"],
                "size": 448,
                "scales": [1.0, 0.5, 0.25],
                "pooled": True,
                "rotations": 64,
                "test_rotations": 64,
            },
            "flow": {"blocks": 8, "hidden": 2048, "clamp": 3.0, "standardize": False},
            "train": {"flow": {**_ADAM, "epochs": 768, "batch": 96, "clip": None}, "validate_every": 32},
            "scoring": {"weights": "paper", "reduction": "mean", "smooth": 0.0},
        },
    },
)
"""The row of the table."""
