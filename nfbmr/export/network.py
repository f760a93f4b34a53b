"""A finished method as one network: an image's pixels in; its score, its map and the decision out.

Nothing is computed anew here: backbones, networks, fusion, levels and threshold are the product's own
modules and functions, put one behind the other as :class:`nfbmr.prediction.Predictor` does it, in float32.

Shapes: B batch, V views, H W the image, S T what a pass sees of it, P score components, h w the map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nfbmr.config import FeatureConfig
from nfbmr.export.pictures import Normalised, Turned, exposed, resized
from nfbmr.features.backbone import Backbone, shared_backbone
from nfbmr.features.keys import as_stored
from nfbmr.features.passes import passes_of
from nfbmr.features.symmetry import symmetrized
from nfbmr.features.table import Features, FeatureTable, Rows, Tensors
from nfbmr.features.tiles import Tiling, tiling_of, whole_maps
from nfbmr.methods.detector import Detector
from nfbmr.scoring.fusion import Scorer


class WholeTable(FeatureTable):
    """A batch of maps as a table whose every row is the batch: shapes stay open while a graph is drawn.

    Args:
        rows_BCHW: In the stored type.
    """

    def __init__(self, rows_BCHW: Tensor) -> None:
        channels, height, width = rows_BCHW.shape[1:]
        self._rows_BCHW = rows_BCHW
        self.keys = ("",)
        self.shape = (int(channels), int(height), int(width))
        self.dtype = rows_BCHW.dtype

    def gather(self, rows: Rows) -> Tensor:
        """The batch."""
        return self._rows_BCHW


class Pass(nn.Module):
    """One backbone at one size: whole pixel values to features as the store would give them back.

    Args:
        config: Configuration of this pass alone.
    """

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = shared_backbone(config)
        self.normalised = Normalised(self.backbone.mean, self.backbone.std)
        views = config.test_rotations
        self.turned: nn.Module = nn.Identity() if views == 1 else Turned(views, config.shape[0])
        self._dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float16
        self._tiling: Tiling | None = tiling_of(config.shape, config.tile)
        if self._tiling is not None:
            self._tiling.check(
                self.backbone
            )  # shapes are asked for now: later they would be part of the graph

    def forward(self, x_B3ST: Tensor) -> Tensors:
        """A (B V, C, h, w) a tap, in the stored type."""
        x_N3ST: Tensor = self.normalised(self.turned(x_B3ST))
        y = symmetrized(
            lambda x: whole_maps(self._tiling, self.backbone, x, self.backbone),
            x_N3ST,
            self.config.symmetry,
        )
        return tuple(to_16_bits(as_stored(y_BCHW, self.config), self._dtype) for y_BCHW in y)


def to_16_bits(y_BCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """:func:`nfbmr.features.shards.to_stored` of float32 values, in operators that runtimes have.

    The largest value is a float32 of either type, so it may come first: ONNX Runtime compares no bfloat16.

    Example:
        >>> to_16_bits(torch.full((1, 1, 1, 1), 1e6), torch.float16).item()
        65504.0
    """
    limit = torch.finfo(dtype).max
    return y_BCHW.float().clamp(-limit, limit).to(dtype)


class ExportedNetwork(nn.Module):
    """Pixels to score, map and decision.

    Args:
        detector: Trained, with its scorer, on the CPU.
        resizes: Whether images are resized inside; else they come at each of :attr:`sizes`.

    Attributes:
        sizes: (S, T) of each input where nothing is resized inside, in the order of the inputs.
        resizes: Whether images are resized inside.
        has_map: Whether the method's maps have positions, and are given.
        method: Its name.
    """

    def __init__(self, detector: Detector, *, resizes: bool) -> None:
        super().__init__()
        assert detector.scorer is not None
        self._scorer: Scorer = detector.scorer
        self._networks, self._config = detector.networks, detector.config.features
        self._stages = nn.ModuleList(detector.networks.modules().values())
        self._each = tuple(map(Pass, passes_of(self._config)))
        self._passes = nn.ModuleList(self._each)
        self.sizes = tuple(dict.fromkeys(features.shape for features in passes_of(self._config)))
        self.resizes = resizes
        self.has_map = detector.networks.has_pixel_maps
        self.method = detector.config.method
        self.requires_grad_(False).eval()

    def forward(self, *pixels: Tensor) -> Tensors:
        """Of (B, H, W, 3) uint8: score (B,), map (B, h, w) where there is one, decision (B,) bool.

        Args:
            pixels: One image, or the same one at each of :attr:`sizes`.
        """
        seen = self._seen(pixels)
        tables = [WholeTable(y) for backbone in self._each for y in backbone(seen[backbone.config.shape])]
        features = self._networks.arranged(Features(tables), self._config)
        y = tuple(y_BCHW.float() for y_BCHW in features.gather([0]))
        if self._networks.caches_latents:
            y = (*y, self._networks.latents(*y))
        maps_VPhw = self._networks.maps(*y).float()  # the score is the mean over an image's views
        maps_BPhw = torch.unflatten(maps_VPhw, 0, (-1, self._config.test_rotations)).mean(1)
        map_Bhw = self._scorer.fuse(maps_BPhw)
        score_B = self._scorer.score(maps_BPhw, map_Bhw)
        decision_B = score_B > self._scorer.threshold
        return (score_B.float(), map_Bhw, decision_B) if self.has_map else (score_B.float(), decision_B)

    def _seen(self, pixels: Tensors) -> dict[tuple[int, int], Tensor]:
        x = tuple(pixels_BHWC.permute(0, 3, 1, 2).float() for pixels_BHWC in pixels)
        if not self.resizes:
            return dict(zip(self.sizes, x, strict=True))
        x_B3HW = exposed(x[0], self._config.photometric)
        return {size: resized(x_B3HW, size) for size in self.sizes}
