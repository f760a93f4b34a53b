"""Whether an exported model gives the scores of ``nfbmr predict``, image by image, before it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nfbmr.data.images import size_seen
from nfbmr.errors import DataError, ExportError
from nfbmr.export.exported import ExportedModel
from nfbmr.prediction import Predictor
from nfbmr.text import count, visible

TOLERANCE = 1e-3
"""Largest difference of a score, in standard deviations of the checked images' scores."""
TOGETHER = 3
"""Images that are also scored as one batch."""


@dataclass(frozen=True)
class Sample:
    """Images to check with, and which they are, in words."""

    files: tuple[Path, ...]
    what: str


@dataclass
class _Seen:
    """Both models' answers, image by image."""

    files: list[Path] = field(default_factory=list)
    product: list[float] = field(default_factory=list)
    exported: list[float] = field(default_factory=list)
    otherwise: int = 0
    map_difference: float = 0.0
    map_deviation: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """What was compared, and what came of it.

    Attributes:
        images: How many.
        sample: Which they are, in words.
        spread: Standard deviation of the scores of ``nfbmr predict``.
        largest: Largest difference of a score, in units of `spread`.
        worst: Name of the image where it is.
        decided_otherwise: Images whose score lies so close to the threshold that rounding decides.
        batched: Largest difference between a score in a batch of several and alone, in units of `spread`.
        map_largest: Largest difference of a map's value, in deviations of a typical map's values; None where
            no map is given.
    """

    images: int
    sample: str
    spread: float
    largest: float
    worst: str
    decided_otherwise: int
    batched: float
    map_largest: float | None

    def as_json(self) -> dict[str, Any]:
        """For ``model.json``."""
        return {**asdict(self), "tolerance": TOLERANCE}


def check(exported: ExportedModel, predictor: Predictor, sample: Sample) -> Check:
    """Score images with both, each alone; then some of one size as a batch.

    Images that cannot be read are left out.

    Args:
        exported: The one to be checked.
        predictor: The product.
        sample: The images.

    Raises:
        ExportError: A score differs by more than :data:`TOLERANCE`; the image is named.
        DataError: There are no two images whose scores differ.
    """
    seen = _scored(exported, predictor, sample)
    spread = float(np.std(seen.product)) if seen.product else 0.0
    if not spread > 0:
        raise DataError(
            f"no two scores differ, of {count(len(seen.files), 'image')} to check the export with",
            where=sample.what,
            fix="give a folder with some good and some defective parts: --images FOLDER",
        )
    difference_N = np.abs(np.subtract(seen.exported, seen.product)) / spread
    difference_N = np.where(np.isfinite(difference_N), difference_N, np.inf)
    worst = int(difference_N.argmax())
    result = Check(
        images=len(seen.files),
        sample=sample.what,
        spread=spread,
        largest=float(difference_N[worst]),
        worst=seen.files[worst].name,
        decided_otherwise=seen.otherwise,
        batched=_batched(exported, seen) / spread,
        map_largest=seen.map_difference / float(np.median(seen.map_deviation))
        if seen.map_deviation
        else None,
    )
    _refuse(result, predictor, [seen.files[i] for i in np.flatnonzero(difference_N > TOLERANCE)])
    return result


def _scored(exported: ExportedModel, predictor: Predictor, sample: Sample) -> _Seen:
    seen = _Seen()
    progress = tqdm(sample.files, desc="check", unit="image", disable=None, leave=False)
    with progress:
        for file in progress:
            (scored,) = predictor.score([file])
            if scored.score is None:
                continue
            outputs = exported.score(file)
            seen.files.append(file)
            seen.product.append(scored.score)
            seen.exported.append(float(outputs["score"][0]))
            seen.otherwise += bool(outputs["decision"][0]) != (scored.score > predictor.limit())
            if "map" in outputs and scored.map_HW is not None:
                map_HW = scored.map_HW.numpy()
                seen.map_difference = max(
                    seen.map_difference, float(np.abs(outputs["map"][0] - map_HW).max())
                )
                seen.map_deviation.append(float(map_HW.std()))
    return seen


def _batched(exported: ExportedModel, seen: _Seen) -> float:
    """Largest difference of a score in a batch, of images of the first one's size."""
    first = size_seen(seen.files[0])
    rows = [i for i, file in enumerate(seen.files) if size_seen(file) == first][:TOGETHER]
    rows = rows if len(rows) > 1 else rows * 2
    together_B = exported.score(*(seen.files[i] for i in rows))["score"]
    return float(np.abs(together_B - np.asarray([seen.exported[i] for i in rows])).max())


def _refuse(result: Check, predictor: Predictor, over: Sequence[Path]) -> None:
    """Raise where the exported model is another one."""
    config = predictor.detector.config
    fix = "please report it, with the method and its settings"
    if config.train.precision == "bf16":
        fix = "the run computes in bfloat16, a runtime in float32: train with train.precision=fp32"
    if over:
        named = ", ".join(visible(file.name) for file in over[:3])
        raise ExportError(
            f"{count(len(over), 'score')} of {result.images} would differ from nfbmr predict's by more than "
            f"{TOLERANCE:g} of their spread, by up to {result.largest:.2g} ({named}); nothing is written",
            where=visible(result.worst),
            fix=fix,
        )
    if result.batched > TOLERANCE:
        raise ExportError(
            f"a batch would get other scores than each image alone, by {result.batched:.2g} of their spread; "
            "nothing is written",
            where=config.method,
            fix=fix,
        )
