r"""CS-Flow: one flow over features of several image sizes, with subnets across sizes (Rudolph et al. 2022).

The same tap at 768, 384 and 192 px gives maps y_1, y_2, y_3, each half as large as the one before. A coupling
block splits each map's channels in halves a and b, and its subnets read one half at all sizes to transform
the other:

.. math::
    z_a &= e^{\sigma(s(y_b))} \odot y_a + t(y_b), \qquad z_b = e^{\sigma(s(z_a))} \odot y_b + t(z_a) \\
    \mathrm{map}_i &= \mathrm{mean}_c\; z_{i,c}^2 / 2

The score is the mean over all positions of all sizes. ``docs/methods/cs-flow.md``.

Shapes: B batch, C channels, H W a size's map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from nfbmr.config import Config, FlowConfig
from nfbmr.errors import BackboneError
from nfbmr.features.table import Shape, Tensors, ViewedFeatures
from nfbmr.flows.coupling import soft_clamp
from nfbmr.flows.standardise import Standardise
from nfbmr.methods.networks import AnomalyModel
from nfbmr.seeding import seeded
from nfbmr.stopping import StopRequest
from nfbmr.training.stages import Stage

SLOPE = 0.1
"""Of the leaky ReLU in the subnets, as published."""


class CSFlow(AnomalyModel):
    """One stage: the cross-scale flow."""

    input_layout = "apart"

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        _check(shapes)
        self.stages = (CSFlowStage(shapes, config),)


class CSFlowStage(Stage):
    r"""Maximum likelihood over all sizes together, for one dimension.

    .. math:: L = \frac{\sum_i \|z_i\|^2 / 2 - \log|\det|}{\sum_i C H_i W_i}
    """

    name = "flow"
    cacheable = True

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        self._config = config.flow
        self.flow = CrossScaleFlow(shapes, config.flow, config.seed)
        self.module: nn.Module = self.flow
        # As many positions as a size has: the mean of the fused map is then the mean over all positions.
        positions = [height * width for _, height, width in shapes]
        self.components = tuple(f"size {i + 1}" for i in range(len(shapes)))
        self.paper_weights = tuple(count / sum(positions) for count in positions)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The flow's section."""
        return {"kind": "CSFlow", "flow": self._config.model_dump(mode="json")}

    def prepare(self, seen: ViewedFeatures, stop: StopRequest | None = None) -> None:
        """Measure each size's channels on the images as they are."""
        for standardise, table in zip(self.flow.standardise, seen.features.tables, strict=True):
            standardise.fit(table, seen.rows_NV[:, 0])  # type: ignore[operator]

    def loss(self, *batch: Tensor) -> Tensor:
        """Of a map a size: a scalar."""
        z, logdet_B = self.module(*batch)
        squares = sum((z_BCHW.square().sum() for z_BCHW in z), torch.zeros((), device=logdet_B.device))
        loss: Tensor = (0.5 * squares - logdet_B.sum()) / sum(z_BCHW.numel() for z_BCHW in z)
        return loss

    def maps(self, *batch: Tensor) -> Tensor:
        """A map a size, (B, sizes, H, W) at the largest size's H W; every position keeps its value."""
        z, _ = self.flow(*batch)
        maps = [0.5 * z_BCHW.float().square().mean(1, keepdim=True) for z_BCHW in z]
        return torch.cat([interpolate(m, size=maps[0].shape[2:], mode="nearest") for m in maps], dim=1)


