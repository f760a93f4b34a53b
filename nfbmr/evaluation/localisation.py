"""How well defects are located, at a very low false-positive rate and at the product's own threshold.

Masks are used at their own resolution. Whatever the number and size of the images, memory holds one image
at a time and a bounded number of the highest values of good ones.

Shapes: N images, G good and D defective among them, R resamples, K thresholds, H W a map, h w a mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nfbmr.evaluation.intervals import Floats, Statistic
from nfbmr.evaluation.metrics import MaskOf, masked_images, ratio
from nfbmr.scoring.maps import upsampled
from nfbmr.scoring.regions import predicted_mask

_Integers = npt.NDArray[np.int64]

LOWEST, HIGHEST = 1e-5, 1e-4
"""Shared false-positive rates that AUPIMO integrates between."""

_THRESHOLDS = 3000
_MOST_VALUES = 20_000_000


@dataclass(frozen=True)
class MaskCounts:
    """Predicted against true masks, in pixels; every image counts by its pixels.

    Attributes:
        images: Numbers of the images that were used, (N,).
        hits_N: Pixels in both masks.
        predicted_N: Pixels of the predicted mask.
        true_N: Pixels of the true mask.
    """

    images: _Integers
    hits_N: Floats
    predicted_N: Floats
    true_N: Floats

    def f1(self) -> Statistic:
        """Pixel F1 of the predicted mask, good images included.

        ``F1 = 2 |P & M| / (|P| + |M|)``, summed over the pixels of all images; undefined without a defect.
        """

        def statistic(weights_RN: Floats) -> Floats:
            true_R = weights_RN @ self.true_N
            value_R = ratio(2 * (weights_RN @ self.hits_N), weights_RN @ self.predicted_N + true_R)
            return np.where(true_R > 0, value_R, np.nan)

        return statistic


def mask_counts(
    map_NHW: npt.NDArray[np.float32], defective_N: npt.ArrayLike, mask_of: MaskOf, threshold: float
) -> MaskCounts | None:
    """Compare predicted masks (:func:`~nfbmr.scoring.regions.predicted_mask`) with the true ones.

    Args:
        map_NHW: Anomaly maps, at any resolution.
        defective_N: True for defective images.
        mask_of: The mask of image i; see :func:`~nfbmr.evaluation.metrics.masked_images`.
        threshold: Threshold of positions.

    Returns:
        The counts, or None where no image has a defect mask.
    """
    images, counts = [], []
    for i, mask in masked_images(defective_N, mask_of):
        predicted = predicted_mask(map_NHW[i], (mask.shape[0], mask.shape[1]), threshold)
        images.append(i)
        counts.append([np.count_nonzero(m) for m in (predicted & mask, predicted, mask)])
    counts_N3 = np.asarray(counts, dtype=np.float64).reshape(-1, 3)
    if not counts_N3[:, 2].any():
        return None
    return MaskCounts(np.asarray(images), *counts_N3.T)


@dataclass(frozen=True)
class ImageOverlap:
    r"""Per-image recall against the false-positive rate that good images share (Bertoldo et al. 2024).

    With :math:`F(t)` the mean over good images of the share of the image that scores above t, and
    :math:`R_d(t)` the share of defective image d's mask that does,

    .. math:: \mathrm{AUPIMO}_d = \frac{1}{\log(U / L)} \int_L^U R_d(F^{-1}(z)) \, d \log z

    for L = 1e-5 and U = 1e-4 ("AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
    Tolerance", BMVC 2024, arXiv 2401.01984), and ``F^-1(z)`` the lowest threshold with a rate of z at most:
    F is a staircase, and the integral over its steps is exact where the authors' code takes trapezoids. A
    rate of 1e-5 is one pixel of each image of 316 x 316. With fewer good pixels than 1 / L in all, the lower
    end of the integral stands still at the highest good pixel.

    Attributes:
        images: Numbers of the images that were used, (N,).
        good: Which of the N are good, (G,).
        above_GK: Share of each good image at threshold k or above it, thresholds falling.
        defective: Which of the N have a defect mask, (D,).
        recall_DK: Share of each mask above threshold k.
    """

    images: _Integers
    good: _Integers
    above_GK: Floats
    defective: _Integers
    recall_DK: Floats

    def aupimo(self, lowest: float = LOWEST, highest: float = HIGHEST) -> Statistic:
        """The mean AUPIMO of defective images.

        Resampled good images have another F, so that the interval is of both kinds of image.
        """

        def statistic(weights_RN: Floats) -> Floats:
            good_RG, defective_RD = weights_RN[:, self.good], weights_RN[:, self.defective]
            rate_RK = ratio(good_RG @ self.above_GK, good_RG.sum(axis=1, keepdims=True))
            # From k - 1 to k the lowest threshold of at most that rate is k; beyond the last it stays there.
            ends_RK = np.log(np.clip(rate_RK, lowest, highest))
            ends_RK[:, -1] = np.where(np.isnan(ends_RK[:, -1]), np.nan, math.log(highest))
            steps_RK = np.diff(ends_RK, axis=1, prepend=math.log(lowest))
            each_RD = steps_RK @ self.recall_DK.T / math.log(highest / lowest)
            return ratio((each_RD * defective_RD).sum(axis=1), defective_RD.sum(axis=1))

        return statistic


def image_overlap(
    map_NHW: npt.NDArray[np.float32], defective_N: npt.ArrayLike, mask_of: MaskOf
) -> ImageOverlap | None:
    """All that AUPIMO and its bootstrap need.

    Thresholds are values of good pixels, every one of the highest and then ever fewer: neighbouring ranks
    differ by less than 0.7 %, as the rate does, of which the integral takes the logarithm.

    Args:
        map_NHW: Anomaly maps, at any resolution.
        defective_N: True for defective images.
        mask_of: The mask of image i; see :func:`~nfbmr.evaluation.metrics.masked_images`.

    Returns:
        The overlaps, or None where there is no defect mask or no good image.
    """
    defective = np.asarray(defective_N, dtype=np.bool_)
    images: list[int] = []
    sides: list[bool] = []
    tops: list[npt.NDArray[np.float32]] = []
    pixels: list[int] = []
    for i, mask in masked_images(defective, mask_of):
        is_defective = bool(mask.any())
        if defective[i] != is_defective:
            continue
        images.append(i)
        sides.append(is_defective)
        if not is_defective:
            tops.append(_highest(upsampled(map_NHW[i], mask.shape), int((~defective).sum())))
            pixels.append(mask.size)
    if not tops or not any(sides):
        return None
    # Falling values of good pixels, at ranks that are evenly spaced in their logarithm.
    falling = np.sort(np.concatenate(tops))[::-1]
    rank_K = np.unique(np.geomspace(1, len(falling), _THRESHOLDS).astype(np.int64)) - 1
    threshold_K = np.unique(falling[rank_K])[::-1]
    recall_DK = []
    for i, is_defective in zip(images, sides, strict=True):
        true = mask_of(i) if is_defective else None
        if true is not None:
            value_n = np.sort(upsampled(map_NHW[i], true.shape)[true])
            below_K = np.searchsorted(value_n, threshold_K, side="right")
            recall_DK.append(1.0 - below_K / len(value_n))
    above_GK = [
        (len(top) - np.searchsorted(top, threshold_K, side="left")) / size
        for top, size in zip(tops, pixels, strict=True)
    ]
    return ImageOverlap(
        images=np.asarray(images),
        good=np.flatnonzero(~np.asarray(sides)),
        above_GK=np.stack(above_GK),
        defective=np.flatnonzero(sides),
        recall_DK=np.stack(recall_DK),
    )


def _highest(up_hw: npt.NDArray[np.float32], good: int) -> npt.NDArray[np.float32]:
    """A good image's highest values, ascending: as many as a shared rate of U can reach in any resample.

    In a resample with this image in it, it holds 1/G of the shared rate at least, so never more than U G of
    its own pixels lie above a threshold that counts; twice as many are kept, for groups of unequal size.
    """
    values = up_hw.ravel()
    share = min(1.0, 2 * HIGHEST * good, _MOST_VALUES / (good * len(values)))
    count = min(len(values), math.ceil(share * len(values)) + 1)
    return np.sort(np.partition(values, len(values) - count)[len(values) - count :])
