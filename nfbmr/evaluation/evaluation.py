"""One set of scored images to all its metrics.

Shapes: N images, H W the anomaly maps, h w a ground-truth mask.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nfbmr.config import EvaluationConfig
from nfbmr.data.samples import GOOD
from nfbmr.errors import NfbmrError
from nfbmr.evaluation import localisation, metrics
from nfbmr.evaluation.intervals import (
    UNDEFINED,
    Estimate,
    Floats,
    Statistic,
    auroc_interval,
    bootstrap,
    proportion,
)

TITLES = {
    "image_auroc": "Image AUROC",
    "image_ap": "Average precision",
    "image_f1": "F1 at the threshold",
    "image_precision": "Precision at the threshold",
    "image_recall": "Recall at the threshold",
    "image_false_reject_rate": "False-reject rate",
    "pixel_auroc": "Pixel AUROC",
    "pixel_aupro": "AUPRO",
    "pixel_aupimo": "AUPIMO",
    "pixel_f1": "Pixel F1 of the predicted mask",
    "pixel_false_reject_rate": "Good images with a region",
}
"""Every metric's flat name, and what people call it."""

_AT_THRESHOLD = ("image_f1", "image_precision", "image_recall", "image_false_reject_rate")


@dataclass(frozen=True)
class Scores:
    """Image scores and the truth about them, row by row.

    Attributes:
        names: The images' identities, as in :class:`~nfbmr.data.samples.Sample`.
        defects: Kind of defect of each; ``"good"`` for normal parts.
        score: Higher is more anomalous, (N,).
        groups: The part each image shows, where the split has groups; intervals then resample parts.
        weights: What each image counts for in the image AUROC; None for all alike.

    Example:
        >>> Scores(("a", "b"), ("good", "crack"), np.array([0.1, 0.9])).kinds
        ('crack',)
    """

    names: tuple[str, ...]
    defects: tuple[str, ...]
    score: Floats
    groups: tuple[str | None, ...] | None = None
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.defects), len(self.score), len(self.groups or self.names)}
        if len(lengths) > 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        bad_N = np.flatnonzero(~np.isfinite(self.score))
        if len(bad_N):
            raise NfbmrError(
                f"{len(bad_N)} of {len(self.score)} scores are not finite numbers, the first",
                where=self.names[bad_N[0]],
                fix="the model has diverged: train again with lower train.flow.lr and train.mapping.lr",
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> NDArray[np.bool_]:
        """True for defective images, (N,)."""
        return np.asarray([defect != GOOD for defect in self.defects], dtype=np.bool_)

    @property
    def parts(self) -> int:
        """How many parts the images show: groups, and images without one."""
        groups = self.groups or [None] * len(self)
        return len({("image", i) if group is None else ("group", group) for i, group in enumerate(groups)})

    @property
    def strata(self) -> list[tuple[bool, float]]:
        """Classes that every resample keeps the numbers of: good, defective, and by what they count for."""
        return list(zip(self.labels.tolist(), self.weights or [1.0] * len(self), strict=True))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of defect that occur, in alphabetical order."""
        return tuple(sorted(set(self.defects) - {GOOD}))

    def counts(self) -> dict[str, int]:
        """Images by kind of defect, good first."""
        counts = Counter(self.defects)
        return {kind: counts[kind] for kind in (GOOD, *self.kinds) if kind in counts}

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Scores:
        """Some of the rows, in the order given."""
        index = [int(row) for row in rows]
        return Scores(
            tuple(self.names[i] for i in index),
            tuple(self.defects[i] for i in index),
            self.score[index],
            None if self.groups is None else tuple(self.groups[i] for i in index),
            None if self.weights is None else tuple(self.weights[i] for i in index),
        )

    def notes(self) -> tuple[str, ...]:
        """Why metrics are undefined or weak on these images, in sentences; empty where all is well."""
        good, defective = int((~self.labels).sum()), int(self.labels.sum())
        notes = []
        if not len(self):
            notes.append("There are no test images: nothing could be measured.")
        elif not defective:
            notes.append(
                "The test set holds no defective image: only the false-reject rate is defined. "
                "Add folders of defective parts to measure how well defects are found."
            )
        elif not good:
            notes.append("The test set holds no good image: only the recall is defined.")
        elif min(good, defective) < 10:
            notes.append(
                f"Only {good} good and {defective} defective test images: the intervals are rough guesses."
            )
        return tuple(notes)


def evaluate(
    scores: Scores,
    threshold: float,
    config: EvaluationConfig,
    seed: int,
    *,
    maps_NHW: NDArray[np.float32] | None = None,
    masks: metrics.MaskOf | None = None,
    pixel_threshold: float = math.nan,
) -> dict[str, Estimate]:
    """All metrics of a set of images with their intervals.

    They are bootstrap intervals; those of shares of images are exact, that of the image AUROC is widened to
    :func:`~nfbmr.evaluation.intervals.auroc_interval`.

    Args:
        scores: The images; where they have groups, intervals resample groups, otherwise images.
        threshold: An image is rejected where its score is above it; NaN leaves the metrics at the threshold
            undefined.
        config: Resamples, confidence, and AUPRO's limit.
        seed: Seed of the resamples; every metric sees the same ones.
        maps_NHW: Anomaly maps in the order of the scores, for the pixel metrics.
        masks: Image number to ground-truth mask or None; see
            :func:`~nfbmr.evaluation.metrics.masked_images`.
        pixel_threshold: Positions of a map above it belong to the predicted mask; NaN leaves the metrics of
            predicted masks out.

    Returns:
        The keys of :data:`TITLES`, those of pixels only where there are maps and masks
        (``pixel_false_reject_rate``: maps), then for each kind of defect ``image_auroc/<defect>`` (against
        all good images) and ``image_recall/<defect>``. What the images do not determine is NaN (no defective
        images: everything but the false-reject rates).
    """
    auroc = _weighted(metrics.auroc(scores.score, scores.labels), scores.weights)
    # With one class alone it would be 0 or 1 whatever the detector does.
    both = scores.labels.any() and not scores.labels.all()
    precision = metrics.average_precision(scores.score, scores.labels) if both else None
    estimates = {
        "image_auroc": _auroc(auroc, scores, config, seed),
        "image_ap": _estimate(precision, scores, config, seed),
    }
    if math.isnan(threshold):
        estimates |= dict.fromkeys(_AT_THRESHOLD, UNDEFINED)
    else:
        estimates |= _decisions(scores, threshold, config, seed)
    if maps_NHW is not None and masks is not None and len(scores):
        estimates |= _pixel(scores, maps_NHW, masks, config, seed)
        estimates |= _masks(scores, maps_NHW, masks, pixel_threshold, config, seed)
    return estimates | _kinds(scores, threshold, config, seed)


def _decisions(scores: Scores, threshold: float, config: EvaluationConfig, seed: int) -> dict[str, Estimate]:
    """What the threshold's decisions are worth."""
    rejected, defective = scores.score > threshold, scores.labels
    both = defective.any() and not defective.all()
    f1 = metrics.f1(rejected, defective) if both else None
    precision = metrics.precision(rejected, defective) if both else None
    recall = metrics.recall(rejected, defective)
    false_rejects = metrics.false_reject_rate(rejected, defective)
    return {
        "image_f1": _estimate(f1, scores, config, seed),
        "image_precision": UNDEFINED if precision is None else _share(precision, rejected, scores, config),
        "image_recall": _share(recall, defective, scores, config),
        "image_false_reject_rate": _share(false_rejects, ~defective, scores, config),
    }


def _weighted(metric: Statistic, weights: tuple[float, ...] | None) -> Statistic:
    """A statistic in which images count for more or less than one."""
    if weights is None:
        return metric
    weights_N = np.asarray(weights)
    return lambda weights_RN: metric(weights_RN * weights_N)


def _kinds(scores: Scores, threshold: float, config: EvaluationConfig, seed: int) -> dict[str, Estimate]:
    """How well each kind of defect is found, among all good images."""
    rows = np.arange(len(scores))
    estimates = {}
    for kind in scores.kinds:
        some = scores.take(rows[[defect in (GOOD, kind) for defect in scores.defects]])
        auroc = metrics.auroc(some.score, some.labels)
        estimates[f"image_auroc/{kind}"] = _auroc(auroc, some, config, seed)
        recall = metrics.recall(some.score > threshold, some.labels)
        estimates[f"image_recall/{kind}"] = (
            UNDEFINED if math.isnan(threshold) else _share(recall, some.labels, some, config)
        )
    return estimates


def _pixel(
    scores: Scores,
    maps_NHW: NDArray[np.float32],
    masks: metrics.MaskOf,
    config: EvaluationConfig,
    seed: int,
) -> dict[str, Estimate]:
    histograms = metrics.pixel_histograms(maps_NHW, scores.labels, masks)
    if histograms is None:
        return {}
    some = scores.take(histograms.images)
    estimates = {
        "pixel_auroc": _estimate(histograms.auroc(), some, config, seed),
        "pixel_aupro": _estimate(histograms.aupro(config.aupro_limit), some, config, seed),
    }
    overlap = localisation.image_overlap(maps_NHW, scores.labels, masks)
    if overlap is not None:
        estimates["pixel_aupimo"] = _estimate(overlap.aupimo(), scores.take(overlap.images), config, seed)
    return estimates


def _masks(
    scores: Scores,
    maps_NHW: NDArray[np.float32],
    masks: metrics.MaskOf,
    threshold: float,
    config: EvaluationConfig,
    seed: int,
) -> dict[str, Estimate]:
    """What the predicted masks are worth, and how many good images have one."""
    if math.isnan(threshold):
        return {}
    estimates = {}
    counts = localisation.mask_counts(maps_NHW, scores.labels, masks, threshold)
    if counts is not None:
        estimates["pixel_f1"] = _estimate(counts.f1(), scores.take(counts.images), config, seed)
    alarmed = maps_NHW.max(axis=(1, 2)) > threshold
    rate = metrics.false_reject_rate(alarmed, scores.labels)
    return estimates | {"pixel_false_reject_rate": _share(rate, ~scores.labels, scores, config)}


def _share(
    metric: Statistic, counted_N: NDArray[np.bool_], scores: Scores, config: EvaluationConfig
) -> Estimate:
    """A share of some of the images with its exact interval; of parts, where several images show one.

    Given how many images are rejected, the number of defective ones among them varies less than a binomial
    one, as both classes have their fixed sizes: the interval of a precision is on the safe side.
    """
    counted = scores.take(np.flatnonzero(counted_N))
    if not len(counted):
        return UNDEFINED
    return proportion(metrics.point(metric, len(scores)) * counted.parts, counted.parts, config.confidence)


def _auroc(metric: Statistic, scores: Scores, config: EvaluationConfig, seed: int) -> Estimate:
    """An AUROC of images; its bootstrap interval is too narrow where hardly any two images change places.

    Where images count for more or less than one, their numbers are taken for Newcombe's interval as they are.
    """
    estimate = _estimate(metric, scores, config, seed)
    good, defective = (scores.take(np.flatnonzero(rows)).parts for rows in (~scores.labels, scores.labels))
    return estimate.widened(auroc_interval(estimate.value, good, defective, config.confidence))


def _estimate(metric: Statistic | None, scores: Scores, config: EvaluationConfig, seed: int) -> Estimate:
    if metric is None:
        return UNDEFINED
    return bootstrap(
        metric,
        len(scores),
        groups=scores.groups,
        strata=scores.strata,
        resamples=config.bootstrap,
        confidence=config.confidence,
        seed=seed,
    )
