"""The BMR: two mapping networks between source and target domain that share their middle."""

from __future__ import annotations

from torch import Tensor, nn

from nfbmr.config import MappingConfig
from nfbmr.mapping.bidirectional import BidirectionalMapping
from nfbmr.seeding import seeded


class ResidualBlock(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 with a ReLU after each, plus the skip: (B, L, H, W) to (B, L, H, W).

    Args:
        channels: L, the same all the way.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
        )

    def forward(self, h_BLHW: Tensor) -> Tensor:
        """The block's answer added to its input."""
        out: Tensor = h_BLHW + self.body(h_BLHW)
        return out


class BMR(BidirectionalMapping):
    """TMNN: Y to Z and SMNN: Z to Y.

    Each is: convolution C to L, n residual blocks, one residual block, n residual blocks, convolution L to
    C. The middle block is *the same module* in both: one set of parameters, counted, trained and stored
    once.

    The paper gives no kernel size for the first and the last convolution; they are 1x1 here, as the rest of
    the paper's mapping is position by position but for the blocks' 3x3. In- and outputs are unbounded, so
    nothing follows the last convolution.

    Source features are expected on the scale that the flow works on, that is standardised per channel where
    ``flow.standardize`` is set: both errors are then of comparable size and can be added (eq. 14).

    Args:
        channels: C of both domains.
        config: Residual blocks n on each side, latent channels L.
        seed: Draws the first weights; the global random state is neither read nor changed.

    Example:
        >>> import torch
        >>> bmr = BMR(6, MappingConfig(residual_blocks=1, latent=8))
        >>> y_hat_BCHW, z_hat_BCHW = bmr(torch.randn(2, 6, 4, 4), torch.randn(2, 6, 4, 4))
        >>> y_hat_BCHW.shape
        torch.Size([2, 6, 4, 4])
    """

    def __init__(self, channels: int, config: MappingConfig, seed: int = 0) -> None:
        n, latent = config.residual_blocks, config.latent
        with seeded(seed):
            super().__init__(
                config, ResidualBlock(latent), _halves(channels, latent, n), _halves(channels, latent, n)
            )


def _halves(channels: int, latent: int, n: int) -> tuple[nn.Sequential, nn.Sequential]:
    before = nn.Sequential(nn.Conv2d(channels, latent, 1), *(ResidualBlock(latent) for _ in range(n)))
    after = nn.Sequential(*(ResidualBlock(latent) for _ in range(n)), nn.Conv2d(latent, channels, 1))
    return before, after
