"""The pictures of a run: one function a picture, ``(data, path) -> path``.

`caption` says what the numbers are of: data set, split, method, seed, and "test-peeked" where that is so.

Shapes: N images, R resamples, K distinct scores, G points of a curve's grid, D feature channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nfbmr.data.samples import GOOD
from nfbmr.evaluation.evaluation import Scores
from nfbmr.evaluation.intervals import Estimate, Floats, resampled_weights
from nfbmr.evaluation.metrics import Ties, ratio
from nfbmr.evaluation.style import (
    ACCENT,
    FAINT,
    INK,
    colours,
    dress,
    legend,
    lettering,
    new_figure,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINT = "#d55e00"
_BAND_RESAMPLES = 500
Curve = Callable[[Ties, Floats], Floats]
"""Ties and weights (R, N) to the curve's heights over the grid (R, G)."""


def roc(
    scores: Scores,
    path: Path,
    *,
    auroc: Estimate,
    threshold: float = math.nan,
    confidence: float = 0.95,
    seed: int = 0,
    caption: str = "",
) -> Path:
    """The ROC curve with its pointwise bootstrap band, and where the threshold stands on it.

    Args:
        scores: Good and defective images.
        path: The picture to write.
        auroc: For the legend; from :func:`~nfbmr.evaluation.evaluation.evaluate`.
        threshold: The operating point; NaN for none.
        confidence: Confidence of the band.
        seed: Seed of the resamples.
        caption: What the numbers are of.
    """
    figure = new_figure(5.2, 5.2, caption)
    axes = dress(
        figure.add_subplot(),
        title="ROC",
        xlabel="false-reject rate (good parts rejected)",
        ylabel="recall (defective parts rejected)",
    )
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), label="chance")
    ties = _band(axes, scores, _roc_heights, confidence, seed)
    if ties:
        good_RK, defective_RK = _cumulative(ties, np.ones((1, len(scores))))
        x_K, y_K = good_RK[0] / good_RK[0, -1], defective_RK[0] / defective_RK[0, -1]
        axes.plot(np.r_[0.0, x_K], np.r_[0.0, y_K], color=ACCENT, linewidth=1.8, label=f"AUROC {auroc}")
    if ties and not math.isnan(threshold):
        rejected, defective = scores.score > threshold, scores.labels
        x, y = float(rejected[~defective].mean()), float(rejected[defective].mean())
        _operating_point(axes, x, y, f"threshold: {x:.1%} rejected, {y:.1%} caught")
    axes.set(xlim=(-0.01, 1.0), ylim=(0.0, 1.01), aspect="equal")
    legend(axes, loc="lower right")
    return save(figure, path)


def precision_recall(
    scores: Scores,
    path: Path,
    *,
    ap: Estimate,
    threshold: float = math.nan,
    confidence: float = 0.95,
    seed: int = 0,
    caption: str = "",
) -> Path:
    """Precision against recall with its pointwise bootstrap band; arguments as for :func:`roc`."""
    figure = new_figure(5.2, 5.2, caption)
    axes = dress(
        figure.add_subplot(),
        title="Precision and recall",
        xlabel="recall (share of the defective parts rejected)",
        ylabel="precision (share of the rejected parts defective)",
    )
    defective = scores.labels
    if defective.any():
        axes.axhline(
            float(defective.mean()), color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), label="chance"
        )
    ties = _band(axes, scores, _precision_heights, confidence, seed)
    rejected = scores.score > threshold
    if ties:
        height_G = _precision_heights(ties, np.ones((1, len(scores))))[0]
        axes.plot(_grid(), height_G, color=ACCENT, linewidth=1.8, label=f"average precision {ap}")
    if ties and rejected.any():
        x, y = float(rejected[defective].mean()), float(defective[rejected].mean())
        _operating_point(axes, x, y, f"threshold: precision {y:.1%}, recall {x:.1%}")
    axes.set(xlim=(0.0, 1.01), ylim=(0.0, 1.01), aspect="equal")
    legend(axes, loc="lower left")
    return save(figure, path)


