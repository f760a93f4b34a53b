"""Pictures to features without a store: what prediction and a stopwatch need.

Values are rounded as the store rounds, so that a score is the one that the evaluation gave.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nfbmr.config import FeatureConfig
from nfbmr.data.pictures import Picture, exposed, normalised, resized
from nfbmr.errors import BackboneError, MissingPackageError
from nfbmr.features.backbone import Backbone, shared_backbone
from nfbmr.features.choosing import openvino_unfit
from nfbmr.features.engine import Compute, Engine, Library
from nfbmr.features.keys import as_stored, joined_digest
from nfbmr.features.passes import passes_of
from nfbmr.features.shards import to_stored
from nfbmr.features.table import Features, TensorTable

log = logging.getLogger(__name__)


class FeatureReader:
    """All passes of a configuration, loaded once.

    Args:
        config: Of the features; where their arithmetic is left open, it is `compute`, and torch's where the
            library is. Where OpenVINO made them and cannot be had here, torch does, and it is said.
        device: Where the networks run.
        compute: Arithmetic of the forward passes where ``config.compute`` is ``auto``.

    Raises:
        BackboneError: A backbone or tap cannot be had.
        WeightsError: Its weights cannot be had.
    """

    def __init__(self, config: FeatureConfig, device: torch.device, compute: Compute = "bf16") -> None:
        self.config = config
        self._passes = passes_of(config)
        self._engines = _engines(config, self._passes, device, compute)
        self.weights_digest = joined_digest(engine.backbone.weights_digest for engine in self._engines)
        self._dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float16

    def prepared(self, picture: Picture) -> tuple[Tensor, ...]:
        """What each pass sees of a picture: (V, 3, S, S), a view for each part of a turn that tests ask for.

        Raises:
            ImageError: The file cannot be read.
        """
        views = picture.turned(self.config.test_rotations)
        image = exposed(picture, self.config.photometric, self.config.bits)  # decoded once for all
        return tuple(
            torch.stack(
                [torch.as_tensor(x_3SS) for x_3SS in _turned(views, image, engine.backbone, network.shape)]
            )
            for engine, network in zip(self._engines, self._passes, strict=True)
        )

    def noise(self, count: int) -> list[tuple[Tensor, ...]]:
        """Pictures that are nothing but noise, as :meth:`prepared` gives them: for a stopwatch."""
        views = self.config.test_rotations
        return [tuple(torch.randn(views, 3, *look.shape) for look in self._passes) for _ in range(count)]

    def __call__(self, pictures: Sequence[tuple[Tensor, ...]]) -> Features:
        """Features of prepared pictures, the views of each next to each other."""
        tables = []
        for engine, look, views in zip(self._engines, self._passes, zip(*pictures, strict=True), strict=True):
            x_B3SS = torch.cat(list(views)).to(engine.dtype)
            for y_BCHW in engine(x_B3SS):
                stored_NHWC = to_stored(as_stored(y_BCHW, look), self._dtype)
                tables.append(TensorTable(stored_NHWC.permute(0, 3, 1, 2)))
        return Features(tables)


def _engines(
    config: FeatureConfig, passes: Sequence[FeatureConfig], device: torch.device, compute: Compute
) -> tuple[Engine, ...]:
    """One a pass."""

    def by(library: Library) -> tuple[Engine, ...]:
        arithmetic = compute if config.compute == "auto" else config.compute
        return tuple(
            Engine(
                shared_backbone(network),
                compute="fp32" if library == "openvino" else arithmetic,
                size=network.shape,
                device=str(device),
                tile=network.tile,
                symmetry=network.symmetry,
                library=library,
            )
            for network in passes
        )

    if config.engine != "openvino":
        return by("torch")
    reason = openvino_unfit(device)
    if reason is None:
        try:
            return by("openvino")
        except (BackboneError, MissingPackageError) as error:
            reason = error.what
    log.warning(
        "the model's features were made by OpenVINO; here torch makes them: %s. Scores differ by rounding",
        reason,
    )
    return by("torch")


def _turned(
    views: Sequence[Picture], image: Image.Image, backbone: Backbone, size: tuple[int, int]
) -> Iterator[NDArray[np.float32]]:
    """Each view of an image that is in memory, as the backbone sees it."""
    pixels_SSC = resized(image, size)
    for view in views:
        yield normalised(view, pixels_SSC, mean=backbone.mean, std=backbone.std)
