"""Which picture sizes a network takes.

Convolutional networks take any. Vision transformers cut a picture into patches, and their positions are
learned for one size: timm resizes these where it can (``dynamic_img_size``, ``set_input_size``), and sides
have to be multiples of the patch. The rest takes the one size it was made for.
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, cast

from torch import nn

from nfbmr.config import FeatureConfig
from nfbmr.disk_cache import cached
from nfbmr.errors import BackboneError
from nfbmr.features.models import blank_model, software
from nfbmr.features.taps import feature_info

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputRule:
    """What a network says of its pictures.

    Attributes:
        native: (H, W) in pixels it was made for.
        patch: Sides must be multiples of so many pixels; 1 for any. Where patches are cut from a stem's maps
            or joined two by two later on, of all pixels that a last position stands for: of a part of
            one, nothing would be seen.
        settable: Whether it works at one size at a time, which can be set beforehand.
    """

    native: tuple[int, int]
    patch: int
    settable: bool

    def has_to_be_set(self, size: tuple[int, int]) -> bool:
        """Whether the network has to be set to a size before it works on it."""
        return self.settable and size != self.native


@cache
def input_rule(backbone: str) -> InputRule:
    """The rule of a network, by its name; no weights are made, and no network that was asked about before.

    Raises:
        BackboneError: There is no such backbone.

    Example:
        >>> input_rule("vit_small_patch14_dinov2").patch, input_rule("resnet18").patch
        (14, 1)
    """
    return cached(
        "backbones",
        {"rule": backbone, **software()},
        lambda: _input_rule(backbone),
        dump=asdict,
        load=lambda kept: InputRule(
            (int(kept["native"][0]), int(kept["native"][1])), int(kept["patch"]), bool(kept["settable"])
        ),
    )


def _input_rule(backbone: str) -> InputRule:
    from timm.models import get_model_input_config

    model = blank_model(backbone)
    about = get_model_input_config(model)
    return InputRule(
        native=native_size(model),
        patch=_patch(model),
        settable=bool(about["fixed_input_size"]) and hasattr(model, "set_input_size"),
    )


def _patch(model: nn.Module) -> int:
    """Pixels of a side that are cut off together."""
    from timm.layers.hybrid_embed import HybridEmbed
    from timm.layers.patch_embed import PatchEmbed

    sides: list[int] = []
    for module in model.modules():
        if isinstance(module, PatchEmbed) and not module.dynamic_img_pad:
            sides += module.patch_size
        elif isinstance(module, HybridEmbed) and not module.dynamic_img_pad:
            ratio = module.feat_ratio(as_scalar=False)
            assert isinstance(ratio, tuple)
            sides += ratio
    patch = math.lcm(*sides)
    if patch & (patch - 1) == 0:
        return patch  # of usual sizes, multiples of 32, nothing is left over later on either
    reductions = [stage_info["reduction"] for stage_info in feature_info(model)]
    return math.lcm(patch, *(factor for factor in reductions if isinstance(factor, int)))


def native_size(model: nn.Module) -> tuple[int, int]:
    """(H, W) in pixels that a network is set to."""
    from timm.models import get_model_input_config

    about = get_model_input_config(model)
    height, width = about["input_size"][1:]
    return int(height), int(width)


def size_to_set(config: FeatureConfig) -> tuple[int, int] | None:
    """The size that a configuration's network has to be set to; None where it takes sizes as they come."""
    return config.shape if input_rule(config.backbone).has_to_be_set(config.shape) else None


def set_size(model: nn.Module, size: tuple[int, int] | None) -> nn.Module:
    """Resize what a network learned of positions, by ``set_input_size``; errors are torch's own."""
    if size is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # timm's interpolation meets torch's advice on speed
            cast(Any, model).set_input_size(img_size=size)
    return model.requires_grad_(False)


def in_patches(config: FeatureConfig) -> FeatureConfig:
    """The same pass, its sides rounded to multiples of the patch; says so where that changes them."""
    try:
        patch = input_rule(config.backbone).patch
    except BackboneError:  # whoever loads the network says what is wrong with its name
        return config
    if patch == 1 or config.tile is not None:
        return config
    rounded = config.in_multiples_of(patch)
    if rounded.shape != config.shape:
        _tell(config.backbone, patch, config.shape, rounded.shape)
    return rounded


@cache
def _tell(backbone: str, patch: int, asked: tuple[int, int], taken: tuple[int, int]) -> None:
    """Once a process."""
    log.info(
        "%s takes multiples of its patch of %d px: pictures are seen at %d x %d px (width x height), "
        "not at %d x %d",
        backbone,
        patch,
        *reversed(taken),
        *reversed(asked),
    )


def cannot_work(
    name: str, size: tuple[int, int], error: Exception, works: tuple[int, ...] = ()
) -> BackboneError:
    """The refusal of a size, with sizes that work where some are known."""
    height, width = size
    reason = next(iter(str(error).splitlines()), "")[:160] or type(error).__name__
    listed = " or ".join(map(str, works))
    return BackboneError(
        f"cannot work on pictures of {width} x {height} px ({reason})",
        where=name,
        fix=f"set features.size={listed} and features.aspect=1, or take another backbone"
        if works
        else "set features.size to what this backbone was made for (nfbmr backbones NAME) and "
        "features.aspect=1, or take another backbone",
    )
