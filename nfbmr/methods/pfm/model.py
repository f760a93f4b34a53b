r"""PFM, B-PFM and MB-PFM: mapping between the features of two pretrained networks (Wan et al. 2022).

Level by level, features s of a source network and t of a target network are brought to unit length at each
position, and 1x1 networks learn to map one to the other on good parts:

.. math::
    \mathrm{loss} &= \frac{1}{L} \sum_l \mathrm{mean}(t_l - \hat t_l)^2 + \mathrm{mean}(s_l - \hat s_l)^2 \\
    \mathrm{map} &= \frac{1}{L} \sum_l \frac{\|s_l - \hat s_l\|^2 + \|t_l - \hat t_l\|^2}{2}

each level upsampled bilinearly to the finest. PFM maps one way (s to t) and has the second term alone, B-PFM
both ways, MB-PFM both ways at several levels. With one way the map is the error itself, not half of it.
``docs/methods/pfm.md``.

Shapes: B batch, C channels, H W the feature map, L levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss, normalize

from nfbmr.config import Config
from nfbmr.errors import BackboneError
from nfbmr.features.table import Shape
from nfbmr.mapping.pfm import BPFM, PFM
from nfbmr.methods.networks import AnomalyModel
from nfbmr.scoring.maps import squared_norm
from nfbmr.training.stages import Stage


class MBPFM(AnomalyModel):
    """Both ways, a pair of networks a level; B-PFM where there is one level."""

    input_layout = "apart"

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        levels = _levels(shapes, config)
        latent = config.mapping.pfm_latent
        networks = nn.ModuleList(
            self._network(source[0], target[0], latent[min(level, len(latent) - 1)], config, level)
            for level, (source, target) in enumerate(levels)
        )
        self.stages = (PFMStage(networks, config),)

    def _network(self, source: int, target: int, latent: int, config: Config, level: int) -> nn.Module:
        return BPFM(source, target, latent, config.mapping, seed=config.seed + level)

    def embeddings(self, *batch: Tensor) -> dict[str, Tensor]:
        """S and T: features of the last level of both networks."""
        last = len(batch) // 2 - 1
        return {"S": batch[last].float().mean((2, 3)), "T": batch[-1].float().mean((2, 3))}


class OneWayPFM(MBPFM):
    """One way, from source to target."""

    def _network(self, source: int, target: int, latent: int, config: Config, level: int) -> nn.Module:
        return PFM(source, target, latent, seed=config.seed + level)


class PFMStage(Stage):
    """All levels at once: they share no parameters, so each goes its own way.

    Args:
        networks: A level's :class:`~nfbmr.mapping.pfm.PFM` or :class:`~nfbmr.mapping.pfm.BPFM` each.
        config: The run's.
    """

    name = "mapping"

    def __init__(self, networks: nn.ModuleList, config: Config) -> None:
        self.module: nn.Module = networks
        self._networks, self._config = networks, config
        both = isinstance(networks[0], BPFM)
        self.components = ("source", "target") if both else ("target",)
        self.paper_weights = (0.5, 0.5) if both else (1.0,)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The mapping's section."""
        kind = type(self._networks[0]).__name__
        return {"kind": kind, "mapping": self._config.mapping.model_dump(mode="json")}

    @property
    def rates(self) -> list[tuple[nn.Module, float]]:
        """Each level with its share of the learning rate."""
        shares = self._config.mapping.pfm_rates
        return [(net, shares[min(level, len(shares) - 1)]) for level, net in enumerate(self._networks)]

    def loss(self, *batch: Tensor) -> Tensor:
        """Of the source network's levels, then the target network's: a scalar, the mean over the levels."""
        losses = [
            sum(
                (mse_loss(predicted, true) for predicted, true in pairs),
                torch.zeros((), device=batch[0].device),
            )
            for pairs in self._mapped(batch)
        ]
        return torch.stack(losses).mean()

    def maps(self, *batch: Tensor) -> Tensor:
        """Source and target errors, or the target error alone, (B, P, H, W) at the finest level's H W."""
        finest = max((y.shape[2:] for y in batch), key=lambda size: size[0] * size[1])
        levels = []
        for pairs in self._mapped(batch):
            errors = torch.stack([squared_norm(true - predicted.float()) for predicted, true in pairs], dim=1)
            levels.append(interpolate(errors, size=finest, mode="bilinear", align_corners=False))
        return torch.stack(levels).mean(0)

    def _mapped(self, batch: tuple[Tensor, ...]) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """For each level, what was mapped and what it should be: of the source where both ways are mapped."""
        unit = [normalize(y, dim=1) for y in batch]
        half = len(unit) // 2
        for network, s, t in zip(self._networks, unit[:half], unit[half:], strict=True):
            if isinstance(network, BPFM):
                s_hat, t_hat = network(s, t)
                yield [(s_hat, s), (t_hat, t)]
            else:
                yield [(network(s), t)]


def _levels(shapes: tuple[Shape, ...], config: Config) -> list[tuple[Shape, Shape]]:
    """Pairs of a source and a target map of the same height and width."""
    features = config.features
    taps, target = len(features.taps), len(features.target.taps)
    if features.target.backbone is None or taps != target or len(features.scales) != 1:
        raise BackboneError(
            f"{config.method} maps between two networks at one image size, tap by tap; it has {taps} source "
            f"taps, {target} target taps and {len(features.scales)} image sizes",
            where="features",
            fix="set features.target.backbone, as many features.target.taps as features.taps, and "
            "features.scales=[1]",
        )
    pairs = list(zip(shapes[:taps], shapes[taps:], strict=True))
    for level, (s, t) in enumerate(pairs):
        if s[1:] != t[1:]:
            raise BackboneError(
                f"level {level + 1} has {s[1]} x {s[2]} positions in {features.backbone} and "
                f"{t[1]} x {t[2]} in {features.target.backbone}",
                where="features.target.taps",
                fix="choose taps of the same stride",
            )
    return pairs
