"""The affine coupling block of the TNF, which goes into FrEIA's containers, and a chain of such blocks.

Shapes: B batch, C channels, H W the feature map; a and b are the two halves of the channels, C = Ca + Cb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nfbmr.config import FlowConfig

_ATAN_SCALE = 0.636  # about 2 / pi, as in FrEIA: the clamped log scale stays within +-clamp
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def soft_clamp(s: Tensor, clamp: float) -> Tensor:
    r"""The log scale within :math:`\pm` ``clamp``: :math:`0.636\,c\,\arctan(s / c)`."""
    return (_ATAN_SCALE * clamp) * torch.atan(s / clamp)


class Subnet(nn.Sequential):
    """One hidden layer: convolution, activation, convolution; gives scale and shift stacked on channels.

    The last convolution starts at zero. Each block then starts as a mere permutation, so the first loss is
    that of the data itself (1/2 a dimension where it is standardised) whatever the width, kernel or clamp,
    and no exponential can overflow before the first steps have found its scale.

    Args:
        channels_in: Channels of the half that is read.
        channels_out: Channels of the half that is transformed; the output has twice as many.
        kernel: Odd kernel size of both convolutions.
        config: Hidden width, activation and padding.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, config: FlowConfig) -> None:
        shape: dict[str, Any] = {"padding": kernel // 2, "padding_mode": config.padding}
        last = nn.Conv2d(config.hidden, 2 * channels_out, kernel, **shape)
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        first = nn.Conv2d(channels_in, config.hidden, kernel, **shape)
        super().__init__(first, _ACTIVATIONS[config.activation](), last)


class AffineCoupling(nn.Module):
    r"""A fixed random permutation of the channels, then an affine map of each half given the other.

    With the permuted channels split into halves a and b, and the log scale softly clamped to
    :math:`\pm` ``clamp`` by :math:`\sigma(s) = 0.636\,c\,\arctan(s / c)` (c is ``clamp``, as in CS-Flow):

    .. math::
        z_a &= e^{\sigma(s_2(y_b))} \odot y_a + t_2(y_b) \\
        z_b &= e^{\sigma(s_1(z_a))} \odot y_b + t_1(z_a) \\
        \log|\det dz/dy| &= \sum \sigma(s_2(y_b)) + \sum \sigma(s_1(z_a))

    Equations 4 and 5 of the NF-BMR paper, as printed, read *both* halves from the raw input
    (:math:`z_b` from :math:`y_a` and :math:`z_a` from :math:`y_b`). That map has neither a closed inverse
    nor a triangular Jacobian. The second half is therefore conditioned on the transformed first one, as in
    RealNVP, Glow and FrEIA.

    An odd number of channels gives halves that differ by one channel.

    Args:
        dims_in: One shape (C, H, W), as FrEIA's containers pass it.
        subnet: Makes a subnet from the channels of the half that it reads and of the one that is transformed;
            it gives scale and shift stacked on channels.
        clamp: Limit of the log scale.
        generator: Draws the permutation.
    """

    order: Tensor
    order_back: Tensor

    def __init__(
        self,
        dims_in: Iterable[tuple[int, int, int]],
        *,
        subnet: Callable[[int, int], nn.Module],
        clamp: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        ((channels, *_),) = dims_in
        self.channels_a = channels // 2
        self.clamp = clamp
        order = torch.randperm(channels, generator=generator)
        self.register_buffer("order", order)
        self.register_buffer("order_back", order.argsort())
        self.subnet1 = subnet(self.channels_a, channels - self.channels_a)
        self.subnet2 = subnet(channels - self.channels_a, self.channels_a)

    def forward(
        self, x_or_z: Iterable[Tensor], c: Iterable[Tensor] | None = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        """FrEIA's signature: ((B, C, H, W),) to the same and the log-determinant (B,) of that direction."""
        (x_BCHW,) = x_or_z
        return self._inverse(x_BCHW) if rev else self._forward(x_BCHW)

    def _forward(self, y_BCHW: Tensor) -> tuple[tuple[Tensor], Tensor]:
        y_a, y_b = self._split(_reorder(y_BCHW, self.order, self.order_back))
        z_a, logdet_a = self._affine(y_a, self.subnet2(y_b))
        z_b, logdet_b = self._affine(y_b, self.subnet1(z_a))
        return (torch.cat((z_a, z_b), 1),), logdet_a + logdet_b

    def _inverse(self, z_BCHW: Tensor) -> tuple[tuple[Tensor], Tensor]:
        z_a, z_b = self._split(z_BCHW)
        s, t = self._scale_and_shift(self.subnet1(z_a), z_b)
        y_b, logdet = (z_b - t) * torch.exp(-s), -s.sum((1, 2, 3))
        s, t = self._scale_and_shift(self.subnet2(y_b), z_a)
        y_a, logdet = (z_a - t) * torch.exp(-s), logdet - s.sum((1, 2, 3))
        return (_reorder(torch.cat((y_a, y_b), 1), self.order_back, self.order),), logdet

    def _split(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return x_BCHW[:, : self.channels_a], x_BCHW[:, self.channels_a :]

    def _affine(self, x: Tensor, scale_shift: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._scale_and_shift(scale_shift, x)
        return torch.addcmul(t, x, s.exp()), s.sum((1, 2, 3))

    def _scale_and_shift(self, scale_shift: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        # Under autocast the subnet answers in bfloat16; the flow itself, and above all its log-determinant,
        # stays in the type of its input.
        s, t = scale_shift.to(like.dtype).chunk(2, 1)
        return soft_clamp(s, self.clamp), t

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The shape is kept."""
        return input_dims


class CouplingChain(nn.Module):
    """Blocks one after the other, as in FrEIA's ``SequenceINN``: the same numbers, and names of weights.

    FrEIA imports scipy.stats for its soft permutations, which takes a second; a run whose features and stages
    are stored takes four in all.

    Args:
        blocks: In the order of the forward direction.
    """

    def __init__(self, blocks: Iterable[AffineCoupling]) -> None:
        super().__init__()
        self.module_list = nn.ModuleList(blocks)

    def forward(self, x_BCHW: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        """The image of (B, C, H, W), or its inverse image, and the log-determinant (B,) of that direction."""
        total_B: Any = 0
        blocks = list(self.module_list)
        for block in reversed(blocks) if rev else blocks:
            (x_BCHW,), logdet_B = block((x_BCHW,), rev=rev)
            total_B = logdet_B + total_B
        return x_BCHW, total_B


class _Reorder(torch.autograd.Function):
    """A permutation of the channels whose gradient is the inverse permutation, not a scatter."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, order: Tensor, order_back: Tensor) -> Tensor:
        ctx.save_for_backward(order_back)
        return _take(x_BCHW, order)

    @staticmethod
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor, None, None]:
        (order_back,) = ctx.saved_tensors
        return _take(grad_BCHW, order_back), None, None


def _take(x_BCHW: Tensor, order: Tensor) -> Tensor:
    """The channels in another order; channels_last in memory, as the convolutions want them."""
    batch, channels, height, width = x_BCHW.shape
    # As a matrix of positions by channels: on a CPU several times quicker than the same in 4 dimensions.
    rows = x_BCHW.permute(0, 2, 3, 1).reshape(-1, channels).index_select(1, order)
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _reorder(x_BCHW: Tensor, order: Tensor, order_back: Tensor) -> Tensor:
    reordered: Tensor = _Reorder.apply(x_BCHW, order, order_back)
    return reordered
