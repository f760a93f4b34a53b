"""What the networks of several methods leave open: the flow, the mappings, the detail level."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    field_validator,
)

from nfbmr.config.section import PositiveInt, Section

_Rate = Annotated[float, Field(gt=0.0)]


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
    pfm_rates: tuple[_Rate, ...] = Field(
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
