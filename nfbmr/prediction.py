"""Score images with a trained model: scores, decisions and heat maps."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor
from tqdm import tqdm

from nfbmr.data.files import is_video
from nfbmr.data.given import sources_of
from nfbmr.data.images import decoded, load_image
from nfbmr.data.pictures import Picture, picture_from
from nfbmr.data.sources import Source
from nfbmr.data.video import Every, Frame, frames_of
from nfbmr.devices import device_of
from nfbmr.errors import CheckpointError, ConfigError, ImageError, require_package
from nfbmr.features.extraction import pictures_at_once
from nfbmr.features.reader import FeatureReader
from nfbmr.features.table import Tensors, ViewedFeatures
from nfbmr.machine import usable_cores
from nfbmr.methods.detector import Detector
from nfbmr.methods.forward import maps_of
from nfbmr.paths import model_folder
from nfbmr.prediction_pictures import overlaid, save_picture
from nfbmr.progress import ticking
from nfbmr.scoring.regions import Limit, Peak, Region, peak_of, predicted_mask, regions_of
from nfbmr.stopping import StopRequest

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Prediction:
    """One image's score and decision, or what was wrong with it.

    Attributes:
        path: The image's file; None for an image in memory. Rows stand in the order of the images.
        score: Higher is more anomalous; None where the image could not be read.
        threshold: The model's.
        rejected: Whether the part is taken for defective.
        components: Each score component's maximum over the map.
        test_peeked: Whether the model's threshold was chosen on its test set.
        error: What was wrong with the image; None where it was scored.
        heatmap: The picture that was drawn, if any.
        relative_score: The score as people read it: 1 at the threshold, 0 at a typical good part. None for
            models before format 3.
        regions: Where the part departs from good ones, the highest peak first; empty where it does nowhere.
            None where the model has no threshold for positions (models before format 3, methods without a
            map).
        peak: The map's highest place, whether or not it belongs to a region; None likewise.
        mask: The file of the predicted mask, if one was written.
        frame: Number of a video's frame, from 0; None for an image.
        seconds: When it is shown, from the first frame on; None likewise.
    """

    path: Path | None
    score: float | None
    threshold: float
    rejected: bool | None
    components: Mapping[str, float]
    test_peeked: bool
    error: str | None = None
    heatmap: Path | None = None
    relative_score: float | None = None
    regions: tuple[Region, ...] | None = None
    peak: Peak | None = None
    mask: Path | None = None
    frame: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Scored:
    """What a model says of one image, before any threshold; or what was wrong with the image.

    Attributes:
        score: Higher is more anomalous; None where the image could not be read.
        components: Each score component's maximum over the map.
        map_HW: The anomaly map.
        size: Height and width of the image as it is seen.
        error: What was wrong.
    """

    score: float | None = None
    components: Mapping[str, float] = field(default_factory=dict)
    map_HW: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    error: str | None = None


class _Prepared(NamedTuple):
    """What the networks see of an image, and its own height and width."""

    tensors: Tensors
    size: tuple[int, int]


class Predictor:
    """A trained model, loaded once, that scores images a batch at a time.

    Args:
        detector: With its scorer.
        device: As in the configuration.

    Raises:
        CheckpointError: The model has no threshold yet, or the backbone's weights here are other ones.
    """

    def __init__(self, detector: Detector, device: str = "auto") -> None:
        if detector.scorer is None:
            raise CheckpointError("the model has no threshold yet", fix="finish the run first")
        features = detector.config.features
        # Nothing is left to be measured in a finished model's configuration; bf16 is for one made by hand.
        self._reader = FeatureReader(features, device_of(device), "bf16")
        detector.check_weights(self._reader.weights_digest)
        self.detector, self.scorer, self.features = detector, detector.scorer, features

    @classmethod
    def load(cls, model: Path, device: str = "auto") -> Predictor:
        """The model of a finished run's folder, or of its model folder.

        Raises:
            CheckpointError: It is damaged, has no threshold, or other weights.
        """
        return cls(Detector.load(model_folder(model), device_of(device)), device)

    def __call__(
        self, images: Sequence[Source | ImageError], *, threshold: float | None = None
    ) -> Iterator[tuple[Prediction, Scored]]:
        """Each image's prediction and what it was made from, in order; images as :meth:`score` takes them."""
        limit = self.limit(threshold)
        peeked = self.detector.config.selection.on == "test"
        for image, scored in zip(images, self.score(images), strict=True):
            file = image if isinstance(image, Path) else None
            if scored.score is None:
                yield Prediction(file, None, limit, None, {}, peeked, scored.error), scored
                continue
            rejected = scored.score > limit
            yield (
                Prediction(
                    file,
                    scored.score,
                    limit,
                    rejected,
                    scored.components,
                    peeked,
                    relative_score=self.relative(scored.score, limit),
                    regions=self.regions(scored),
                    peak=self.peak(scored),
                ),
                scored,
            )

    def frames(
        self, video: Path, every: Every | None = None, *, threshold: float | None = None, after: int = -1
    ) -> Iterator[tuple[Frame, Prediction, Scored]]:
        """The same of a video's frames after the one numbered `after`; a batch of them is held at a time."""
        waiting = (one for one in frames_of(video, every) if one.number is None or one.number > after)
        while some := list(islice(waiting, self.batch)):
            predicted = self([frame.image for frame in some], threshold=threshold)
            for frame, (prediction, scored) in zip(some, predicted, strict=True):
                row = replace(prediction, path=video, frame=frame.number, seconds=frame.seconds)
                yield frame, row, scored

    def limit(self, threshold: float | None = None) -> float:
        """The threshold that counts: the one given, else the model's.

        Raises:
            ConfigError: It is not a finite number.
        """
        limit = self.scorer.threshold if threshold is None else threshold
        if not math.isfinite(limit):
            raise ConfigError("the threshold is not a finite number", where=str(limit), fix="give a number")
        return limit

    @property
    def pixel_limit(self) -> Limit | None:
        """What positions are compared with; None for a method without a map, and models before format 3."""
        return self.scorer.pixel_limit if self.detector.networks.has_pixel_maps else None

    def relative(self, score: float, threshold: float) -> float | None:
        """A score as people read it: 1 at the threshold; None where the model cannot tell."""
        value = self.scorer.limit.relative(score, threshold)
        return value if math.isfinite(value) else None

    def regions(self, scored: Scored) -> tuple[Region, ...] | None:
        """Where an image departs from good ones; None where there is no threshold for positions."""
        if self.pixel_limit is None or scored.map_HW is None:
            return None
        return regions_of(scored.map_HW.numpy(), scored.size, self.pixel_limit)

    def peak(self, scored: Scored) -> Peak | None:
        """The highest place of an image's map; None where there is no threshold for positions."""
        if self.pixel_limit is None or scored.map_HW is None:
            return None
        return peak_of(scored.map_HW.numpy(), scored.size, self.pixel_limit)

    def mask(self, scored: Scored) -> Image.Image | None:
        """The predicted mask at the image's own size, white where it is defective; None likewise."""
        from PIL import Image

        if self.pixel_limit is None or scored.map_HW is None:
            return None
        threshold = self.pixel_limit.threshold
        return Image.fromarray(predicted_mask(scored.map_HW.numpy(), scored.size, threshold))

    @property
    def batch(self) -> int:
        """Images that are worked off at once; each of their views counts."""
        return max(1, pictures_at_once(self.features) // self.features.test_rotations)

    def score(self, images: Sequence[Source | ImageError]) -> Iterator[Scored]:
        """Score images wherever they are, a batch at a time, in order.

        Args:
            images: Files, bytes or pixels; what is known to be no image stands for itself.
        """
        batch = self.batch
        for start in range(0, len(images), batch):
            some = images[start : start + batch]
            each = _decoders(os.getpid()).map if len(some) > 1 else map  # a thread for one image is a detour
            prepared = list(each(self._prepared, some))
            readable = [image for image in prepared if not isinstance(image, ImageError)]
            scored = iter(self._scored(readable) if readable else ())
            for image in prepared:
                yield Scored(error=image.what) if isinstance(image, ImageError) else next(scored)

    def heatmap(self, image: Source, map_HW: Tensor, *, longest: int | None = None) -> Image.Image:
        """An image under its anomaly map, or its score's gradient where maps have no positions.

        Args:
            image: As :meth:`score` takes it.
            map_HW: Its anomaly map.
            longest: Pixels that a side may have; a larger image is shrunk.

        Raises:
            ImageError: The image cannot be read any more.
        """
        networks = self.detector.networks
        if networks.has_pixel_maps:
            return overlaid(
                load_image(image, self.features.bits), map_HW.numpy(), self.scorer.colours, longest
            )
        return overlaid(
            load_image(image, self.features.bits),
            networks.saliency_map(picture_from(image)).numpy(),
            (0.1, 1.0),
            longest,
        )

    def _scored(self, images: Sequence[_Prepared]) -> Iterator[Scored]:
        read = self._reader([image.tensors for image in images])
        features = self.detector.networks.arranged(read, self.features)
        seen = ViewedFeatures.of(features, self.features.test_rotations)
        maps_BPHW = maps_of(self.detector, seen)
        map_BHW = self.scorer.fuse(maps_BPHW)
        scores = self.scorer.score(maps_BPHW, map_BHW).tolist()
        highest_BP = maps_BPHW.flatten(2).amax(2).tolist()
        for score, part_P, map_HW, image in zip(scores, highest_BP, map_BHW, images, strict=True):
            yield Scored(score, dict(zip(self.scorer.components, part_P, strict=True)), map_HW, image.size)

    def _prepared(self, image: Source | ImageError) -> _Prepared | ImageError:
        if isinstance(image, ImageError):
            return image
        try:
            held = decoded(image, self.features.bits)
            picture = Picture(Path(held.name), "", held=held)  # nothing is looked up by its digest here
            height, width = held.pixels.shape[:2]
            return _Prepared(self._reader.prepared(picture), (height, width))
        except ImageError as error:
            return error


@cache
def _decoders(process: int) -> ThreadPoolExecutor:
    """Threads that decode, of all predictors of a process; one that was forked has none of its parent's."""
    return ThreadPoolExecutor(usable_cores(), f"decode-{process}")


def predict(
    model: Path | str,
    images: Any,
    *,
    threshold: float | None = None,
    heatmaps: Path | str | None = None,
    masks: Path | str | None = None,
    device: str = "auto",
    every: Every | None = None,
    stop: StopRequest | None = None,
) -> list[Prediction]:
    """Score images. One that cannot be read yields an error in its row; the others are scored.

    Args:
        model: A finished run's folder, or its model folder.
        images: Files or folders; or images in memory, as the registered model takes them: arrays (H, W) or
            (H, W, 3) of whole numbers from 0 to 255, batches (N, H, W, 3), Pillow images, bytes or base64
            text of files. One, or a list or an iterator of any of them. A file of a video
            (:data:`nfbmr.data.files.VIDEO_SUFFIXES`), given or in a folder, stands for its frames.
        threshold: Instead of the model's.
        heatmaps: Folder to draw heat maps in; None for none. All share one scale.
        masks: Folder to write predicted masks in, at the images' own sizes; None for none.
        device: As in the configuration.
        every: Which frames of a video; None for all.
        stop: Asked after each image whether to leave the others out.

    Returns:
        A prediction an image, in order; those of a folder in the order of :func:`nfbmr.data.given.images_in`.

    Raises:
        DataError: A path does not exist, or there is no image at all.
        ImageError: Something is not of a type that images have; nothing is scored.
        CheckpointError: The model is damaged, has no threshold, or other weights.
        MissingPackageError: There is a video, and what reads it is not installed.
    """
    sources = sources_of(images)
    videos = any(map(is_video, sources))
    if videos:
        require_package("av")
    predictor = Predictor.load(Path(model), device)
    predictions: list[Prediction] = []
    total = None if videos else len(sources)  # what a file says of the number of its frames may be wrong
    progress = tqdm(total=total, desc="predict", unit="image", disable=None, leave=False)
    with ticking(progress):
        for source, prediction, scored in _each(predictor, sources, every, threshold):
            name = frame_name(prediction)
            drawn, written = draw_prediction(
                predictor, source, scored, len(predictions), heatmaps, masks, name
            )
            predictions.append(replace(prediction, heatmap=drawn, mask=written))
            progress.update()
            if stop is not None and stop.requested:
                break
    return predictions


def _each(
    predictor: Predictor, sources: Sequence[Source | ImageError], every: Every | None, threshold: float | None
) -> Iterator[tuple[Source | ImageError, Prediction, Scored]]:
    """Every image and every frame, in order."""
    for videos, group in groupby(sources, is_video):
        some = list(group)
        if not videos:
            for source, (prediction, scored) in zip(some, predictor(some, threshold=threshold), strict=True):
                yield source, prediction, scored
            continue
        for video in some:
            assert isinstance(video, Path)
            for frame, prediction, scored in predictor.frames(video, every, threshold=threshold):
                yield frame.image, prediction, scored


def frame_name(prediction: Prediction) -> Path | None:
    """What a frame's pictures are named after; None for an image."""
    if prediction.frame is None or prediction.path is None:
        return None
    return Path(f"{prediction.path.stem[:60]}-frame{prediction.frame:06d}.png")


def draw_prediction(
    predictor: Predictor,
    source: Source | ImageError,
    scored: Scored,
    index: int,
    heatmaps: Path | str | None,
    masks: Path | str | None,
    name: Path | None = None,
) -> tuple[Path | None, Path | None]:
    """Draw an image's heat map and predicted mask into folders; their files, None where there is none.

    They are named after `name`, else after the image's file.

    Raises:
        ImageError: The image cannot be read any more.
    """
    drawn = written = None
    file = source if name is None and isinstance(source, Path) else name
    if heatmaps is not None and scored.map_HW is not None and not isinstance(source, ImageError):
        drawn = save_picture(Path(heatmaps), index, file, predictor.heatmap(source, scored.map_HW))
    if masks is not None and (mask := predictor.mask(scored)) is not None:
        written = save_picture(Path(masks), index, file, mask)
    return drawn, written