class CrossScaleFlow(nn.Module):
    """Coupling blocks over maps of several sizes, the largest first.

    Args:
        shapes: (C, H, W) of each size.
        config: Blocks, hidden channels, kernels and clamp.
        seed: Draws permutations and first weights.

    Example:
        >>> flow = CrossScaleFlow(((6, 8, 8), (6, 4, 4)), FlowConfig(hidden=8), seed=0)
        >>> y = torch.randn(2, 6, 8, 8), torch.randn(2, 6, 4, 4)
        >>> z, logdet_B = flow(*y)
        >>> [tuple(one.shape) for one in z], logdet_B.shape
        ([(2, 6, 8, 8), (2, 6, 4, 4)], torch.Size([2]))
        >>> all(torch.allclose(a, b, atol=1e-5) for a, b in zip(flow.inverse(*z), y))
        True
    """

    def __init__(self, shapes: Sequence[Shape], config: FlowConfig, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        channels = [shape[0] for shape in shapes]
        self.standardise = nn.ModuleList(Standardise(c, enabled=config.standardize) for c in channels)
        with seeded(seed):
            self.blocks = nn.ModuleList(
                CrossScaleCoupling(
                    channels, config.kernels[min(k, len(config.kernels) - 1)], config, generator
                )
                for k in range(config.blocks)
            )

    def forward(self, *y: Tensor) -> tuple[Tensors, Tensor]:
        r"""Z, a (B, C, H, W) a size, and :math:`\log|\det|` of the whole, (B,)."""
        logdet_B = torch.zeros(y[0].shape[0], device=y[0].device, dtype=y[0].dtype)
        for standardise, y_BCHW in zip(self.standardise, y, strict=True):
            logdet_B = logdet_B + standardise.logdet(y_BCHW.shape[2] * y_BCHW.shape[3])  # type: ignore[operator]
        x = tuple(standardise(y_BCHW) for standardise, y_BCHW in zip(self.standardise, y, strict=True))
        for block in self.blocks:
            x, added_B = block(*x)
            logdet_B = logdet_B + added_B
        return x, logdet_B

    def inverse(self, *z: Tensor) -> Tensors:
        """The y of which z is the image."""
        x: Tensors = z
        for block in reversed(self.blocks):
            x = block.inverse(*x)  # type: ignore[operator]
        return tuple(
            standardise.inverse(x_BCHW)  # type: ignore[operator]
            for standardise, x_BCHW in zip(self.standardise, x, strict=True)
        )


class CrossScaleCoupling(nn.Module):
    """A fixed random permutation of each size's channels, then both halves transformed in turn."""

    def __init__(
        self, channels: Sequence[int], kernel: int, config: FlowConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.halves = tuple(c // 2 for c in channels)
        self.clamp = config.clamp
        for i, c in enumerate(channels):
            self.register_buffer(f"order{i}", torch.randperm(c, generator=generator))
        first, second = channels[0] // 2, channels[0] - channels[0] // 2
        self.subnet1 = CrossScaleSubnet(first, 2 * second, len(channels), kernel, config.hidden)
        self.subnet2 = CrossScaleSubnet(second, 2 * first, len(channels), kernel, config.hidden)

    def forward(self, *x: Tensor) -> tuple[Tensors, Tensor]:
        """The transformed maps and the log-determinant (B,)."""
        a, b = self._split(tuple(x_BCHW[:, self._order(i)] for i, x_BCHW in enumerate(x)))
        scales, shifts = self._scale_and_shift(self.subnet2(*b), b[0].dtype)
        z_a = tuple(torch.addcmul(t, x_BCHW, s.exp()) for x_BCHW, s, t in zip(a, scales, shifts, strict=True))
        logdet_B = _summed(scales)
        scales, shifts = self._scale_and_shift(self.subnet1(*z_a), z_a[0].dtype)
        z_b = tuple(torch.addcmul(t, x_BCHW, s.exp()) for x_BCHW, s, t in zip(b, scales, shifts, strict=True))
        logdet_B = logdet_B + _summed(scales)
        return tuple(torch.cat(pair, 1) for pair in zip(z_a, z_b, strict=True)), logdet_B

    def inverse(self, *z: Tensor) -> Tensors:
        """Undo :meth:`forward`."""
        z_a, z_b = self._split(z)
        scales, shifts = self._scale_and_shift(self.subnet1(*z_a), z_a[0].dtype)
        b = tuple((z_BCHW - t) * torch.exp(-s) for z_BCHW, s, t in zip(z_b, scales, shifts, strict=True))
        scales, shifts = self._scale_and_shift(self.subnet2(*b), b[0].dtype)
        a = tuple((z_BCHW - t) * torch.exp(-s) for z_BCHW, s, t in zip(z_a, scales, shifts, strict=True))
        joined = [torch.cat(pair, 1) for pair in zip(a, b, strict=True)]
        return tuple(x_BCHW[:, self._order(i).argsort()] for i, x_BCHW in enumerate(joined))

    def _order(self, i: int) -> Tensor:
        order: Tensor = getattr(self, f"order{i}")
        return order

    def _split(self, x: Tensors) -> tuple[Tensors, Tensors]:
        pairs = list(zip(x, self.halves, strict=True))
        first = tuple(x_BCHW[:, :half] for x_BCHW, half in pairs)
        return first, tuple(x_BCHW[:, half:] for x_BCHW, half in pairs)

    def _scale_and_shift(self, outputs: Tensors, dtype: torch.dtype) -> tuple[Tensors, Tensors]:
        # Under autocast subnets answer in bfloat16; the flow itself stays in the type of its input.
        pairs = [output.to(dtype).chunk(2, 1) for output in outputs]
        return tuple(soft_clamp(s, self.clamp) for s, _ in pairs), tuple(t for _, t in pairs)


class CrossScaleSubnet(nn.Module):
    """One hidden layer a size; each size's output also hears of its neighbours' hidden layers.

    From the next smaller size by bilinear upsampling and a convolution, from the next larger one by a
    convolution of stride two. A factor a size, zero at first, makes each block begin as a permutation.
    """

    def __init__(self, channels_in: int, channels_out: int, sizes: int, kernel: int, hidden: int) -> None:
        super().__init__()
        pad = kernel // 2

        def convolutions(count: int, channels: int, width: int, stride: int = 1) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv2d(channels, width, kernel, padding=pad, stride=stride) for _ in range(count)
            )

        self.first = convolutions(sizes, channels_in, hidden)
        self.last = convolutions(sizes, hidden, channels_out)
        self.up = convolutions(sizes - 1, hidden, channels_out)
        self.down = convolutions(sizes - 1, hidden, channels_out, stride=2)
        self.gamma = nn.Parameter(torch.zeros(sizes))

    def forward(self, *x: Tensor) -> Tensors:
        """Scale and shift of every size, stacked on channels."""
        hidden = [leaky_relu(first(y_BCHW), SLOPE) for first, y_BCHW in zip(self.first, x, strict=True)]
        outputs = [last(y_BCHW) for last, y_BCHW in zip(self.last, hidden, strict=True)]
        for i in range(len(x) - 1):
            upsampled = interpolate(hidden[i + 1], size=x[i].shape[2:], mode="bilinear", align_corners=False)
            outputs[i] = outputs[i] + self.up[i](upsampled)
            outputs[i + 1] = outputs[i + 1] + self.down[i](hidden[i])
        return tuple(gamma * output for gamma, output in zip(self.gamma, outputs, strict=True))


def _summed(scales: Tensors) -> Tensor:
    """The log-determinant that log scales of all sizes have, (B,)."""
    return torch.stack([s.sum((1, 2, 3)) for s in scales]).sum(0)


def _check(shapes: Sequence[Shape]) -> None:
    """Each size has to be half as large as the one before, with the same channels, two at least."""
    for (c, h, w), (c_next, h_next, w_next) in pairwise(shapes):
        if c != c_next or (h_next, w_next) != (-(-h // 2), -(-w // 2)):
            raise BackboneError(
                f"cs-flow needs one tap at sizes that halve, and has {' and '.join(map(str, shapes))}",
                where="features.scales",
                fix="set features.scales=1,0.5,0.25, a features.size that is a multiple of 128, one tap",
            )
    if shapes[0][0] < 2:
        raise BackboneError(
            "a flow needs two channels at least", where="features.taps", fix="choose a deeper tap"
        )
