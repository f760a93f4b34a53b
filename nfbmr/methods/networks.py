"""What a method is: networks between stored features and score components, and the stages that fit them.

A method's file holds one :class:`AnomalyModel` and the :class:`~nfbmr.training.stages.Stage` classes that it
needs beyond those there are. :mod:`nfbmr.methods.registry` gives it a name and a configuration. Everything
else is shared: data, features, fitting, selection, evaluation, pictures, tracking. A method of one's own:
``docs/own-method.md``.

Shapes: B batch, C channels, H W the feature map, P score components.
"""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, Literal

from torch import Tensor, nn

from nfbmr.config import Config, FeatureConfig
from nfbmr.data.pictures import Picture
from nfbmr.errors import BackboneError
from nfbmr.features.table import Features, Shape
from nfbmr.scoring.levels import Level
from nfbmr.training.stages import Stage


class AnomalyModel(ABC):
    """A method's networks and stages; the subclass makes both in its constructor.

    Args:
        shapes: (C, H, W) of each table of features.
        config: The run's; ``config.seed`` draws the first weights.

    Attributes:
        input_layout: ``joined``: all tables as one, at the size that ``features.joined`` says; ``apart``: as
            they are stored, in the order of :func:`~nfbmr.features.passes.passes_of`.
        stages: In the order in which they are fitted. The last one judges.
        caches_latents: Whether what the first stage makes of features is stored, for later stages and for
            scores.
        has_pixel_maps: Whether its maps have positions; else :meth:`saliency_map` says what can be said of
            them.
    """

    input_layout: ClassVar[Literal["joined", "apart"]] = "joined"
    caches_latents: ClassVar[bool] = False
    has_pixel_maps: ClassVar[bool] = True
    stages: tuple[Stage, ...]

    def __init__(self, shapes: tuple[Shape, ...], config: Config) -> None:
        self.shapes, self.config = shapes, config

    @classmethod
    def arranged(cls, features: Features, config: FeatureConfig) -> Features:
        """Features as the method reads them."""
        return features.joined(config.joined) if cls.input_layout == "joined" else features

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the score components."""
        return self.stages[-1].components

    @property
    def paper_weights(self) -> tuple[float, ...]:
        """The source's own weights of these components."""
        return self.stages[-1].paper_weights

    @property
    def levels(self) -> tuple[tuple[Level, ...], ...]:
        """Groups of score components that each make a score of their own; none where one map makes the score.

        Of each level the ways to make its score, of which validation takes the best.
        """
        return ()

    @property
    def map_weights(self) -> tuple[float, ...]:
        """Of the score components in the heat map, where levels make the score."""
        return self.paper_weights

    def modules(self) -> dict[str, nn.Module]:
        """What is stored, by stage."""
        return {stage.name: stage.module for stage in self.stages}

    def latents(self, *y: Tensor) -> Tensor:
        """What is stored of a batch of features, (B, C, H, W), where the method keeps latents."""
        raise NotImplementedError("this method keeps no latents")

    def maps(self, *batch: Tensor) -> Tensor:
        """Score components of a batch, (B, P, H, W); see :meth:`nfbmr.training.stages.Stage.maps`."""
        return self.stages[-1].maps(*batch)

    def saliency_map(self, picture: Picture) -> Tensor:
        """Where in an image its score comes from, (S, S) from 0 to 1, for a method whose maps cannot tell.

        Raises:
            ImageError: The file cannot be read.
        """
        raise NotImplementedError("this method's maps have positions")

    def embeddings(self, *batch: Tensor) -> dict[str, Tensor]:
        """Means over positions, (B, C), by the name of their space; S are the source features."""
        return {"S": batch[0].float().mean((2, 3))}


def only(shapes: tuple[Shape, ...], method: str) -> Shape:
    """The one shape of a method that reads one table.

    Raises:
        BackboneError: There are several.
    """
    if len(shapes) != 1:
        raise BackboneError(
            f"{method} reads one map of features, and there are {len(shapes)}",
            where="features",
            fix="leave features.scales at [1] and features.target.backbone at null",
        )
    return shapes[0]
