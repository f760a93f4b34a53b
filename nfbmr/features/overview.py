"""What can be asked of a backbone: its taps with their maps, and the sizes it takes."""

from __future__ import annotations

from dataclasses import dataclass

from nfbmr.config import FeatureConfig
from nfbmr.errors import BackboneError
from nfbmr.features.backbone import shapes_without_weights
from nfbmr.features.inputs import in_patches, input_rule
from nfbmr.features.maps import has_norm
from nfbmr.features.models import blank_model
from nfbmr.features.table import Shape
from nfbmr.features.taps import NORM, feature_names, flat_blocks


@dataclass(frozen=True)
class TapsOfBackbone:
    """A backbone's taps at one size.

    Attributes:
        native: (H, W) in pixels it was made for.
        patch: Sides are rounded to multiples of so many pixels; 1 for any.
        size: (H, W) in pixels that `shapes` are for.
        shapes: (C, H, W) by tap, in the network's order.
        blocks: The taps that a flat block index names, in their order.
    """

    native: tuple[int, int]
    patch: int
    size: tuple[int, int]
    shapes: dict[str, Shape]
    blocks: tuple[str, ...]


def taps_of(backbone: str, size: int | None = None) -> TapsOfBackbone:
    """The taps of a backbone that give maps; nothing is computed and no weights are needed.

    Args:
        backbone: timm's name.
        size: Side of square pictures; what it was made for where there is none.

    Raises:
        BackboneError: There is no such backbone, it cannot work at this size, or no tap gives a map.

    Example:
        >>> found = taps_of("test_vit")
        >>> found.size, found.shapes["blocks.5"], list(found.shapes)[-1]
        ((160, 160), (64, 10, 10), 'norm')
    """
    rule, model = input_rule(backbone), blank_model(backbone)
    seen = rule.native
    if size is not None:
        seen = in_patches(FeatureConfig(backbone=backbone, size=size)).shape
    blocks = flat_blocks(model)
    named = (*filter(None, feature_names(model)), *((NORM,) if has_norm(model) else ()))
    shapes: dict[str, Shape] = {}
    refused: BackboneError | None = None
    for taps in dict.fromkeys((named, blocks)):
        try:
            shapes |= shapes_without_weights(backbone, taps, seen) if taps else {}
        except (
            BackboneError
        ) as error:  # blocks of a hierarchy of tokens, say: its stages are maps all the same
            refused = refused or error
    if not shapes:
        raise refused or BackboneError("none of its modules gives a map", where=backbone)
    return TapsOfBackbone(rule.native, rule.patch, seen, shapes, blocks)
