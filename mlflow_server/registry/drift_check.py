"""A registered model held against new good parts: whether its threshold still holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow_server.registry.drift import Drift, drift
from mlflow_server.registry.packed_model import PackedModel
from nfbmr.data.given import images_in
from nfbmr.errors import DataError, RegistryError
from nfbmr.text import as_text


def check(packed: PackedModel, images: Sequence[Path], *, confidence: float = 0.95) -> Drift:
    """Score new good parts, and compare them with those that the threshold was set on.

    Args:
        packed: The model.
        images: Files or folders of good parts that it has not seen.
        confidence: Confidence of the interval.

    Raises:
        DataError: There are no images, or none that can be read.
        RegistryError: The model's run kept no validation scores.
    """
    evidence = packed.evidence
    if not evidence.evaluated:
        raise RegistryError(
            "the model's run ended before it kept its validation scores",
            where=packed.label,
            fix="finish the run, and register it again",
        )
    known = evidence.side("validation").good.scores.score
    files = images_in(images)
    outcomes, threshold = packed.outcomes(files)
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    unreadable = {
        as_text(file): outcome.error
        for file, outcome in zip(files, outcomes, strict=True)
        if outcome.error is not None
    }
    if not scores:
        raise DataError(
            "no image could be read", where=", ".join(map(str, images)), fix=next(iter(unreadable.values()))
        )
    stated = evidence.summary.selection.false_reject_rate
    return drift(
        known, scores, threshold=threshold, stated=stated, confidence=confidence, unreadable=unreadable
    )
