r"""DifferNet: a flow on pooled features of several image sizes, averaged over turns (Rudolph et al. 2021).

Means over positions of a network's features at 448, 224 and 112 px, joined to one vector y, go through
coupling blocks with fully connected subnets. An image's score is the mean over fixed turns of it:

.. math::
    z_k = \mathrm{NF}(y(\mathrm{turned}_k(x))), \qquad
    \mathrm{score} = \mathrm{mean}_k\; \mathrm{mean}_c\; z_{k,c}^2

It says nothing of positions; the gradient of the score with respect to the image does.
``docs/methods/differnet.md``.

Shapes: B batch, C channels (features have 1 x 1 positions), S S the image's height and width.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.transforms.functional import gaussian_blur, rotate

from nfbmr.config import Config
from nfbmr.data.pictures import Picture, prepare
from nfbmr.errors import BackboneError
from nfbmr.features.backbone import shared_backbone
from nfbmr.features.passes import passes_of
from nfbmr.features.symmetry import symmetrized
from nfbmr.features.table import Shape
from nfbmr.flows.coupling import AffineCoupling
from nfbmr.methods.networks import AnomalyModel, only
from nfbmr.seeding import seeded
from nfbmr.training.stages import Stage

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from FrEIA.framework import SequenceINN

TURNS = 8
"""Turns that the gradient is averaged over: more change the picture little and cost a pass forth and back."""

BLUR = 3.0
"""Sigma in pixels that each turn's gradient is smoothed with, as published."""


class DifferNet(AnomalyModel):
    """One stage: the flow of pooled features."""

    has_pixel_maps = False

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        super().__init__(shapes, config)
        shape = only(shapes, config.method)
        if shape[1:] != (1, 1):
            raise BackboneError(
                f"differnet reads means over positions, not maps of {shape[1]} x {shape[2]}",
                where="features.pooled",
                fix="set features.pooled=true",
            )
        self.stages = (DifferNetStage(shape, config),)

    def saliency_map(self, picture: Picture) -> Tensor:
        r"""Where the score comes from, (S, S), between 0 and 1: by how much each pixel moves it.

        :math:`\mathrm{mean}_k |\mathrm{turned\ back}_k(\nabla_x \mathrm{score}_k)|` over channels and turns,
        squared, and divided by its maximum: it tells places of one image apart, not images.

        Raises:
            ImageError: The file cannot be read.
        """
        passes = passes_of(self.config.features)
        backbone, largest = shared_backbone(passes[0]), passes[0].shape
        total_SS = torch.zeros(*largest)
        turns = TURNS if largest[0] == largest[1] else 2  # any other turn of a rectangle loses its ends
        for k in range(turns):
            angle = 360.0 * k / turns
            view = picture.turned(turns)[k]
            x_3SS = prepare(
                view,
                size=largest,
                photometric=passes[0].photometric,
                mean=backbone.mean,
                std=backbone.std,
                depth=passes[0].bits,
            )
            x_13SS = torch.as_tensor(x_3SS)[None].clone().requires_grad_()
            pooled = [
                y.mean((2, 3), keepdim=True)
                for look in passes
                for y in symmetrized(backbone, _resized(x_13SS, look.shape), look.symmetry)
            ]
            score = self.stages[0].maps(torch.cat(pooled, dim=1)).sum()
            (gradient_13SS,) = torch.autograd.grad(score, x_13SS)
            back_13SS = gaussian_blur(rotate(gradient_13SS, -angle), [19, 19], [BLUR, BLUR])
            total_SS += back_13SS[0].abs().mean(0) / turns
        map_SS = total_SS.square()
        return map_SS / map_SS.max().clamp(min=1e-30)


class DifferNetStage(Stage):
    r"""Maximum likelihood of pooled features, as :class:`~nfbmr.training.stages.FlowStage` has it.

    Args:
        shape: (C, 1, 1) of the features.
        config: Its flow section: ``blocks``, ``hidden`` and ``clamp`` count.
    """

    name = "flow"
    components = ("likelihood",)
    paper_weights = (1.0,)
    cacheable = True

    def __init__(self, shape: Shape, config: Config) -> None:
        self._config = config.flow
        self.module: nn.Module = SequenceINN(*shape)
        with seeded(config.seed):
            for k in range(config.flow.blocks):
                self.module.append(
                    AffineCoupling,
                    subnet=lambda a, b: DenseSubnet(a, b, config.flow.hidden),
                    clamp=config.flow.clamp,
                    generator=torch.Generator().manual_seed(k),
                )

    @property
    def settings(self) -> Mapping[str, Any]:
        """The flow's section."""
        return {"kind": "DifferNet", "flow": self._config.model_dump(mode="json")}

    def loss(self, *batch: Tensor) -> Tensor:
        """Of (y_BC11,): a scalar."""
        z_BC11, logdet_B = self.module(batch[0])
        loss: Tensor = (0.5 * z_BC11.square().sum() - logdet_B.sum()) / z_BC11.numel()
        return loss

    def maps(self, *batch: Tensor) -> Tensor:
        """Mean of z^2 over channels, (B, 1, 1, 1)."""
        z_BC11: Tensor = self.module(batch[0])[0]
        return z_BC11.float().square().mean(1, keepdim=True)


class DenseSubnet(nn.Sequential):
    """Three hidden layers, fully connected (1x1 convolutions of one position); scale and shift on channels.

    Args:
        channels_in: Channels of the half that is read.
        channels_out: Channels of the half that is transformed.
        hidden: Width of the hidden layers.
    """

    def __init__(self, channels_in: int, channels_out: int, hidden: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, 2 * channels_out, 1),
        )


def _resized(x_13SS: Tensor, size: tuple[int, int]) -> Tensor:
    if x_13SS.shape[2:] == size:
        return x_13SS
    return interpolate(x_13SS, size=size, mode="bilinear", antialias=True, align_corners=False)
