"""What stored features are told apart by, and what is stored of a tap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from nfbmr.config import FeatureConfig
from nfbmr.features.backbone import Backbone, BackboneInfo
from nfbmr.features.engine import Compute, Library
from nfbmr.features.store import SpaceSpec
from nfbmr.features.table import Shape
from nfbmr.features.tiles import tiling_of

_SQUARE = "square, bicubic, antialias"
_RECTANGLE = "bicubic, antialias"


def joined_digest(digests: Iterable[str]) -> str:
    """Fingerprints of several backbones' weights as one; that of one backbone is its own."""
    return "+".join(dict.fromkeys(digests))


def space_spec(
    backbone: Backbone | BackboneInfo,
    tap: str,
    config: FeatureConfig,
    compute: Compute,
    library: Library = "torch",
) -> SpaceSpec:
    """All that decides the features of a picture at one tap, but the picture."""
    height, width = config.shape
    tiling = tiling_of(config.shape, config.tile)
    square = height == width  # said as it was before there were rectangles: what is stored is still found
    return SpaceSpec(
        "features",
        {
            "backbone": backbone.name,
            "weights": backbone.weights_digest,
            "tap": tap,
            "size": height if square else [height, width],
            "photometric": config.photometric,
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "resize": _SQUARE if square else _RECTANGLE,
            "dtype": config.dtype,
            "compute": compute,
            "pooled": config.pooled,
            "folded": backbone.folded,
            **({"axes": "corrected"} if tap in backbone.corrected else {}),
            **({} if config.symmetry == "none" else {"symmetry": config.symmetry}),
            **({} if config.bits == 16 else {"depth": config.bits}),
            **({} if library == "torch" else {"engine": library}),
            **({} if tiling is None else {"tile": list(tiling.seen), "margin": tiling.margin}),
        },
    )


def stored_shapes(shapes: Mapping[str, Shape], config: FeatureConfig) -> dict[str, Shape]:
    """(C, H, W) of what is stored of each tap, from those of the taps' maps."""
    return {tap: (shape[0], 1, 1) if config.pooled else shape for tap, shape in shapes.items()}


def as_stored(y_BCHW: Tensor, config: FeatureConfig) -> Tensor:
    """What is stored of a tap's map: the map itself, or its mean over positions, (B, C, 1, 1)."""
    if not config.pooled:
        return y_BCHW
    return y_BCHW.float().mean((2, 3), keepdim=True).to(y_BCHW.dtype)
