"""PFM and B-PFM: pretrained feature mapping by 1x1 convolutions, one way and both ways (Wan et al. 2022).

Shapes: B batch, C channels, H W the feature map; S source domain, T target domain.
"""

from __future__ import annotations

from torch import Tensor, nn

from nfbmr.config import MappingConfig
from nfbmr.mapping.bidirectional import BidirectionalMapping
from nfbmr.seeding import seeded


class BPFM(BidirectionalMapping):
    """TMNN: S to T and SMNN: T to S, position by position; both share their bare middle convolution.

    Each is six 1x1 convolutions. From C_in to C_out with latent width l, their channels are

    ``C_in -> C_in // 2 + l -> 2 l -> l -> 2 l -> C_out // 2 + l -> C_out``

    with batch norm and ReLU after all but the middle one (2 l to l, shared) and the last, which are bare. The
    widths are those of the authors' code, whose l is 200, 400 and 900 for levels of 64/256, 128/512 and
    256/1024 channels.

    Args:
        source: Channels of the source domain.
        target: Channels of the target domain.
        latent: Width l.
        config: What `latent` was taken from.
        seed: Draws the first weights; the global random state is neither read nor changed.

    Example:
        >>> import torch
        >>> pfm = BPFM(6, 10, 4, MappingConfig())
        >>> y_hat_BCHW, z_hat_BCHW = pfm(torch.randn(2, 6, 4, 4), torch.randn(2, 10, 4, 4))
        >>> y_hat_BCHW.shape, z_hat_BCHW.shape
        (torch.Size([2, 6, 4, 4]), torch.Size([2, 10, 4, 4]))
        >>> [layer.out_channels for layer in pfm.target_in if isinstance(layer, nn.Conv2d)]
        [7, 8]
    """

    def __init__(self, source: int, target: int, latent: int, config: MappingConfig, seed: int = 0) -> None:
        with seeded(seed):
            middle = nn.Conv2d(2 * latent, latent, 1)
            super().__init__(config, middle, halves(source, target, latent), halves(target, source, latent))


class PFM(nn.Module):
    """TMNN alone, S to T, with the channels of :class:`BPFM`.

    Example:
        >>> import torch
        >>> PFM(6, 10, 4)(torch.randn(2, 6, 4, 4)).shape
        torch.Size([2, 10, 4, 4])
    """

    def __init__(self, source: int, target: int, latent: int, seed: int = 0) -> None:
        super().__init__()
        with seeded(seed):
            self.middle = nn.Conv2d(2 * latent, latent, 1)
            self.before, self.after = halves(source, target, latent)

    def forward(self, s_BCHW: Tensor) -> Tensor:
        """T features of (B, C_in, H, W), (B, C_out, H, W)."""
        t_hat_BCHW: Tensor = self.after(self.middle(self.before(s_BCHW)))
        return t_hat_BCHW


def halves(channels_in: int, channels_out: int, latent: int) -> tuple[nn.Sequential, nn.Sequential]:
    """What comes before and after the middle, from C_in to C_out."""
    between = channels_in // 2 + latent
    before = nn.Sequential(*_layer(channels_in, between), *_layer(between, 2 * latent))
    between = channels_out // 2 + latent
    after = nn.Sequential(
        *_layer(latent, 2 * latent), *_layer(2 * latent, between), nn.Conv2d(between, channels_out, 1)
    )
    return before, after


def _layer(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()
