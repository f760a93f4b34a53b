"""The TNF: a RealNVP from the backbone's features to a standard normal of the same shape."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nfbmr.config import FlowConfig
from nfbmr.errors import BackboneError, ConfigError
from nfbmr.flows.coupling import AffineCoupling, CouplingChain, Subnet
from nfbmr.flows.standardise import Standardise
from nfbmr.seeding import seeded


class Flow(nn.Module):
    r"""K affine coupling blocks: :math:`z = \mathrm{TNF}(y)`, (B, C, H, W) to (B, C, H, W).

    Where ``config.standardize`` is set, y is standardised per channel first (``flow.standardise``, to be
    fitted on the training features); its log-determinant is a constant and is counted.

    Args:
        shape_CHW: Shape of one feature map.
        config: Blocks, hidden channels, kernels, clamp, activation, padding.
        seed: Draws the permutations and the first weights; the global random state is neither read nor
            changed.

    Raises:
        BackboneError: One channel cannot be split in halves.
        ConfigError: Reflect padding wider than the map.

    Example:
        >>> flow = Flow((6, 4, 4), FlowConfig(hidden=8), seed=0)
        >>> y_BCHW = torch.randn(2, 6, 4, 4)
        >>> z_BCHW, logdet_B = flow(y_BCHW)
        >>> z_BCHW.shape, logdet_B.shape
        (torch.Size([2, 6, 4, 4]), torch.Size([2]))
        >>> torch.allclose(flow.inverse(z_BCHW), y_BCHW, atol=1e-5)
        True
    """

    def __init__(self, shape_CHW: tuple[int, int, int], config: FlowConfig, seed: int) -> None:
        super().__init__()
        _check(shape_CHW, config)
        self.shape_CHW, self.config = shape_CHW, config
        self.standardise = Standardise(shape_CHW[0], enabled=config.standardize)
        generator = torch.Generator().manual_seed(seed)
        with seeded(seed):
            self.blocks = CouplingChain(
                AffineCoupling(
                    [shape_CHW],
                    subnet=partial(
                        Subnet, kernel=config.kernels[min(k, len(config.kernels) - 1)], config=config
                    ),
                    clamp=config.clamp,
                    generator=generator,
                )
                for k in range(config.blocks)
            )

    def forward(self, y_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        r"""Z (B, C, H, W) and :math:`\log|\det dz/dy|` (B,)."""
        z_BCHW, logdet_B = self.blocks(self.standardise(y_BCHW))
        return z_BCHW, logdet_B + self.standardise.logdet(y_BCHW.shape[2] * y_BCHW.shape[3])

    def inverse(self, z_BCHW: Tensor) -> Tensor:
        """The y (B, C, H, W) of which z is the image."""
        return self.standardise.inverse(self.blocks(z_BCHW, rev=True)[0])


def _check(shape_CHW: tuple[int, int, int], config: FlowConfig) -> None:
    channels, height, width = shape_CHW
    if channels < 2:
        raise BackboneError(
            f"a flow needs two channels at least, the features have {channels}",
            where="features.taps",
            fix="choose a deeper tap, or several",
        )
    widest = max(config.kernels[: config.blocks]) // 2
    if config.padding == "reflect" and widest >= min(height, width):
        raise ConfigError(
            f"reflect padding of {widest} needs a larger feature map than {height} x {width}",
            where="flow.padding",
            fix="set flow.padding=zeros, smaller flow.kernels, or a larger features.size",
        )
