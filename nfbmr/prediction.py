"""Score images with a trained model: scores, decisions and heat maps."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nfbmr.data.files import IMAGE_SUFFIXES, images_below
from nfbmr.data.images import read_image
from nfbmr.data.pictures import picture_of, prepare
from nfbmr.data.samples import Sample
from nfbmr.errors import CheckpointError, ConfigError, DataError, ImageError
from nfbmr.features.backbone import load_backbone
from nfbmr.features.engine import Engine
from nfbmr.features.shards import to_stored
from nfbmr.features.table import TensorTable, join
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths, atomic
from nfbmr.scoring.fusion import Scorer
from nfbmr.scoring.maps import PARTS
from nfbmr.training.compute import device_of
from nfbmr.wording import as_text, visible


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
    parts: dict[str, float]
    test_peeked: bool
    error: str | None = None
    heatmap: Path | None = None


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
    """A trained model, loaded once, that scores batches of image files.

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
        backbone = load_backbone(features)
        if backbone.weights_digest != detector.weights_digest:
            raise CheckpointError(
                f"the model was trained on other weights of {features.backbone}",
                where=f"features.weights = {features.weights}",
                fix="use the weights file that it was trained with",
            )
        # Nothing is left to be measured in a finished model's configuration; bf16 is for one made by hand.
        compute = "bf16" if features.compute == "auto" else features.compute
        self.detector, self.scorer, self.features = detector, detector.scorer, features
        self._engine = Engine(backbone, compute=compute, size=features.size, device=str(device_of(device)))
        self._dtype = torch.bfloat16 if features.dtype == "bfloat16" else torch.float16

    def __call__(
        self, files: Sequence[Path], *, threshold: float | None = None
    ) -> Iterator[tuple[Prediction, Tensor | None]]:
        """Each file's prediction and anomaly map (H, W), in order; None for a map where it cannot be read."""
        limit = self.scorer.threshold if threshold is None else threshold
        if not math.isfinite(limit):
            raise ConfigError("the threshold is not a finite number", where=str(limit), fix="give a number")
        with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
            for start in range(0, len(files), self.features.batch):
                chunk = files[start : start + self.features.batch]
                yield from self._batch(chunk, list(pool.map(self._prepared, chunk)), limit)

    def _batch(
        self, files: Sequence[Path], images: Sequence[Tensor | ImageError], limit: float
    ) -> Iterator[tuple[Prediction, Tensor | None]]:
        peeked = self.detector.config.selection.on == "test"
        readable = [image for image in images if isinstance(image, Tensor)]
        scored = iter(self._scored(torch.stack(readable)) if readable else ())
        for file, image in zip(files, images, strict=True):
            if isinstance(image, ImageError):
                yield Prediction(file, None, limit, None, {}, peeked, image.what), None
            else:
                score, parts, map_HW = next(scored)
                yield Prediction(file, score, limit, score > limit, parts, peeked), map_HW

    def _scored(self, x_B3SS: Tensor) -> Iterator[tuple[float, dict[str, float], Tensor]]:
        # Rounded as the store rounds, so that a score is the one that the evaluation gave.
        tables = [TensorTable(to_stored(y, self._dtype).permute(0, 3, 1, 2)) for y in self._engine(x_B3SS)]
        maps_BPHW = self.detector.parts(join(tables).gather(range(len(x_B3SS))))
        map_BHW = self.scorer.fuse(maps_BPHW)
        scores = self.scorer.reduce(map_BHW).tolist()
        for score, part_P, map_HW in zip(scores, maps_BPHW.flatten(2).amax(2).tolist(), map_BHW, strict=True):
            yield score, dict(zip(PARTS, part_P, strict=True)), map_HW

    def _prepared(self, file: Path) -> Tensor | ImageError:
        backbone = self._engine.backbone
        try:
            return torch.as_tensor(
                prepare(
                    picture_of(Sample(file, file.name)),
                    size=self.features.size,
                    photometric=self.features.photometric,
                    mean=backbone.mean,
                    std=backbone.std,
                )
            )
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
                drawn = _draw(heatmaps, index, prediction.path, map_HW.numpy(), predictor.scorer)
            found.append(replace(prediction, heatmap=drawn))
            progress.update()
    return found


def _draw(folder: Path, index: int, file: Path, map_HW: NDArray[np.float32], scorer: Scorer) -> Path:
    from PIL import Image

    from nfbmr.evaluation.heatmaps import overlay

    # Numbered, since images from several folders may share a name.
    stem = visible(file.stem)[:80]
    path = folder / f"{index:05d}-{stem}.png"
    with atomic(path) as temporary:
        Image.fromarray(overlay(read_image(file), map_HW, *scorer.colours)).save(temporary, format="PNG")
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
    for prediction in predictions:
        row = asdict(prediction)
        parts = row.pop("parts")
        row["path"] = as_text(prediction.path)
        row["heatmap"] = None if prediction.heatmap is None else str(prediction.heatmap)
        yield {**row, **{f"{part}_max": parts.get(part) for part in PARTS}}
