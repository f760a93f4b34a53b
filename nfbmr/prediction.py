"""Score images with a trained model: scores, decisions and heat maps."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nfbmr.data.files import IMAGE_SUFFIXES, images_below
from nfbmr.data.images import Source, load_image
from nfbmr.data.pictures import picture_from
from nfbmr.errors import CheckpointError, ConfigError, DataError, ImageError
from nfbmr.features.reader import FeatureReader
from nfbmr.features.table import Tensors, ViewedFeatures
from nfbmr.methods.detector import Detector
from nfbmr.methods.fitting import maps_of
from nfbmr.paths import RunPaths, atomic
from nfbmr.training.compute import device_of
from nfbmr.wording import as_text, visible

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Prediction:
    """One image's score and decision, or what was wrong with it.

    Attributes:
        path: The image.
        score: Higher is more anomalous; None where the image could not be read.
        threshold: The model's.
        rejected: Whether the part is taken for defective.
        parts: Each score part's maximum over the map.
        test_peeked: Whether the model's threshold was chosen on its test set.
        error: What was wrong with the image; None where it was scored.
        heatmap: The picture that was drawn, if any.
    """

    path: Path
    score: float | None
    threshold: float
    rejected: bool | None
    parts: Mapping[str, float]
    test_peeked: bool
    error: str | None = None
    heatmap: Path | None = None


@dataclass(frozen=True)
class Scored:
    """What a model says of one image, before any threshold; or what was wrong with the image.

    Attributes:
        score: Higher is more anomalous; None where the image could not be read.
        parts: Each score part's maximum over the map.
        map_HW: The anomaly map.
        error: What was wrong.
    """

    score: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    map_HW: Tensor | None = None
    error: str | None = None


def images_in(paths: Sequence[Path]) -> list[Path]:
    """The given files, and the images below the given folders, sorted.

    Raises:
        DataError: A path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(images_below(path))
        elif path.exists():
            found.append(path)
        else:
            raise DataError("no such file or folder", where=path, fix="check the path")
    if not found:
        raise DataError(
            "no images", where=", ".join(map(str, paths)), fix=f"endings: {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return list(dict.fromkeys(found))


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
        if self._reader.weights_digest != detector.weights_digest:
            raise CheckpointError(
                f"the model was trained on other weights of {features.backbone}",
                where=f"features.weights = {features.weights}",
                fix="use the weights file that it was trained with",
            )
        self.detector, self.scorer, self.features = detector, detector.scorer, features

    def __call__(
        self, files: Sequence[Path], *, threshold: float | None = None
    ) -> Iterator[tuple[Prediction, Tensor | None]]:
        """Each file's prediction and anomaly map (H, W), in order; None for a map where it cannot be read."""
        limit = self.limit(threshold)
        peeked = self.detector.config.selection.on == "test"
        for file, one in zip(files, self.score(files), strict=True):
            if one.score is None:
                yield Prediction(file, None, limit, None, {}, peeked, one.error), None
            else:
                yield Prediction(file, one.score, limit, one.score > limit, one.parts, peeked), one.map_HW

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
    def batch(self) -> int:
        """Images that are worked off at once; each of their views counts."""
        return max(1, self.features.batch // self.features.test_rotations)

    def score(self, images: Sequence[Source | ImageError]) -> Iterator[Scored]:
        """Score images wherever they are, a batch at a time, in order.

        Args:
            images: Files, bytes or pixels; what is known to be no image stands for itself.
        """
        batch = self.batch
        with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
            for start in range(0, len(images), batch):
                some = images[start : start + batch]
                each = pool.map if len(some) > 1 else map  # a thread for one image is a detour
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
        if networks.localises:
            return _overlaid(image, map_HW.numpy(), self.scorer.colours, longest)
        return _overlaid(image, networks.localise(picture_from(image)).numpy(), (0.1, 1.0), longest)

    def _scored(self, images: Sequence[Tensors]) -> Iterator[Scored]:
        features = self.detector.networks.arranged(self._reader(images), self.features)
        seen = ViewedFeatures.of(features, self.features.test_rotations)
        maps_BPHW = maps_of(self.detector, seen)
        map_BHW = self.scorer.fuse(maps_BPHW)
        scores = self.scorer.score(maps_BPHW, map_BHW).tolist()
        for score, part_P, map_HW in zip(scores, maps_BPHW.flatten(2).amax(2).tolist(), map_BHW, strict=True):
            yield Scored(score, dict(zip(self.scorer.parts, part_P, strict=True)), map_HW)

    def _prepared(self, image: Source | ImageError) -> Tensors | ImageError:
        if isinstance(image, ImageError):
            return image
        try:
            return self._reader.prepared(picture_from(image))
        except ImageError as error:
            return error


def predict(
    model: Path | str,
    images: Sequence[Path | str],
    *,
    threshold: float | None = None,
    heatmaps: Path | None = None,
    device: str = "auto",
) -> list[Prediction]:
    """Score images. One that cannot be read yields an error in its row; the others are scored.

    Args:
        model: A finished run's folder, or its model folder.
        images: Files or folders.
        threshold: Instead of the model's.
        heatmaps: Folder to draw heat maps in; None for none. All share one scale.
        device: As in the configuration.

    Returns:
        A prediction an image, in the order of :func:`images_in`.
    """
    model = Path(model)
    folder = RunPaths(model).model if RunPaths(model).model.exists() else model
    predictor = Predictor(Detector.load(folder, device_of(device)), device)
    files = images_in([Path(image) for image in images])
    found = []
    progress = tqdm(total=len(files), desc="predict", unit="image", disable=None, leave=False)
    with progress:
        for index, (prediction, map_HW) in enumerate(predictor(files, threshold=threshold)):
            drawn = None
            if heatmaps is not None and map_HW is not None:
                picture = predictor.heatmap(prediction.path, map_HW)
                drawn = _draw(heatmaps, index, prediction.path, picture)
            found.append(replace(prediction, heatmap=drawn))
            progress.update()
    return found


def _overlaid(
    source: Source, map_HW: NDArray[np.float32], colours: tuple[float, float], longest: int | None
) -> Image.Image:
    from PIL import Image

    from nfbmr.evaluation.heatmaps import overlay

    image = load_image(source)
    if longest is not None:
        image.thumbnail((longest, longest))
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return Image.fromarray(overlay(pixels, map_HW, *colours))


def _draw(folder: Path, index: int, file: Path, drawn: Image.Image) -> Path:
    # Numbered, since images from several folders may share a name.
    stem = visible(file.stem)[:80]
    path = folder / f"{index:05d}-{stem}.png"
    with atomic(path) as temporary:
        drawn.save(temporary, format="PNG")
    return path


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """Write a table; the ending chooses: .csv, .json or .parquet.

    Raises:
        DataError: The ending is none of these.
    """
    rows = list(_rows(predictions))
    with atomic(path) as temporary:
        if path.suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        elif path.suffix == ".json":
            temporary.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        elif path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), temporary)
        else:
            raise DataError("no such table format", where=path, fix="end the name in .csv, .json or .parquet")


def _rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, object]]:
    named = dict.fromkeys(part for prediction in predictions for part in prediction.parts)
    for prediction in predictions:
        row = asdict(prediction)
        parts = row.pop("parts")
        row["path"] = as_text(prediction.path)
        row["heatmap"] = None if prediction.heatmap is None else str(prediction.heatmap)
        yield {**row, **{f"{part}_max": parts.get(part) for part in named}}
