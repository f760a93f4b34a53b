"""Score images with a trained model: scores, decisions and heat maps."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nfbmr.data.images import read_image
from nfbmr.data.pictures import Picture, picture_of
from nfbmr.data.samples import Sample
from nfbmr.errors import CheckpointError, DataError, ImageError
from nfbmr.features.extraction import extract, weights_of
from nfbmr.features.store import FeatureStore
from nfbmr.features.table import join
from nfbmr.methods.detector import Detector
from nfbmr.methods.fitting import maps_of
from nfbmr.paths import RunPaths, atomic
from nfbmr.scoring.maps import PARTS
from nfbmr.training.compute import device_of

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Prediction:
    """One image's score and decision, or what was wrong with it.

    Attributes:
        path: The image.
        score: Higher is more anomalous; None where the image could not be read.
        threshold: The model's.
        rejected: Whether the part is taken for defective.
        parts: Each score part's maximum over the map.
        error: What was wrong with the image; None where it was scored.
        heatmap: The picture that was drawn, if any.
    """

    path: Path
    score: float | None
    threshold: float
    rejected: bool | None
    parts: dict[str, float]
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
            inside = (p for p in path.rglob("*") if p.is_file())
            found += sorted(p for p in inside if p.suffix.lower() in IMAGE_ENDINGS)
        elif path.exists():
            found.append(path)
        else:
            raise DataError("no such file or folder", where=path, fix="check the path")
    if not found:
        raise DataError(
            "no images", where=", ".join(map(str, paths)), fix=f"endings: {' '.join(IMAGE_ENDINGS)}"
        )
    return list(dict.fromkeys(found))


def predict(
    model: Path,
    images: Sequence[Path],
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
        heatmaps: Folder to draw heat maps in; None for none.
        device: As in the configuration.

    Returns:
        A prediction an image, in the order of :func:`images_in`.
    """
    folder = RunPaths(model).model if RunPaths(model).model.exists() else model
    detector = Detector.load(folder, device_of(device))
    if detector.scorer is None:
        raise CheckpointError("the model has no threshold yet", where=folder, fix="finish the run first")
    limit = detector.scorer.threshold if threshold is None else threshold
    files = images_in(images)
    read, maps_NPHW, errors = _maps(detector, files, device)
    map_NHW = detector.scorer.fuse(maps_NPHW)
    scores = detector.scorer.reduce(map_NHW).tolist()
    part_NP = maps_NPHW.flatten(2).amax(2).tolist()
    rows = {file: i for i, file in enumerate(read)}
    high = max(2 * limit, float(np.quantile(map_NHW.numpy(), 0.999)) if len(read) else 0.0)
    predictions = []
    for index, file in enumerate(files):
        if file in errors:
            predictions.append(Prediction(file, None, limit, None, {}, errors[file]))
            continue
        i = rows[file]
        drawn = None
        if heatmaps is not None:
            drawn = _draw(heatmaps, index, file, map_NHW[i].numpy(), high)
        parts = dict(zip(PARTS, part_NP[i], strict=True))
        predictions.append(Prediction(file, scores[i], limit, scores[i] > limit, parts, None, drawn))
    return predictions


def _maps(
    detector: Detector, files: Sequence[Path], device: str
) -> tuple[list[Path], Tensor, dict[Path, str]]:
    pictures: list[Picture] = []
    read: list[Path] = []
    errors: dict[Path, str] = {}
    for file in files:
        try:
            pictures.append(picture_of(Sample(file, file.name)))
            read.append(file)
        except ImageError as error:
            errors[file] = error.what
    with tempfile.TemporaryDirectory(prefix="nfbmr-") as scratch:
        # Images of the line do not belong in the store that trials share.
        store = FeatureStore(Path(scratch))
        features = detector.config.features
        extraction = extract(pictures, features, store, device=str(device_of(device)), on_error="skip")
        if weights_of(extraction) != detector.weights_digest:
            raise CheckpointError(
                f"the model was trained on other weights of {features.backbone}",
                where=f"features.weights = {features.weights}",
                fix="use the weights file that it was trained with",
            )
        maps_NPHW = maps_of(detector, join(extraction.tables))
    errors |= {read[i]: error.what for i, error in extraction.failed.items()}
    return [file for i, file in enumerate(read) if i not in extraction.failed], maps_NPHW, errors


def _draw(folder: Path, index: int, file: Path, map_HW: NDArray[np.float32], high: float) -> Path:
    from PIL import Image

    from nfbmr.evaluation.heatmaps import overlay

    # Numbered, since images from several folders may share a name.
    stem = os.fsencode(file.stem).decode("utf-8", "backslashreplace").replace("\n", " ")[:80]
    path = folder / f"{index:05d}-{stem}.png"
    with atomic(path) as temporary:
        Image.fromarray(overlay(read_image(file), map_HW, 0.0, high)).save(temporary, format="PNG")
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
        row["path"] = os.fsencode(prediction.path).decode("utf-8", "backslashreplace")
        row["heatmap"] = None if prediction.heatmap is None else str(prediction.heatmap)
        yield {**row, **{f"{part}_max": parts.get(part) for part in PARTS}}