def histogram(scores: Scores, path: Path, *, threshold: float = math.nan, caption: str = "") -> Path:
    """Scores by kind of defect, a row a kind under good against all defects, with the threshold through all.

    Where some scores lie far beyond most, the axis is linear about nought and logarithmic beyond.
    """
    kinds, colour = scores.kinds, colours(scores.kinds)
    rows = 1 + (len(kinds) if len(kinds) > 1 else 0)
    figure = new_figure(7.0, 2.9 + 0.62 * (rows - 1), caption)
    axes_R = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=[3.2] + [1.0] * (rows - 1))[
        :, 0
    ]
    width = _linear_width(scores.score, threshold)
    edges = _edges(scores.score, width, threshold)
    is_good = ~scores.labels

    top = dress(axes_R[0], title="Scores", ylabel="share of images", grid="x")
    overall = [(GOOD, is_good, colour[GOOD]), ("defective", ~is_good, INK if rows > 1 else _POINT)]
    for name, rows_N, shade in overall:
        if rows_N.any():
            label = name if rows > 1 or name == GOOD else kinds[0]
            _bars(top, scores.score[rows_N], edges, shade, lettering(f"{label} ({rows_N.sum()})"))
    if not math.isnan(threshold):
        top.plot([], [], color=INK, linewidth=1.0, linestyle=(0, (4, 2)), label=f"threshold {threshold:.4g}")
    legend(top, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.0)
    for axes, kind in zip(axes_R[1:], kinds, strict=False):
        dress(axes, grid="x")
        own_N = np.asarray([defect == kind for defect in scores.defects])
        _bars(axes, scores.score[own_N], edges, colour[kind])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylabel(lettering(kind, 24), rotation=0, ha="right", va="center", fontsize=9, color=INK)
        caught = "" if math.isnan(threshold) else f", {(scores.score[own_N] > threshold).mean():.0%} caught"
        axes.text(
            1.0, 0.98, f"{own_N.sum()}{caught}", transform=axes.transAxes, ha="right", va="top",
            fontsize=8, color=FAINT,
        )  # fmt: skip
    for axes in axes_R:
        if axes is not axes_R[-1]:
            axes.tick_params(which="both", bottom=False, labelbottom=False)
        if not math.isnan(threshold):
            axes.axvline(threshold, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    if width is not None:
        axes_R[-1].set_xscale("asinh", linear_width=width)
        powers = [10.0**k for k in range(math.ceil(math.log10(width)), 300) if 10.0**k < abs(edges).max()]
        axes_R[-1].set_xticks([*(-power for power in powers), 0.0, *powers], minor=False)
        axes_R[-1].set_xticks([], minor=True)
        axes_R[-1].set_xlim(edges[0], edges[-1])
    axes_R[-1].set_xlabel("image score (higher is more anomalous)", fontsize=9, color=INK)
    return save(figure, path)


@dataclass(frozen=True)
class StageCurve:
    """A stage's losses by epoch.

    Attributes:
        name: The stage: "flow", "mapping".
        epochs: Epoch numbers.
        loss: Training loss at each.
        selected: The epoch that was kept, if one was.
        validation: What validation said, by epoch; drawn on an axis of its own.
        validation_name: What that is, e.g. "validation AUROC".
    """

    name: str
    epochs: Sequence[int]
    loss: Sequence[float]
    selected: int | None = None
    validation: Mapping[int, float] | None = None
    validation_name: str = "validation AUROC"


def losses(stages: Sequence[StageCurve], path: Path, *, caption: str = "") -> Path:
    """The loss of each stage, what validation said of it below, and the epoch that was kept."""
    validated = any(stage.validation for stage in stages)
    columns = max(1, len(stages))
    figure = new_figure(4.6 * columns, 4.8 if validated else 3.4, caption)
    heights = [2.0, 1.0] if validated else [1.0]
    axes_RC = figure.subplots(
        len(heights), columns, squeeze=False, sharex="col" if validated else False, height_ratios=heights
    )
    for axes_R, stage in zip(axes_RC.T, stages, strict=False):
        alone = "o" if len(stage.epochs) == 1 else ""
        dress(axes_R[0], title=f"Stage: {stage.name}", ylabel="training loss")
        axes_R[0].plot(stage.epochs, stage.loss, color=ACCENT, linewidth=1.6, marker=alone)
        if stage.validation:
            dress(axes_R[1], ylabel=stage.validation_name)
            x, y = list(stage.validation), list(stage.validation.values())
            axes_R[1].plot(x, y, color=_POINT, linewidth=1.4, marker="o", markersize=3)
        elif validated:
            axes_R[1].set_axis_off()
        last = axes_R[1] if stage.validation else axes_R[0]
        last.set_xlabel("epoch", fontsize=9, color=INK)
        last.tick_params(labelbottom=True)
        last.xaxis.get_major_locator().set_params(integer=True)
        if stage.selected is not None:
            for axes in axes_R if stage.validation else axes_R[:1]:
                axes.axvline(stage.selected, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
            label = f"kept: epoch {stage.selected}"
            axes_R[0].set_title(label, loc="right", fontsize=8, color=FAINT)
    return save(figure, path)


def defect_bars(estimates: Mapping[str, Estimate], path: Path, *, caption: str = "") -> Path:
    """Image AUROC of each kind of defect against all good images, with intervals; bars start at chance.

    Args:
        estimates: As :func:`~nfbmr.evaluation.evaluation.evaluate` returns them; ``image_auroc`` and
            ``image_auroc/<defect>`` are drawn.
        path: The picture to write.
        caption: What the numbers are of.
    """
    prefix = "image_auroc/"
    by_kind = {name.removeprefix(prefix): e for name, e in estimates.items() if name.startswith(prefix)}
    colour = colours(by_kind)
    rows = sorted(((e.value, kind) for kind, e in by_kind.items() if e.defined), reverse=True)
    bars = [(kind, by_kind[kind], colour[kind]) for _, kind in rows]
    overall = estimates.get("image_auroc")
    if overall is not None and overall.defined:
        bars.insert(0, ("all defects", overall, INK))
    figure = new_figure(6.4, 1.5 + 0.38 * max(1, len(bars)), caption)
    axes = dress(figure.add_subplot(), title="AUROC by kind of defect", xlabel="image AUROC", grid="x")
    for y, (_, estimate, shade) in enumerate(bars):
        axes.barh(y, estimate.value - 0.5, left=0.5, height=0.58, color=shade, alpha=0.8)
        if estimate.has_interval:
            axes.plot([estimate.low, estimate.high], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt")
        end = max(estimate.value, estimate.high if estimate.has_interval else 0.0)
        axes.annotate(
            str(estimate),
            (end, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    lowest = min([0.5, *(e.low if e.has_interval else e.value for _, e, _ in bars)])
    axes.set_yticks(range(len(bars)), [lettering(kind, 28) for kind, _, _ in bars])
    axes.invert_yaxis()
    # Beyond 1 there is nothing but the lettering of the numbers.
    axes.set_xlim(max(0.0, lowest - 0.02 if lowest < 0.5 else 0.5), 1.0 + 0.36 * (1 - min(lowest, 0.5)))
    axes.set_xticks([t for t in np.arange(0, 1.01, 0.1) if t >= axes.get_xlim()[0] - 1e-9])
    axes.axvline(0.5, color=FAINT, linewidth=0.8)
    return save(figure, path)


def _band(axes: Axes, scores: Scores, curve: Curve, confidence: float, seed: int) -> Ties | None:
    """Draw a curve's pointwise band; None, and a word on the axes, where a class is missing."""
    defective = scores.labels
    if not defective.any() or defective.all():
        missing = "good" if defective.any() else "defective"
        axes.text(0.5, 0.5, f"no {missing} images", transform=axes.transAxes, ha="center", color=FAINT)
        return None
    ties = Ties(scores.score, defective)
    weights = resampled_weights(
        len(scores), groups=scores.groups, strata=defective.tolist(), resamples=_BAND_RESAMPLES, seed=seed
    )
    band_RG = np.concatenate([curve(ties, weights_RN) for weights_RN in weights])
    tail = (1 - confidence) / 2
    low_G, high_G = np.quantile(band_RG, [tail, 1 - tail], axis=0)
    axes.fill_between(
        _grid(), low_G, high_G, color=ACCENT, alpha=0.18, linewidth=0, label=f"{confidence:.0%} band"
    )
    return ties


def _operating_point(axes: Axes, x: float, y: float, label: str) -> None:
    axes.plot(x, y, "o", color=_POINT, markersize=7, markeredgecolor="white", zorder=5, clip_on=False)
    axes.plot([], [], "o", color=_POINT, label=label)


def _grid() -> Floats:
    return np.linspace(0.0, 1.0, 401)


def _roc_heights(ties: Ties, weights_RN: Floats) -> Floats:
    good_RK, defective_RK = _cumulative(ties, weights_RN)
    x_RK, y_RK = ratio(good_RK, good_RK[:, -1:]), ratio(defective_RK, defective_RK[:, -1:])
    rows = [np.interp(_grid(), np.r_[0.0, x], np.r_[0.0, y]) for x, y in zip(x_RK, y_RK, strict=True)]
    return np.stack(rows)


def _precision_heights(ties: Ties, weights_RN: Floats) -> Floats:
    """Precision at the first threshold that reaches each recall: a staircase, never interpolated."""
    good_RK, defective_RK = _cumulative(ties, weights_RN)
    recall_RK = ratio(defective_RK, defective_RK[:, -1:])
    precision_RK = np.nan_to_num(ratio(defective_RK, defective_RK + good_RK), nan=1.0)
    last = recall_RK.shape[1] - 1
    # The smallest positive recall stands for 0, where precision is not defined.
    wanted_G = np.maximum(_grid(), 1e-9) - 1e-12
    rows = zip(recall_RK, precision_RK, strict=True)
    return np.stack([p[np.minimum(np.searchsorted(r, wanted_G), last)] for r, p in rows])


def _cumulative(ties: Ties, weights_RN: Floats) -> tuple[Floats, Floats]:
    """Weight of the good and of the defective images at each score or above it, descending."""
    good_RK = np.cumsum(ties.good(weights_RN)[:, ::-1], axis=1)
    return good_RK, np.cumsum(ties.defective(weights_RN)[:, ::-1], axis=1)


def _linear_width(score_N: Floats, threshold: float) -> float | None:
    """How far from nought the axis of scores is linear; None where all of it is.

    A flow can score a defect ten thousand times as high as a good image.
    """
    values = score_N if math.isnan(threshold) else np.append(score_N, threshold)
    if len(values) < 2:
        return None
    low, middle, high = np.quantile(np.abs(values - np.median(values)), (0.25, 0.5, 1.0))
    typical = float(middle or low)
    if not 0 < 60 * typical < high:
        return None
    return max(2.0 * typical, 0.0 if math.isnan(threshold) else abs(threshold))


def _edges(score_N: Floats, width: float | None, threshold: float) -> Floats:
    """Edges of fifty bars, all as wide as each other on the axis."""
    if not len(score_N):
        return np.linspace(0.0, 1.0, 51)
    low, high = float(score_N.min()), float(score_N.max())
    if not math.isnan(threshold):
        low, high = min(low, threshold), max(high, threshold)
    if width is not None:
        return width * np.sinh(np.linspace(math.asinh(low / width), math.asinh(high / width), 51))
    margin = (high - low) * 0.01 or abs(high) * 0.01 or 1.0
    return np.linspace(low - margin, high + margin, 51)


def _bars(axes: Axes, score_N: Floats, edges: Floats, colour: str, label: str | None = None) -> None:
    """Shares of these images in each bin: an outline in ink, filled in any other colour."""
    count_B, _ = np.histogram(score_N, edges)
    look: dict[str, Any] = {"linewidth": 1.2} if colour == INK else {"fill": True, "alpha": 0.75}
    axes.stairs(count_B / max(1, len(score_N)), edges, color=colour, label=label, **look)
