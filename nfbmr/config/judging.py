"""How maps become scores, what chooses, what is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
)

from nfbmr.config.section import Fraction, PositiveInt, Section


class ScoringConfig(Section):
    """From error maps to one score: fixed here, or chosen on validation data."""

    weights: tuple[float, ...] | Literal["auto", "paper"] = Field(
        "auto",
        description="of the method's score components, in order (nf-bmr: source error, target error, "
        "||z||^2); paper: as published, components as they are",
    )
    normalise: Literal["position", "part", "none"] = Field(
        "part",
        description="by mean and deviation on good validation images: a part's, a position's, or not",
    )
    reduction: Literal["auto", "max", "mean", "topk", "image"] = Field(
        "auto", description="of a map to the image score; image = the method's own, where it has one"
    )
    topk: tuple[Fraction, ...] = Field(
        (0.02, 0.07, 0.2), min_length=1, description="shares of the positions that topk may average"
    )
    pool: float = Field(
        0.0,
        ge=0,
        le=20,
        description="Gaussian mean of error vectors before their norm, sigma in feature positions; paper: 0",
    )
    smooth: float = Field(
        1.0, ge=0, le=20, description="Gaussian smoothing of the map, sigma in feature positions"
    )


class SelectionConfig(Section):
    """What chooses the epoch, the reduction, the weights and the threshold."""

    on: Literal["validation", "test"] = Field(
        "validation",
        description="test re-runs papers that select on the test set; results are marked test-peeked",
    )
    epoch: Literal["best", "last"] = Field(
        "best",
        description="best: of the epochs that validation cannot tell apart, that of least held-out loss",
    )
    defects: tuple[Literal["cutpaste", "blend", "scratch"], ...] = Field(
        ("cutpaste", "blend", "scratch"),
        min_length=1,
        description="kinds of synthetic defects pasted on held-out normals",
    )
    per_image: PositiveInt = Field(
        1, description="synthetic defects made of each held-out normal, per kind at most"
    )
    false_reject_rate: Fraction = Field(0.05, description="share of good parts the threshold may reject")
    pixel_false_reject_rate: Fraction = Field(
        0.05, description="share of good images that may show any region of the predicted mask"
    )


class EvaluationConfig(Section):
    """Metrics, their intervals, and pictures."""

    bootstrap: int = Field(
        1000,
        ge=0,
        le=100_000,
        description="resamples for an interval; 0 = none, but exact ones of recall, precision, false rejects",
    )
    confidence: Fraction = Field(0.95)
    aupro_limit: float = Field(
        0.3, gt=0, le=1, description="false-positive rate up to which AUPRO integrates"
    )
    heatmaps: int = Field(6, ge=0, description="heat maps each of best, worst and borderline")
