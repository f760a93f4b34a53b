r"""CFLOW-AD: a flow of single positions, told where each is, at several layers (Gudovskiy 2022).

Each layer's flow turns the feature vector y(i, j) into z, given a code of the position (i, j) made of sines
and cosines; its log-likelihood for one dimension is what the position scores:

.. math::
    \log p(i, j) &= \Big(\log|\det| - \frac{\|z\|^2}{2} - \frac{C}{2}\log 2\pi\Big) / C \\
    L &= -\mathrm{mean}\; \log\,\mathrm{sigmoid}(\log p), \qquad \mathrm{map}_l = -\log p_l

``docs/methods/cflow.md``.

Shapes: B batch, C channels, H W a layer's map, D the code's channels, N = B H W positions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, logsigmoid

from nfbmr.config import Config
from nfbmr.errors import ConfigError
from nfbmr.features.table import Shape
from nfbmr.methods.cflow import CFlowConfig
from nfbmr.methods.networks import AnomalyModel
from nfbmr.seeding import seeded
from nfbmr.training.stages import Stage

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import AllInOneBlock


class CFlow(AnomalyModel):
    """One stage: a conditional flow a layer."""

    input_layout = "apart"

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        self.stages = (CFlowStage(shapes, config),)


class CFlowStage(Stage):
    """The likelihood of every position, at all layers at once.

    Args:
        shapes: (C, H, W) of each layer.
        config: ``flow.blocks``, ``flow.clamp`` and ``cflow`` count.
    """

    name = "flow"
    cacheable = True

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        self._config = config
        with seeded(config.seed):
            self.flows = nn.ModuleList(_flow(shape[0], config) for shape in shapes)
        self.module: nn.Module = self.flows
        self.components = tuple(f"layer {i + 1}" for i in range(len(shapes)))
        self.paper_weights = tuple(1.0 / len(shapes) for _ in shapes)
        self._codes = [position_code(CFlowConfig.of(config).code, *shape[1:]) for shape in shapes]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The flow's section, and CFLOW's."""
        sections = {"flow": self._config.flow, "cflow": CFlowConfig.of(self._config)}
        return {
            "kind": "CFlow",
            **{name: section.model_dump(mode="json") for name, section in sections.items()},
        }

    def loss(self, *batch: Tensor) -> Tensor:
        """Of a (B, C, H, W) a layer: a scalar, the mean over layers of the mean over positions."""
        return torch.stack(
            [-logsigmoid(level_BHW).mean() for level_BHW in self._log_likelihoods(*batch)]
        ).mean()

    def maps(self, *batch: Tensor) -> Tensor:
        """A map a layer, (B, layers, H, W) at the finest layer's H W."""
        finest = max((y.shape[2:] for y in batch), key=lambda size: size[0] * size[1])
        maps = [-level_BHW.unsqueeze(1).float() for level_BHW in self._log_likelihoods(*batch)]
        return torch.cat(
            [interpolate(m, size=finest, mode="bilinear", align_corners=False) for m in maps], dim=1
        )

    def _log_likelihoods(self, *batch: Tensor) -> list[Tensor]:
        """For one dimension, (B, H, W) a layer."""
        return [
            log_likelihood(flow, y_BCHW, code.to(y_BCHW))
            for flow, y_BCHW, code in zip(self.flows, batch, self._codes, strict=True)
        ]


def log_likelihood(flow: nn.Module, y_BCHW: Tensor, code_DHW: Tensor) -> Tensor:
    """Of every position given its code, divided by C, (B, H, W)."""
    batch, channels, height, width = y_BCHW.shape
    y_NC = y_BCHW.permute(0, 2, 3, 1).reshape(-1, channels)
    code_ND = code_DHW.flatten(1).T.repeat(batch, 1)
    z_NC, logdet_N = flow(y_NC, [code_ND])
    squares_N = z_NC.float().square().sum(1)
    total_N: Tensor = logdet_N.float() - 0.5 * squares_N - 0.5 * channels * math.log(2 * math.pi)
    return (total_N / channels).view(batch, height, width)


def position_code(channels: int, height: int, width: int) -> Tensor:
    r"""Sines and cosines of the column in the first half of the channels, of the row in the other, (D, H, W).

    Frequencies :math:`10^{-4 \cdot 2 k / (D / 2)}` (Vaswani et al. 2017, in two dimensions).

    Raises:
        ConfigError: The channels are no multiple of four.

    Example:
        >>> position_code(8, 2, 3)[:2, :, 0].tolist()
        [[0.0, 0.0], [1.0, 1.0]]
    """
    if channels % 4:
        raise ConfigError(
            f"a position's code of {channels} channels", where="cflow.code", fix="give a multiple of 4"
        )
    rates_K = torch.exp(torch.arange(0, channels // 2, 2) * -(math.log(1e4) / (channels // 2)))

    def waves(count: int) -> Tensor:
        angle_KN = rates_K[:, None] * torch.arange(count)[None]
        return torch.stack((angle_KN.sin(), angle_KN.cos()), dim=1).flatten(0, 1)

    half = channels // 2
    columns_DHW = waves(width)[:, None, :].expand(half, height, width)
    rows_DHW = waves(height)[:, :, None].expand(half, height, width)
    return torch.cat((columns_DHW, rows_DHW))


def _flow(channels: int, config: Config) -> nn.Module:
    """FrEIA's blocks, as published: soft permutations, one hidden layer twice as wide as its input."""
    flow = SequenceINN(channels)
    numpys = np.random.get_state()
    for _ in range(config.flow.blocks):
        flow.append(
            AllInOneBlock,
            cond=0,
            cond_shape=(CFlowConfig.of(config).code,),
            subnet_constructor=_subnet,
            affine_clamping=config.flow.clamp,
            global_affine_type="SOFTPLUS",
        )
    np.random.set_state(numpys)
    for block in flow.module_list:
        # A random rotation, drawn by torch: FrEIA's own takes seconds for a few hundred channels.
        rotation_CC = torch.linalg.qr(torch.randn(channels, channels, device=block.w_perm.device)).Q
        block.w_perm.data.copy_(rotation_CC)
        block.w_perm_inv.data.copy_(rotation_CC.T)
    module: nn.Module = flow
    return module


def _subnet(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(channels_in, 2 * channels_in), nn.ReLU(), nn.Linear(2 * channels_in, channels_out)
    )
