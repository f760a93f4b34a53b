"""The two stages as the training loop sees them: a name, a module, a loss."""

from __future__ import annotations

from copy import deepcopy
from typing import Protocol

from torch import Tensor, nn

from nfbmr.flows.flow import Flow
from nfbmr.flows.standardise import Standardise
from nfbmr.mapping.bidirectional import BidirectionalMapping


class Stage(Protocol):
    """Something that can be trained.

    Attributes:
        name: ``"flow"``, ``"mapping"``: the section of ``train`` it is configured by, and its name in
            checkpoints.
        module: Holds all that is trained and stored.
    """

    name: str
    module: nn.Module

    def loss(self, *batch: Tensor) -> Tensor:
        """The mean loss of a batch, one tensor (B, C, H, W) a table: a scalar of the order of one."""
        ...


class FlowStage:
    r"""Stage one: maximum likelihood of y under the flow (eq. 8), for one dimension.

    .. math:: L = \frac{1}{CHW}\left(\frac{\|z\|^2}{2} - \log|\det dz/dy|\right)

    Args:
        flow: The TNF.
    """

    name = "flow"

    def __init__(self, flow: Flow) -> None:
        self.module: nn.Module = flow

    def loss(self, *batch: Tensor) -> Tensor:
        """Of (y_BCHW,): a scalar."""
        (y_BCHW,) = batch
        z_BCHW, logdet_B = self.module(y_BCHW)
        loss: Tensor = (0.5 * z_BCHW.square().sum() - logdet_B.sum()) / z_BCHW.numel()
        return loss


class MappingStage:
    r"""Stage two: both mapping errors (eqs. 11 to 13), on stored y and z; backbone and flow are frozen.

    .. math:: L = \mathrm{mean}\,(y - \mathrm{SMNN}(z))^2 + \mathrm{mean}\,(z - \mathrm{TMNN}(y))^2

    Args:
        bmr: Both mapping networks.
        standardise: What brings y to the scale of z, normally ``flow.standardise``; None takes y as it is.
            The paper adds raw errors of y to errors of z, whose sizes then depend on the backbone.
    """

    name = "mapping"

    def __init__(self, bmr: BidirectionalMapping, standardise: Standardise | None = None) -> None:
        self.module: nn.Module = bmr
        self.standardise = deepcopy(
            standardise
        )  # moves to the device on its own, and is no part of the module

    def loss(self, *batch: Tensor) -> Tensor:
        """Of (y_BCHW, z_BCHW): a scalar."""
        y_BCHW, z_BCHW = batch
        if self.standardise is not None:
            y_BCHW = self.standardise.to(y_BCHW.device)(y_BCHW)
        y_hat_BCHW, z_hat_BCHW = self.module(y_BCHW, z_BCHW)
        loss: Tensor = (y_BCHW - y_hat_BCHW).square().mean() + (z_BCHW - z_hat_BCHW).square().mean()
        return loss
