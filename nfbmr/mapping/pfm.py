"""B-PFM: bidirectional pretrained feature mapping by 1x1 convolutions (Wan et al. 2022)."""

from __future__ import annotations

import torch
from torch import nn

from nfbmr.config import MappingConfig
from nfbmr.mapping.bidirectional import BidirectionalMapping


class BPFM(BidirectionalMapping):
    """TMNN: Y to Z and SMNN: Z to Y, position by position; both share their bare middle convolution.

    Each is six 1x1 convolutions. With latent width l, their channels are

    ``C -> C // 2 + l -> 2 l -> l -> 2 l -> C // 2 + l -> C``

    with batch norm and ReLU after all but the middle one (2 l to l, shared) and the last, which are bare. The
    widths are those of the authors' code, whose l is 200, 400 and 900 for levels of 64/256, 128/512 and
    256/1024 channels; here both domains have the same C.

    Args:
        channels: C of both domains.
        config: Latent width l, ``pfm_latent``; the rest of it is the BMR's.
        seed: Draws the first weights; the global random state is neither read nor changed.

    Example:
        >>> pfm = BPFM(6, MappingConfig(pfm_latent=4))
        >>> y_hat_BCHW, z_hat_BCHW = pfm(torch.randn(2, 6, 4, 4), torch.randn(2, 6, 4, 4))
        >>> y_hat_BCHW.shape
        torch.Size([2, 6, 4, 4])
        >>> [layer.out_channels for layer in pfm.target_in if isinstance(layer, nn.Conv2d)]
        [7, 8]
    """

    def __init__(self, channels: int, config: MappingConfig, seed: int = 0) -> None:
        latent = config.pfm_latent
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            super().__init__(
                nn.Conv2d(2 * latent, latent, 1), _halves(channels, latent), _halves(channels, latent)
            )


def _halves(channels: int, latent: int) -> tuple[nn.Sequential, nn.Sequential]:
    between = channels // 2 + latent
    before = nn.Sequential(*_layer(channels, between), *_layer(between, 2 * latent))
    after = nn.Sequential(
        *_layer(latent, 2 * latent), *_layer(2 * latent, between), nn.Conv2d(between, channels, 1)
    )
    return before, after


def _layer(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()
