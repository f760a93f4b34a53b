"""A backbone's network, before it has its weights: timm's by name, and what torchvision alone has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from nfbmr.disk_cache import code_digest, versions
from nfbmr.errors import BackboneError
from nfbmr.fields import suggestion
from nfbmr.seeding import seeded

OLDER = {"alexnet": "classifier"}
"""What timm lacks and torchvision has, with the names of their classifiers: DifferNet reads AlexNet."""


def software() -> dict[str, Any]:
    """What decides, besides a name and its weights, what a network is: versions, our own code, the processor.

    The processor's instructions decide the last bits of random weights.
    """
    return {
        **versions("torch", "timm", "torchvision"),
        "nfbmr": code_digest(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def new_model(backbone: str, *, seed: int = 0) -> nn.Module:
    """A timm model in evaluation mode, its weights drawn from `seed` and nothing else.

    A vision transformer is one that resizes its positions to the pictures that it is given, where timm can.
    ``alexnet``, which timm does not have, is torchvision's.

    Raises:
        BackboneError: timm has no such model; the error names the nearest ones.
    """
    _refuse_unknown(backbone)
    if backbone in OLDER:
        return _older_model(backbone, seed).eval().requires_grad_(False)
    more = _for_any_size(backbone)
    with seeded(seed):
        model = _timm_model(backbone, more)
    return model.eval().requires_grad_(False)


def blank_model(backbone: str) -> nn.Module:
    """:func:`new_model` without numbers, to be looked at: quick, and of any size.

    Raises:
        BackboneError: timm has no such model.
    """
    _refuse_unknown(backbone)
    if backbone not in OLDER:
        more = _for_any_size(backbone)
        try:
            with torch.device("meta"), seeded(0):
                return _timm_model(backbone, more).eval().requires_grad_(False)
        except (RuntimeError, NotImplementedError):  # it looks at its numbers while it is made
            pass
    return new_model(backbone).to("meta")


def _timm_model(backbone: str, more: Mapping[str, Any]) -> nn.Module:
    import timm

    return timm.create_model(backbone, pretrained=False, **more)


@cache
def _for_any_size(backbone: str) -> Mapping[str, Any]:
    """What a model is to be made with so that it takes pictures of any size, where it knows the word."""
    more = {"dynamic_img_size": True}
    try:
        with torch.device("meta"), seeded(0):
            _timm_model(backbone, more)
    except TypeError:  # most models have no such argument
        return {}
    except (RuntimeError, NotImplementedError):
        return {}
    return more


def _refuse_unknown(backbone: str) -> None:
    import timm

    if backbone not in OLDER and not timm.is_model(backbone):
        raise BackboneError(
            "timm has no such backbone",
            where=backbone,
            fix=suggestion(
                backbone.partition(".")[0], timm.list_models(), "choose one of timm.list_models()"
            ),
        )


def _older_model(backbone: str, seed: int) -> nn.Module:
    """A network of torchvision's that says of itself what timm's models say."""
    import torchvision
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    with seeded(seed):
        model: nn.Module = torchvision.models.get_model(backbone, weights=None)
    about = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "classifier": OLDER[backbone]}
    model.pretrained_cfg = model.default_cfg = about  # type: ignore[assignment]
    return model
