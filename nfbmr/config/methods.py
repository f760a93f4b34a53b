"""What the methods themselves leave open."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    field_validator,
)

from nfbmr.config.section import PositiveInt, Section, odd_side

Coreset = Annotated[float, Field(gt=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0)]


class FlowConfig(Section):
    """The TNF: K affine coupling blocks. All but blocks and hidden are left open by the paper."""

    blocks: int = Field(4, ge=1, le=64, description="coupling blocks K")
    hidden: PositiveInt = Field(256, description="hidden channels of a coupling subnet (paper: 1024)")
    kernels: tuple[int, ...] = Field(
        (3, 3, 3, 5), description="kernel size a block, the last repeated (CS-Flow)"
    )
    clamp: float = Field(3.0, gt=0, le=10, description="soft clamp of the log scale s (CS-Flow)")
    activation: Literal["relu", "leaky_relu", "gelu", "silu"] = Field("relu", description="in the subnets")
    padding: Literal["zeros", "reflect", "replicate"] = Field(
        "zeros", description="of the subnets' convolutions"
    )
    standardize: bool = Field(True, description="per-channel standardisation of y on the training set first")

    @field_validator("kernels")
    @classmethod
    def _odd(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(k < 1 or k % 2 == 0 for k in value):
            raise ValueError("needs odd kernel sizes, so that the map keeps its size")
        return value


class MappingConfig(Section):
    """Two mapping networks sharing their middle: the BMR's, or B-PFM's. The method says which."""

    residual_blocks: int = Field(
        2, ge=1, le=16, description="residual blocks n on each side of the shared one"
    )
    latent: PositiveInt = Field(256, description="channels C_latent inside (paper: 1024)")
    pfm_latent: tuple[PositiveInt, ...] = Field(
        (200, 400, 900), min_length=1, description="latent width l of PFM's networks, level by level"
    )
    pfm_rates: tuple[Rate, ...] = Field(
        (1.0,), min_length=1, description="shares of train.mapping.lr that PFM's levels learn with"
    )


class DetailConfig(Section):
    """The detail level: a flow of single positions, and a memory bank of good ones."""

    blocks: int = Field(4, ge=1, le=64, description="coupling blocks of the flow of positions")
    hidden: PositiveInt = Field(256, description="hidden channels of its coupling subnets, which are 1x1")
    clamp: float = Field(1.9, gt=0, le=10, description="soft clamp of its log scale (CFLOW-AD)")
    bank: int = Field(4000, ge=0, description="good positions kept to measure distances from; 0 for no bank")
    candidates: PositiveInt = Field(
        150_000, description="training positions, drawn at random, that the bank is a coreset of"
    )


class CFlowConfig(Section):
    """What cflow has besides the flow section."""

    code: int = Field(
        128, ge=4, multiple_of=4, description="channels of the code that tells a position's place"
    )


class PaDiMConfig(Section):
    """A Gaussian at each position."""

    channels: PositiveInt = Field(
        100, description="channels drawn at random of all taps' (published: 100; 550 for wide networks)"
    )
    epsilon: float = Field(0.01, gt=0, description="added to the diagonal of each covariance")


class SPADEConfig(Section):
    """Nearest images, then nearest positions."""

    neighbours: PositiveInt = Field(50, description="nearest images K")


class PatchCoreConfig(Section):
    """A bank of patches, thinned out."""

    coreset: Coreset = Field(
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

    _odd = field_validator("patch")(odd_side)
