"""What is fitted, as the training loop and the validation see it: a module, a loss, and score components.

A method is one stage or several, in order (:mod:`nfbmr.methods.networks`); a later stage may read what an
earlier one made of the features. Those of the main method are here.

Shapes: B batch, C channels, H W the feature map, P score components.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nfbmr.config import Section
from nfbmr.features.table import ViewedFeatures
from nfbmr.flows.standardise import Standardise
from nfbmr.mapping.bidirectional import BidirectionalMapping
from nfbmr.scoring.maps import squared_norm
from nfbmr.stopping import StopRequest

if TYPE_CHECKING:
    from nfbmr.flows.flow import Flow


class Stage(ABC):
    """Something that can be fitted, and then judges features.

    Attributes:
        name: Name of its checkpoints and weights, and, where it is trained, of the section of ``train`` that
            it is configured by: ``"flow"``, ``"mapping"``.
        module: Holds all that is fitted and stored.
        components: Names of the score components that :meth:`maps` gives.
        paper_weights: The source's own weights of these components.
        trained: Whether it has a loss to descend; else :meth:`prepare` is all there is to it.
        full_precision: Whether its maps need float32 throughout: distances, not networks.
        cacheable: Whether a fitted one is kept in the store, for every run that wants the same.
        trial_specific: Whether hardly two trials of a search want the same one: the store keeps those of
            whole runs alone.
        tables: Numbers of the tables of features that it reads; None for all of them.
        reads_latents: Whether it is given what the first stage made of the features.
        validated: Whether its epochs are judged on validation images; else the last one is kept.
    """

    name: str
    module: nn.Module
    components: tuple[str, ...]
    paper_weights: tuple[float, ...]
    trained: bool = True
    full_precision: bool = False
    cacheable: bool = False
    trial_specific: bool = False
    tables: tuple[int, ...] | None = None
    reads_latents: bool = True
    validated: bool = True

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides its weights besides its training: kind and sections of the configuration."""
        return {"kind": type(self).__name__}

    @property
    def rates(self) -> Sequence[tuple[nn.Module, float]]:
        """Parts of the module, each with the share of the learning rate that it is trained with."""
        return ((self.module, 1.0),)

    def prepare(self, seen: ViewedFeatures, stop: StopRequest | None = None) -> None:  # noqa: B027
        """Measure what is measured, not trained, on the training features; comes before the first epoch.

        Args:
            seen: Features of the training images.
            stop: Asks to stop, for what takes long.
        """

    @abstractmethod
    def maps(self, *batch: Tensor) -> Tensor:
        """Score components, (B, P, H, W), of (B, C, H, W) a table and what earlier stages made of them."""

    def loss(self, *batch: Tensor) -> Tensor:
        """The mean loss of a batch, tensors as for :meth:`maps`: a scalar of the order of one."""
        raise NotImplementedError(f"stage {self.name} is not trained")


class FlowStage(Stage):
    r"""Stage one: maximum likelihood of y under the flow (eq. 8), for one dimension.

    .. math:: L = \frac{1}{CHW}\left(\frac{\|z\|^2}{2} - \log|\det dz/dy|\right)

    Args:
        flow: The TNF.
        pool: Sigma of the Gaussian that z is averaged with before its norm; 0 for none.
    """

    name = "flow"
    components = ("norm",)
    paper_weights = (0.5,)  # ||z||^2 / 2
    cacheable = True

    def __init__(self, flow: Flow, pool: float = 0.0) -> None:
        self.flow = flow
        self.module: nn.Module = flow
        self.pool = pool

    @property
    def settings(self) -> Mapping[str, Any]:
        """The flow's section."""
        return {"flow": _plain(self.flow.config)}

    def prepare(self, seen: ViewedFeatures, stop: StopRequest | None = None) -> None:
        """Measure each channel's mean and deviation on the images as they are."""
        (table,) = seen.features.tables
        self.flow.standardise.fit(table, seen.rows_NV[:, 0])

    def loss(self, *batch: Tensor) -> Tensor:
        """Of (y_BCHW,): a scalar."""
        (y_BCHW,) = batch
        z_BCHW, logdet_B = self.module(y_BCHW)
        loss: Tensor = (0.5 * z_BCHW.square().sum() - logdet_B.sum()) / z_BCHW.numel()
        return loss

    def maps(self, *batch: Tensor) -> Tensor:
        """``||z||^2`` at each position of (y_BCHW,), or of (y_BCHW, z_BCHW) where z is known already."""
        z_BCHW = batch[1] if len(batch) > 1 else self.latents(batch[0])
        return squared_norm(z_BCHW, self.pool).unsqueeze(1)

    def latents(self, y_BCHW: Tensor) -> Tensor:
        """``z = TNF(y)``, rounded as it is stored: a score is the same with and without a store."""
        z_BCHW: Tensor = self.flow(y_BCHW)[0]
        limit = torch.finfo(torch.float16).max
        return z_BCHW.clamp(-limit, limit).half().float()


class MappingStage(Stage):
    r"""Stage two: both mapping errors (eqs. 11 to 13), on stored y and z; backbone and flow are frozen.

    .. math:: L = \mathrm{mean}\,(y - \mathrm{SMNN}(z))^2 + \mathrm{mean}\,(z - \mathrm{TMNN}(y))^2

    Args:
        mapping: Both mapping networks.
        standardise: What brings y to the scale of z, normally ``flow.standardise``; None takes y as it is.
            The paper adds raw errors of y to errors of z, whose sizes then depend on the backbone.
        pool: Sigma of the Gaussian that error vectors are averaged with before their norm; 0 for none.
    """

    name = "mapping"
    components = ("source", "target", "norm")
    paper_weights = (0.5, 0.5, 0.0)  # eq. 14
    cacheable = True
    trial_specific = True  # 28 MB with the defaults, a thousand times in a search of a thousand trials

    def __init__(
        self, mapping: BidirectionalMapping, standardise: Standardise | None = None, pool: float = 0.0
    ) -> None:
        self.mapping = mapping
        self.module: nn.Module = mapping
        self._standardise = standardise
        self.pool = pool

    def standardised(self, y_BCHW: Tensor) -> Tensor:
        """Source features on the scale that the flow works on."""
        return y_BCHW if self._standardise is None else self._standardise(y_BCHW)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The mapping's kind and section."""
        return {"kind": type(self.mapping).__name__, "mapping": _plain(self.mapping.config)}

    def loss(self, *batch: Tensor) -> Tensor:
        """Of (y_BCHW, z_BCHW): a scalar."""
        y_BCHW, z_BCHW = self.standardised(batch[0]), batch[1]
        y_hat_BCHW, z_hat_BCHW = self.module(y_BCHW, z_BCHW)
        loss: Tensor = (y_BCHW - y_hat_BCHW).square().mean() + (z_BCHW - z_hat_BCHW).square().mean()
        return loss

    def maps(self, *batch: Tensor) -> Tensor:
        """``||y - y_hat||^2``, ``||z - z_hat||^2`` and ``||z||^2`` at each position of (y_BCHW, z_BCHW)."""
        y_BCHW, z_BCHW = self.standardised(batch[0]), batch[1]
        y_hat_BCHW, z_hat_BCHW = self.module(y_BCHW, z_BCHW)
        errors = (y_BCHW - y_hat_BCHW.float(), z_BCHW - z_hat_BCHW.float(), z_BCHW)
        return torch.stack([squared_norm(error, self.pool) for error in errors], dim=1)


def _plain(section: Section) -> dict[str, Any]:
    return section.model_dump(mode="json")
