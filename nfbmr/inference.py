"""Questions about images to rows of answers: what a model gives to whoever asks it from outside.

Used by the model as MLflow loads it, and by whatever serves it. A row is plain JSON.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfbmr.data.decoding import decode_input
from nfbmr.data.sources import MAX_PIXELS, Source
from nfbmr.devices import device_of
from nfbmr.errors import ImageError
from nfbmr.methods.detector import Detector
from nfbmr.prediction import Predictor, Scored
from nfbmr.stopping import StopRequest, until_stopped

if TYPE_CHECKING:
    from PIL import Image

LONGEST_HEATMAP = 1024
"""Pixels that a side of a heat map may have: it goes back to a browser, and a map has far fewer positions."""


@dataclass(frozen=True)
class ScoreRequest:
    """An image, and what is asked about it.

    Attributes:
        item: As :func:`~nfbmr.data.decoding.decode_input` takes it.
        threshold: Instead of the model's.
        heatmap: Whether to draw a heat map and the predicted mask.
    """

    item: Any
    threshold: float | None = None
    heatmap: bool = False


@dataclass(frozen=True)
class Answering:
    """A model that answers about images in whatever form they come.

    Attributes:
        predictor: The model.
        max_pixels: Larger images are refused before they are decoded.
    """

    predictor: Predictor
    max_pixels: int = MAX_PIXELS

    @classmethod
    def load(cls, model: Path, *, device: str = "auto", max_pixels: int = MAX_PIXELS) -> Answering:
        """Load a model's folder.

        Raises:
            CheckpointError: It is damaged, has no threshold, or other weights.
        """
        return cls(Predictor(Detector.load(model, device_of(device)), device), max_pixels)

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row holds, in order."""
        return columns_of(self.predictor.scorer.components)

    def rows(
        self,
        items: Sequence[Any],
        *,
        threshold: float | None = None,
        heatmaps: bool = False,
        paths: bool = True,
    ) -> list[dict[str, Any]]:
        """One row an item, in order; one that is no image has an error in its row, and the rest are scored.

        Args:
            items: As :func:`~nfbmr.data.decoding.decode_input` takes them.
            threshold: Instead of the model's.
            heatmaps: Whether to draw heat maps and predicted masks.
            paths: Whether items may be paths of this machine.

        Raises:
            ConfigError: The threshold is not a finite number.
        """
        limit = self.predictor.limit(threshold)
        return self.answers([ScoreRequest(item, limit, heatmaps) for item in items], paths=paths)

    def answers(
        self,
        questions: Sequence[ScoreRequest],
        *,
        paths: bool = True,
        stop: StopRequest | None = None,
    ) -> list[dict[str, Any]]:
        """One row a question, in order; questions may differ in more than their images.

        Args:
            questions: What is asked.
            paths: Whether items may be paths of this machine.
            stop: Looked at before each image.

        Raises:
            ConfigError: A threshold is not a finite number.
            Interrupted: A stop was asked for.
        """
        limits = [self.predictor.limit(question.threshold) for question in questions]
        sources: list[Source | ImageError] = []
        for index, question in enumerate(questions):
            name = f"image {index}"
            try:
                sources.append(decode_input(question.item, name=name, limit=self.max_pixels, paths=paths))
            except ImageError as error:
                sources.append(error)
        asked = zip(questions, sources, self.predictor.score(sources), limits, strict=True)
        return [
            self._row(source, image_score, limit, question.heatmap)
            for question, source, image_score, limit in until_stopped(asked, stop, "images were scored")
        ]

    def _row(
        self, source: Source | ImageError, scored: Scored, limit: float, heatmaps: bool
    ) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(self.columns)
        row |= {"threshold": limit, "test_peeked": self.predictor.detector.config.selection.on == "test"}
        if scored.score is None:
            return row | {"error": scored.error}
        if not math.isfinite(scored.score):
            return row | {"error": "its score is not a finite number: the model does not know such images"}
        row |= {"score": scored.score, "rejected": scored.score > limit}
        row |= self._located(scored, limit)
        row |= {
            f"{component}_max": value
            for component, value in scored.components.items()
            if math.isfinite(value)
        }
        if heatmaps and not isinstance(source, ImageError):
            row |= {"heatmap": self._drawn(source, scored), "mask": _png(self.predictor.mask(scored))}
        return row

    def _located(self, scored: Scored, limit: float) -> dict[str, Any]:
        """The score as people read it, and where the image departs from good ones."""
        relative = None if scored.score is None else self.predictor.relative(scored.score, limit)
        regions, peak = self.predictor.regions(scored), self.predictor.peak(scored)
        return {
            "relative_score": relative,
            "regions": None if regions is None else [asdict(region) for region in regions],
            "peak": None if peak is None else asdict(peak),
        }

    def _drawn(self, source: Source, scored: Scored) -> str | None:
        if scored.map_HW is None:
            return None
        try:
            return _png(self.predictor.heatmap(source, scored.map_HW, longest=LONGEST_HEATMAP))
        except ImageError:
            return None  # a file that went away since it was scored


def _png(picture: Image.Image | None) -> str | None:
    """A picture as base64 text of a PNG file."""
    if picture is None:
        return None
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def columns_of(components: Sequence[str]) -> tuple[str, ...]:
    """What a row holds for a method with these score components.

    Example:
        >>> columns_of(["source"])[:5]
        ('score', 'rejected', 'threshold', 'relative_score', 'source_max')
        >>> columns_of(["source"])[5:]
        ('regions', 'peak', 'test_peeked', 'heatmap', 'mask', 'error')
    """
    maxima = (f"{component}_max" for component in components)
    first = ("score", "rejected", "threshold", "relative_score")
    return (*first, *maxima, "regions", "peak", "test_peeked", "heatmap", "mask", "error")
