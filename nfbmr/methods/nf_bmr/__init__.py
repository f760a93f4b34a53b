"""NF-BMR and NF + B-PFM: their defaults, and NF-BMR as published; :mod:`.model` has the methods."""

from __future__ import annotations

from nfbmr.methods.method import Method
from nfbmr.methods.nf import JOINED_SIZES

_STAGES = ("flow", "detail", "memory", "mapping")

METHODS = {
    "nf-bmr": Method(
        title="flow-based bidirectional mapping residual network",
        source="Zhang et al., Computers, Materials & Continua 78(2), 2024",
        networks=f"{__name__}.model:NFBMR",
        stages=_STAGES,
        shares="flow",
        defaults=JOINED_SIZES,
        published={
            # Section 4.2 of the paper. Needs EfficientNet-b5 weights from timm's hub or a file;
            # wants a GPU.
            "paper": {
                "features": {
                    "backbone": "tf_efficientnet_b5.aa_in1k",
                    "weights": "hub",
                    "taps": [35],
                    "size": 768,
                    "scales": [1.0],
                    "joined": "coarsest",
                    "detail": {"taps": [], "symmetry": "none"},
                    "batch": 8,
                },
                "flow": {"blocks": 4, "hidden": 1024, "kernels": [3, 3, 3, 5]},
                "mapping": {"residual_blocks": 2, "latent": 1024},
                "train": {
                    "flow": {
                        "epochs": 300,
                        "batch": 8,
                        "lr": 2e-4,
                        "weight_decay": 1e-5,
                        "schedule": "constant",
                    },
                    "mapping": {
                        "epochs": 300,
                        "batch": 8,
                        "lr": 3e-4,
                        "weight_decay": 1e-5,
                        "schedule": "constant",
                    },
                },
                "scoring": {"weights": "paper", "reduction": "max", "pool": 0.0, "smooth": 0.0},
            },
        },
        variants={
            # On DINOv2's features, which its paper does not have: not measured, a place to begin from.
            "nf-bmr-dinov2": {
                "features": {
                    "backbone": "vit_small_patch14_dinov2.lvd142m",
                    "weights": "hub",
                    "taps": ["blocks.8"],
                    "size": 448,
                    "scales": [1.0],
                    "joined": "coarsest",
                    "detail": {"taps": [], "symmetry": "none"},
                    "batch": 8,
                },
            },
        },
    ),
    "nf-b-pfm": Method(
        title="flow and bidirectional 1x1 mapping, NF + B-PFM",
        source="Zhang et al. 2024, Table 5, fourth row; the mapping is B-PFM's, Wan et al. 2022",
        networks=f"{__name__}.model:NFBPFM",
        stages=_STAGES,
        shares="flow",
        defaults={**JOINED_SIZES, "mapping": {"pfm_latent": [400]}},
    ),
}
"""By name: the method, and its ablation with B-PFM's mapping."""
