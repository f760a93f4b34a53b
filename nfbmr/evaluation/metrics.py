"""What a detector is worth: metrics of images and of pixels.

Every metric is returned as a :data:`~nfbmr.evaluation.intervals.Statistic`, a function of the images'
weights, so that its bootstrap costs a few matrix products. ``point(metric)`` is its plain value.

Shapes: N images, R resamples, K distinct scores, B bins of the pixel scores, D images with a defect mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nfbmr.evaluation.intervals import Floats, Statistic
from nfbmr.scoring.maps import upsampled

_Bools = npt.NDArray[np.bool_]
MaskOf = Callable[[int], _Bools | None]
"""Image number to its ground-truth mask (h, w); None where there is none."""

_BINS = 4096
_LONGEST_SIDE = 512


def point(metric: Statistic, n: int) -> float:
    """A metric's plain value on `n` images.

    Example:
        >>> point(auroc([0.1, 0.2, 0.9], [False, False, True]), 3)
        1.0
    """
    return float(metric(np.ones((1, n)))[0])


def auroc(score_N: npt.ArrayLike, defective_N: npt.ArrayLike) -> Statistic:
    """Area under the ROC curve: P(score of a defective image > of a good one), ties counting half.

    Args:
        score_N: Image scores, higher meaning more anomalous.
        defective_N: True for defective images.

    Example:
        >>> point(auroc([0.1, 0.9, 0.9, 1.0], [False, False, True, True]), 4)
        0.875
    """
    ties = Ties(score_N, defective_N)

    def statistic(weights_RN: Floats) -> Floats:
        good_RK, defective_RK = ties.good(weights_RN), ties.defective(weights_RN)
        below_RK = np.cumsum(good_RK, axis=1) - good_RK / 2
        return ratio((defective_RK * below_RK).sum(axis=1), defective_RK.sum(axis=1) * good_RK.sum(axis=1))

    return statistic


def average_precision(score_N: npt.ArrayLike, defective_N: npt.ArrayLike) -> Statistic:
    """Average precision: the sum over recall steps of (R_k - R_{k-1}) P_k, without interpolation.

    Example:
        >>> point(average_precision([0.1, 0.4, 0.35, 0.8], [False, False, True, True]), 4)
        0.8333333333333333
    """
    ties = Ties(score_N, defective_N)

    def statistic(weights_RN: Floats) -> Floats:
        defective_RK = ties.defective(weights_RN)[:, ::-1]
        hits_RK = np.cumsum(defective_RK, axis=1)
        taken_RK = hits_RK + np.cumsum(ties.good(weights_RN)[:, ::-1], axis=1)
        precision_RK = np.divide(hits_RK, taken_RK, out=np.zeros_like(hits_RK), where=taken_RK > 0)
        return ratio((defective_RK * precision_RK).sum(axis=1), hits_RK[:, -1])

    return statistic


def precision(rejected_N: npt.ArrayLike, defective_N: npt.ArrayLike) -> Statistic:
    """Share of the rejected parts that are defective; undefined where none is rejected."""
    return _share(rejected_N, _bools(rejected_N) & _bools(defective_N))


def recall(rejected_N: npt.ArrayLike, defective_N: npt.ArrayLike) -> Statistic:
    """Share of the defective parts that are rejected."""
    return _share(defective_N, _bools(rejected_N) & _bools(defective_N))


def false_reject_rate(rejected_N: npt.ArrayLike, defective_N: npt.ArrayLike) -> Statistic:
    """Share of the good parts that are rejected.

    Example:
        >>> point(false_reject_rate([True, False, True], [False, False, True]), 3)
        0.5
    """
    return _share(~_bools(defective_N), _bools(rejected_N) & ~_bools(defective_N))


def f1(rejected_N: npt.ArrayLike, defective_N: npt.ArrayLike) -> Statistic:
    """2 TP / (2 TP + FP + FN); 0 where defects exist and none is caught."""
    rejected, defective = _bools(rejected_N).astype(float), _bools(defective_N).astype(float)
    hits_N, sizes_N = 2 * rejected * defective, rejected + defective
    any_defective = defective.astype(float)

    def statistic(weights_RN: Floats) -> Floats:
        value_R = ratio(weights_RN @ hits_N, weights_RN @ sizes_N)
        return np.where(weights_RN @ any_defective > 0, value_R, np.nan)

    return statistic


def image_metric(
    name: str, score_N: npt.ArrayLike, rejected_N: npt.ArrayLike, defective_N: npt.ArrayLike
) -> Statistic:
    """A metric of images by its flat name; there are those of :data:`IMAGE_METRICS`.

    Example:
        >>> point(image_metric("image_recall", [0.1, 0.9], [False, True], [False, True]), 2)
        1.0
    """
    makers: dict[str, Callable[[], Statistic]] = {
        "image_auroc": lambda: auroc(score_N, defective_N),
        "image_ap": lambda: average_precision(score_N, defective_N),
        "image_f1": lambda: f1(rejected_N, defective_N),
        "image_precision": lambda: precision(rejected_N, defective_N),
        "image_recall": lambda: recall(rejected_N, defective_N),
    }
    return makers[name]()


IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1", "image_precision", "image_recall")
"""Metrics of images of which more is better."""


@dataclass(frozen=True)
class PixelHistograms:
    """How pixel scores are distributed, image by image: all that pixel metrics and their bootstrap need.

    Bins run from the highest score to the lowest. Scores that are equal share a bin; within a bin the
    curves are straight, so the error of an area is at most half of sum_b dFPR_b dTPR_b, under 1 / (2 B)
    where the bins hold about equal shares of the normal pixels (AUPRO: divided by its limit).

    Attributes:
        images: Numbers of the images that were used, (N,): defective images without a mask cannot be.
        normal_NB: Pixels off the defects.
        rows: Which of the N have a defect mask, (D,).
        defective_DB: Pixels on the defects.
        covered_DB: Sum over an image's defect regions of the share of the region in each bin.
        regions_D: Defect regions (connected, diagonals included) in each image.
    """

    images: npt.NDArray[np.int64]
    normal_NB: Floats
    rows: npt.NDArray[np.int64]
    defective_DB: Floats
    covered_DB: Floats
    regions_D: Floats

    def auroc(self) -> Statistic:
        """Area under the ROC curve of all pixels together."""

        def statistic(weights_RN: Floats) -> Floats:
            defective_RB = weights_RN[:, self.rows] @ self.defective_DB
            return self._area(weights_RN, defective_RB, defective_RB.sum(axis=1), 1.0)

        return statistic

    def aupro(self, limit: float) -> Statistic:
        """Per-region overlap, integrated over false-positive rates up to `limit` and divided by it.

        ``PRO(t) = mean over regions of the share of the region that scores above t`` (Bergmann et al.
        2021); small defects count as much as large ones.
        """

        def statistic(weights_RN: Floats) -> Floats:
            weights_RD = weights_RN[:, self.rows]
            return self._area(weights_RN, weights_RD @ self.covered_DB, weights_RD @ self.regions_D, limit)

        return statistic

    def _area(self, weights_RN: Floats, rise_RB: Floats, total_R: Floats, limit: float) -> Floats:
        normal_RB = weights_RN @ self.normal_NB
        x_RB = ratio(normal_RB, normal_RB.sum(axis=1, keepdims=True))
        return _area_under(x_RB, ratio(rise_RB, total_R[:, None]), limit) / limit


def pixel_histograms(
    map_NHW: npt.NDArray[np.float32], defective_N: npt.ArrayLike, mask_of: MaskOf, *, bins: int = _BINS
) -> PixelHistograms | None:
    """Sort every pixel's score into bins.

    A map is upsampled bilinearly to its mask's size. Masks whose longest side exceeds `_LONGEST_SIDE`
    are first reduced to it, a cell being defective where any of its pixels is, so that no defect
    disappears. Good images without a mask are all normal, at the size of the commonest mask.

    Args:
        map_NHW: Anomaly maps, at any resolution.
        defective_N: True for defective images.
        mask_of: The mask of image i. Defective images whose mask is None or empty are left out.
        bins: B; edges are quantiles of the maps.

    Returns:
        The histograms, or None where no image has a defect mask.
    """
    quantise = _Quantiser(map_NHW, bins)
    images: list[int] = []
    normal: list[Floats] = []
    rows: list[int] = []
    covered: list[tuple[Floats, Floats, int]] = []
    for i, full in masked_images(defective_N, mask_of):
        mask = _reduced(full)
        bin_hw = quantise(map_NHW[i], mask.shape)
        if mask.any():
            rows.append(len(images))
            covered.append(_on_defects(bin_hw, mask, bins))
        images.append(i)
        normal.append(np.bincount(bin_hw[~mask], minlength=bins).astype(np.float64))
    if not rows:
        return None
    return PixelHistograms(
        images=np.asarray(images),
        normal_NB=np.stack(normal),
        rows=np.asarray(rows),
        defective_DB=np.stack([pixels for pixels, _, _ in covered]),
        covered_DB=np.stack([shares for _, shares, _ in covered]),
        regions_D=np.asarray([float(count) for _, _, count in covered]),
    )


def masked_images(defective_N: npt.ArrayLike, mask_of: MaskOf) -> Iterator[tuple[int, _Bools]]:
    """Images that pixel metrics can use, with their masks at the masks' own resolution.

    Defective images come first, those without a mask (or with an empty one) left out. Good images without
    one are all normal, at the size of the commonest mask; without any mask there are none.
    """
    defective = _bools(defective_N)
    sizes: dict[tuple[int, ...], int] = {}
    for i in np.argsort(~defective, kind="stable").tolist():
        mask = mask_of(i)
        if mask is None or not mask.size:
            if defective[i] or not sizes:
                continue
            mask = np.zeros(max(sizes, key=lambda size: sizes[size]), dtype=np.bool_)
        if defective[i] and not mask.any():
            continue
        sizes[mask.shape] = sizes.get(mask.shape, 0) + 1
        yield i, mask


def ratio(above: Floats, below: Floats) -> Floats:
    """Division, with NaN where the divisor is not positive."""
    above, below = np.broadcast_arrays(above, below)
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0))


class Ties:
    """Weights summed over images of equal score, in ascending order of the score."""

    def __init__(self, score_N: npt.ArrayLike, defective_N: npt.ArrayLike) -> None:
        score = np.asarray(score_N, dtype=np.float64)
        self.order = np.argsort(score, kind="stable")
        ordered = score[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
        self.is_defective = _bools(defective_N)[self.order].astype(np.float64)

    def defective(self, weights_RN: Floats) -> Floats:
        """Weight of the defective images at each distinct score, (R, K)."""
        return np.asarray(np.add.reduceat(weights_RN[:, self.order] * self.is_defective, self.starts, axis=1))

    def good(self, weights_RN: Floats) -> Floats:
        """Weight of the good images at each distinct score, (R, K)."""
        return np.asarray(
            np.add.reduceat(weights_RN[:, self.order] * (1 - self.is_defective), self.starts, axis=1)
        )


class _Quantiser:
    """Maps to bin numbers, 0 the highest.

    A search among 4096 edges costs 100 ns a pixel. Instead, the float32 bits of (score - lowest), which
    order as the numbers do, are cut to 13 bits of mantissa and looked up in a table: a few ns a pixel,
    and the edges move by 0.01 %.
    """

    _DROPPED = 10

    def __init__(self, map_NHW: npt.NDArray[np.float32], bins: int) -> None:
        self.lowest = np.float32(map_NHW.min())
        values = map_NHW.astype(np.float32).ravel() - self.lowest
        edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]).astype(np.float32)
        self.last = int(values.max().view(np.int32)) >> self._DROPPED
        cells = np.arange(self.last + 1, dtype=np.int32)
        rank = np.searchsorted(edges.view(np.int32) >> self._DROPPED, cells, side="left")
        self.table = (bins - 1 - rank).astype(np.int16)

    def __call__(self, map_HW: npt.NDArray[np.float32], size: tuple[int, ...]) -> npt.NDArray[np.int16]:
        up_hw = upsampled(map_HW, size)
        bits_hw = np.maximum(up_hw - self.lowest, np.float32(0)).view(np.int32)
        cell_hw = np.minimum(bits_hw >> self._DROPPED, self.last)
        return np.asarray(self.table[cell_hw])


def _reduced(mask_hw: _Bools) -> _Bools:
    longest = max(mask_hw.shape)
    if longest <= _LONGEST_SIDE:
        return mask_hw
    import torch
    from torch.nn import functional

    size = [max(1, round(side * _LONGEST_SIDE / longest)) for side in mask_hw.shape]
    if not mask_hw.any():
        return np.zeros(size, dtype=np.bool_)
    mask_1hw = torch.from_numpy(np.ascontiguousarray(mask_hw)).float()[None]
    return np.asarray(functional.adaptive_max_pool2d(mask_1hw, size)[0].numpy() > 0)


def _on_defects(bin_hw: npt.NDArray[np.int16], mask_hw: _Bools, bins: int) -> tuple[Floats, Floats, int]:
    """Pixels on the defects in each bin, the regions' shares in each bin, and the number of regions."""
    from scipy import ndimage

    region_hw, count = ndimage.label(mask_hw, structure=np.ones((3, 3), dtype=int))
    on, region = bin_hw[mask_hw], region_hw[mask_hw]
    share = 1.0 / np.bincount(region, minlength=count + 1)[region]
    pixels: Floats = np.bincount(on, minlength=bins).astype(np.float64)
    shares: Floats = np.bincount(on, weights=share, minlength=bins).astype(np.float64)
    return pixels, shares, int(count)


def _area_under(dx_RB: Floats, dy_RB: Floats, limit: float) -> Floats:
    """Area under the polygon with steps (dx, dy) from the origin, up to x = limit."""
    x_RB, y_RB = np.cumsum(dx_RB, axis=1), np.cumsum(dy_RB, axis=1)
    inside_RB = np.clip(limit - (x_RB - dx_RB), 0.0, dx_RB)
    part_RB = np.divide(inside_RB, dx_RB, out=np.zeros_like(dx_RB), where=dx_RB > 0)
    height_RB = y_RB - dy_RB + dy_RB * part_RB / 2
    return np.asarray((inside_RB * height_RB).sum(axis=1))


def _share(of_N: npt.ArrayLike, with_N: npt.ArrayLike) -> Statistic:
    of, with_ = _bools(of_N).astype(np.float64), _bools(with_N).astype(np.float64)
    return lambda weights_RN: ratio(weights_RN @ with_, weights_RN @ of)


def _bools(values: npt.ArrayLike) -> _Bools:
    return np.asarray(values, dtype=np.bool_)
