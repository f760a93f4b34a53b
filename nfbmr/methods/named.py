"""Named configurations: the demonstration, and every method as its authors published it.

``--config NAME``, above a method's defaults. What differs from the sources all the same: ``docs/methods/``.
Backbones are named with timm's tag of the weights that the sources used: torchvision's first ones
(``tv_in1k``), and for EfficientNets those trained on ImageNet alone (``aa_in1k``). Without a tag timm takes
its own best.

Example:
    >>> NAMED["paper"]["flow"]["hidden"]
    1024
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nfbmr.methods.table import CFLOW_SCORE, DIFFERNET_ADAM, PFM_SCORE, PFM_TRAINING


def _resnets(taps: Sequence[str]) -> Mapping[str, Any]:
    """PFM between ResNet34 and ResNet50, as the authors' code has it: latent widths and rates by level."""
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
        "train": {"mapping": PFM_TRAINING},
        "scoring": PFM_SCORE,
    }


RESNETS_ONE_LEVEL = _resnets(("layer2",))

NAMED: dict[str, Mapping[str, Any]] = {
    # Section 4.2 of the paper. Needs EfficientNet-b5 weights from timm's hub or a file, and wants a GPU.
    "paper": {
        "method": "nf-bmr",
        "features": {
            "backbone": "tf_efficientnet_b5.aa_in1k",
            "weights": "hub",
            "taps": [35],
            "size": 768,
            "scales": [1.0],
            "joined": "coarsest",
            "detail": {"taps": []},
            "batch": 8,
        },
        "flow": {"blocks": 4, "hidden": 1024, "kernels": [3, 3, 3, 5]},
        "mapping": {"residual_blocks": 2, "latent": 1024},
        "train": {
            "flow": {"epochs": 300, "batch": 8, "lr": 2e-4, "weight_decay": 1e-5, "schedule": "constant"},
            "mapping": {"epochs": 300, "batch": 8, "lr": 3e-4, "weight_decay": 1e-5, "schedule": "constant"},
        },
        "scoring": {"weights": "paper", "reduction": "max", "pool": 0.0, "smooth": 0.0},
    },
    # The main job in minutes: `make demo`.
    "demo": {
        "features": {
            "scales": [1.0],
            "joined": "coarsest",
            "taps": ["blocks.4"],
            "detail": {"taps": []},
        },
        "selection": {"epoch": "best"},
        "flow": {"blocks": 4, "hidden": 64, "kernels": [3]},
        "mapping": {"residual_blocks": 1, "latent": 64},
        "train": {
            "flow": {"epochs": 20, "batch": 8, "lr": 1e-3},
            "mapping": {"epochs": 10, "batch": 8, "lr": 1e-3},
        },
        "tracking": {"run_name": "demo"},
    },
    # As published: weights come from timm's hub or a file. What differs all the same: docs/methods/.
    "pfm-published": {"method": "pfm", **RESNETS_ONE_LEVEL},
    "b-pfm-published": {"method": "b-pfm", **RESNETS_ONE_LEVEL},
    "mb-pfm-published": {"method": "mb-pfm", **_resnets(("layer1", "layer2", "layer3"))},
    # Zhang et al. 2024, figure 7: source EfficientNet-b5, target EfficientNet-b3.
    "mb-pfm-efficientnet": {
        "method": "mb-pfm",
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
        "train": {"mapping": PFM_TRAINING},
        "scoring": PFM_SCORE,
    },
    "differnet-published": {
        "method": "differnet",
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
        "train": {"flow": {**DIFFERNET_ADAM, "epochs": 768, "batch": 96, "clip": None}, "validate_every": 32},
        "scoring": {"weights": "paper", "reduction": "mean", "smooth": 0.0},
    },
    "cs-flow-published": {
        "method": "cs-flow",
        "features": {
            "backbone": "tf_efficientnet_b5.aa_in1k",
            "weights": "hub",
            "taps": [35],
            "size": 768,
            "scales": [1.0, 0.5, 0.25],
            "batch": 8,
        },
        "flow": {"blocks": 4, "hidden": 1024, "kernels": [3, 3, 3, 5], "clamp": 3.0, "standardize": False},
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
    "cflow-published": {
        "method": "cflow",
        "features": {
            "backbone": "wide_resnet50_2.tv_in1k",
            "weights": "hub",
            "taps": ["layer2", "layer3", "layer4"],
            "size": 256,
        },
        "flow": {"blocks": 8, "clamp": 1.9},
        "cflow": {"code": 128},
        "train": {
            "flow": {"epochs": 200, "batch": 32, "lr": 2e-4, "weight_decay": 0.0, "clip": None},
            "validate_every": 8,
        },
        "scoring": {**CFLOW_SCORE, "smooth": 0.0},
    },
    "padim-published": {
        "method": "padim",
        "features": {
            "backbone": "resnet18.tv_in1k",
            "weights": "hub",
            "taps": ["layer1", "layer2", "layer3"],
            "size": 224,
        },
        "padim": {"channels": 100, "epsilon": 0.01},
        "scoring": {"weights": "paper", "reduction": "max", "smooth": 1.0},
    },
    "spade-published": {
        "method": "spade",
        "features": {
            "backbone": "wide_resnet50_2.tv_in1k",
            "weights": "hub",
            "taps": ["layer1", "layer2", "layer3", "layer4"],
            "size": 224,
        },
        "spade": {"neighbours": 50},
        "scoring": {"weights": "paper", "reduction": "image", "smooth": 1.0},
    },
    "patchcore-published": {
        "method": "patchcore",
        "features": {
            "backbone": "wide_resnet50_2.tv_in1k",
            "weights": "hub",
            "taps": ["layer2", "layer3"],
            "size": 224,
        },
        "patchcore": {"coreset": 0.1, "patch": 3, "projection": 128, "neighbours": 9},
        "scoring": {"weights": "paper", "reduction": "image", "smooth": 0.5},
    },
    # Damm et al., AnomalyDINO, WACV 2025: every patch of a few good images, turned by eighths, and the cosine
    # distance to the nearest; the score is the mean of the highest hundredth. Nothing is trained or chosen.
    "anomalydino": {
        "method": "patchcore",
        "data": {"limit_train": 16},
        "features": {
            "backbone": "vit_small_patch14_dinov2.lvd142m",
            "weights": "hub",
            "taps": ["norm"],
            "size": 448,
            "rotations": 8,
            "batch": 8,
        },
        "patchcore": {"coreset": 1.0, "patch": 1, "distance": "cosine", "neighbours": 1},
        "scoring": {"weights": "paper", "reduction": "topk", "topk": [0.01], "smooth": 0.0},
    },
    # NF-BMR on the same features, which its paper does not have: not measured, a place to begin from.
    "nf-bmr-dinov2": {
        "method": "nf-bmr",
        "features": {
            "backbone": "vit_small_patch14_dinov2.lvd142m",
            "weights": "hub",
            "taps": ["blocks.8"],
            "size": 448,
            "scales": [1.0],
            "joined": "coarsest",
            "detail": {"taps": []},
            "batch": 8,
        },
    },
}
