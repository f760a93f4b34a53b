"""Pictures to features without a store: what prediction and a stopwatch need.

Values are rounded as the store rounds, so that a score is the one that the evaluation gave.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nfbmr.config import FeatureConfig
from nfbmr.data.pictures import Picture, prepare
from nfbmr.features.backbone import shared_backbone
from nfbmr.features.engine import Compute, Engine
from nfbmr.features.extraction import as_stored, joined_digest
from nfbmr.features.passes import passes_of
from nfbmr.features.shards import to_stored
from nfbmr.features.table import Features, TensorTable


class FeatureReader:
    """All passes of a configuration, loaded once.

    Args:
        config: Of the features; where their arithmetic is left open, it is `compute`.
        device: Where the networks run.
        compute: Arithmetic of the forward passes where ``config.compute`` is ``auto``.

    Raises:
        BackboneError: A backbone or tap cannot be had.
        WeightsError: Its weights cannot be had.
    """

    def __init__(self, config: FeatureConfig, device: torch.device, compute: Compute = "bf16") -> None:
        self.config = config
        self._passes = passes_of(config)
        arithmetic = compute if config.compute == "auto" else config.compute
        self._engines = tuple(
            Engine(shared_backbone(one), compute=arithmetic, size=one.size, device=str(device))
            for one in self._passes
        )
        self.weights_digest = joined_digest(engine.backbone.weights_digest for engine in self._engines)
        self._dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float16

    def prepared(self, picture: Picture) -> tuple[Tensor, ...]:
        """What each pass sees of a picture: (V, 3, S, S), a view for each part of a turn that tests ask for.

        Raises:
            ImageError: The file cannot be read.
        """
        views = picture.turned(self.config.test_rotations)
        return tuple(
            torch.stack([self._prepared(view, engine, one) for view in views])
            for engine, one in zip(self._engines, self._passes, strict=True)
        )

    def noise(self, count: int) -> list[tuple[Tensor, ...]]:
        """Pictures that are nothing but noise, as :meth:`prepared` gives them: for a stopwatch."""
        views = self.config.test_rotations
        return [
            tuple(torch.randn(views, 3, one.size, one.size) for one in self._passes) for _ in range(count)
        ]

    def __call__(self, pictures: Sequence[tuple[Tensor, ...]]) -> Features:
        """Features of prepared pictures, the views of each next to each other."""
        tables = []
        for engine, one, views in zip(self._engines, self._passes, zip(*pictures, strict=True), strict=True):
            x_B3SS = torch.cat(list(views)).to(engine.dtype)
            for y_BCHW in engine(x_B3SS):
                stored_NHWC = to_stored(as_stored(y_BCHW, one), self._dtype)
                tables.append(TensorTable(stored_NHWC.permute(0, 3, 1, 2)))
        return Features(tables)

    def _prepared(self, view: Picture, engine: Engine, one: FeatureConfig) -> Tensor:
        backbone = engine.backbone
        x_3SS = prepare(
            view, size=one.size, photometric=one.photometric, mean=backbone.mean, std=backbone.std
        )
        return torch.as_tensor(x_3SS)
