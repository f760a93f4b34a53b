"""What every pair of mapping networks has in common: two directions through one shared middle."""

from __future__ import annotations

from torch import Tensor, nn

from nfbmr.config import MappingConfig


class BidirectionalMapping(nn.Module):
    """TMNN: Y to Z and SMNN: Z to Y, through a middle that is *the same module* in both.

    The middle is one set of parameters: counted, trained and stored once. The training loop and the detector
    know a method's mapping by this class alone.

    Args:
        config: What they were made by.
        shared: The middle.
        target: What comes before and after it in TMNN.
        source: What comes before and after it in SMNN.
    """

    def __init__(
        self,
        config: MappingConfig,
        shared: nn.Module,
        target: tuple[nn.Module, nn.Module],
        source: tuple[nn.Module, nn.Module],
    ) -> None:
        super().__init__()
        self.config = config
        self.shared = shared
        self.target_in, self.target_out = target
        self.source_in, self.source_out = source

    def forward(self, y_BCHW: Tensor, z_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(y_hat, z_hat) = (SMNN(z), TMNN(y)), both (B, C, H, W)."""
        return self.source(z_BCHW), self.target(y_BCHW)

    def target(self, y_BCHW: Tensor) -> Tensor:
        """TMNN: the z that belongs to y."""
        z_hat: Tensor = self.target_out(self.shared(self.target_in(y_BCHW)))
        return z_hat

    def source(self, z_BCHW: Tensor) -> Tensor:
        """SMNN: the y that belongs to z."""
        y_hat: Tensor = self.source_out(self.shared(self.source_in(z_BCHW)))
        return y_hat
