"""PatchCore: its settings and defaults, and configurations as published; :mod:`.model` has the method."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from nfbmr.config import MethodConfig, PositiveInt, odd_side
from nfbmr.methods.method import Method


class PatchCoreConfig(MethodConfig):
    """A bank of patches, thinned out."""

    section: ClassVar[str] = "patchcore"

    coreset: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.1, description="share of all patches that is kept (published: 0.25, 0.1, 0.01)"
    )
    patch: int = Field(3, ge=1, description="side of the neighbourhood that a patch averages; odd")
    distance: Literal["euclidean", "cosine"] = Field(
        "euclidean", description="between patches; cosine: 1 - cos, of their directions alone (AnomalyDINO)"
    )
    projection: PositiveInt = Field(
        128, description="dimensions of the random projection that patches are chosen in"
    )
    neighbours: PositiveInt = Field(
        9, description="patches of the bank that an image's score is weighed by; 1 = the maximum of the map"
    )
    search: Literal["auto", "exact", "cells"] = Field(
        "auto",
        description="for a patch's nearest in the bank: exact, or cells: in the nearest dozen of its k-means "
        "cells alone, an image's largest distances exact all the same; auto: cells on CPUs, of 8192 or more, "
        "where the score is made of the largest",
    )

    _odd = field_validator("patch")(odd_side)


METHOD = Method(
    title="nearest patch of a thinned-out bank",
    source="Roth et al., CVPR 2022",
    networks=f"{__name__}.model:PatchCore",
    stages=("statistics",),
    settings=PatchCoreConfig,
    defaults={
        "features": {"size": 256, "taps": ["blocks.2", "blocks.4"]},
        "patchcore": {"coreset": 0.02},
        "scoring": {"weights": "paper", "reduction": "image", "smooth": 0.5},
    },
    published={
        "patchcore-published": {
            "features": {
                "backbone": "wide_resnet50_2.tv_in1k",
                "weights": "hub",
                "taps": ["layer2", "layer3"],
                "size": 224,
            },
            "patchcore": {"coreset": 0.1, "patch": 3, "projection": 128, "neighbours": 9},
            "scoring": {"weights": "paper", "reduction": "image", "smooth": 0.5},
        },
    },
    variants={
        # Damm et al., AnomalyDINO, WACV 2025: every patch of a few good images, turned by eighths, and the
        # cosine distance to the nearest; the score is the mean of the highest hundredth. Nothing is trained
        # or chosen.
        "anomalydino": {
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
    },
)
"""The row of the table."""
