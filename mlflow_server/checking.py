"""A registered model held against new good parts: whether its threshold still holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow_server.contender import Contender
from mlflow_server.drift import Drift, drift
from nfbmr.errors import DataError, RegistryError
from nfbmr.prediction import images_in
from nfbmr.wording import as_text


def check(contender: Contender, images: Sequence[Path], *, confidence: float = 0.95) -> Drift:
    """Score new good parts, and compare them with those that the threshold was set on.

    Args:
        contender: The model.
        images: Files or folders of good parts that it has not seen.
        confidence: Of the interval.

    Raises:
        DataError: There are no images, or none that can be read.
        RegistryError: The model's run kept no validation scores.
    """
    evidence = contender.evidence
    if not evidence.evaluated:
        raise RegistryError(
            "the model's run ended before it kept its validation scores",
            where=contender.label,
            fix="finish the run, and register it again",
        )
    known = evidence.side("validation").good.scores.score
    files = images_in(images)
    outcomes, threshold = contender.outcomes(files)
    scores = [one.score for one in outcomes if one.score is not None]
    unreadable = {
        as_text(file): one.error for file, one in zip(files, outcomes, strict=True) if one.error is not None
    }
    if not scores:
        raise DataError(
            "no image could be read", where=", ".join(map(str, images)), fix=next(iter(unreadable.values()))
        )
    stated = float(evidence.summary["selection"]["false_reject_rate"])
    return drift(
        known, scores, threshold=threshold, stated=stated, confidence=confidence, unreadable=unreadable
    )
