"""CS-Flow: its defaults, and its configuration as published; :mod:`.model` has the method."""

from __future__ import annotations

from nfbmr.methods.method import Method

METHOD = Method(
    title="cross-scale flow",
    source="Rudolph et al., WACV 2022",
    networks=f"{__name__}.model:CSFlow",
    stages=("flow",),
    shares="cs-flow",
    defaults={
        "features": {"size": 384, "scales": [1.0, 0.5, 0.25]},
        "flow": {"blocks": 4, "hidden": 128, "kernels": [3, 3, 3, 5]},
        "train": {"flow": {"epochs": 15, "batch": 16}},
        "scoring": {"weights": "paper", "reduction": "mean", "smooth": 0.0},
    },
    published={
        "cs-flow-published": {
            "features": {
                "backbone": "tf_efficientnet_b5.aa_in1k",
                "weights": "hub",
                "taps": [35],
                "size": 768,
                "scales": [1.0, 0.5, 0.25],
                "batch": 8,
            },
            "flow": {
                "blocks": 4,
                "hidden": 1024,
                "kernels": [3, 3, 3, 5],
                "clamp": 3.0,
                "standardize": False,
            },
            "train": {
                "flow": {
                    "epochs": 240,
                    "batch": 16,
                    "lr": 2e-4,
                    "eps": 1e-4,
                    "weight_decay": 1e-5,
                    "clip": 1.0,
                    "schedule": "constant",
                },
                "validate_every": 10,
            },
            "scoring": {"weights": "paper", "reduction": "mean", "smooth": 0.0},
        },
    },
)
"""The row of the table."""
