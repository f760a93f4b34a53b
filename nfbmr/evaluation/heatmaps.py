"""Where a detector looks: anomaly maps over images, and grids of the telling ones (Zhang et al. 2024, figure 8).

Shapes: N images, H W the anomaly map, h w the image.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.samples import GOOD
from nfbmr.evaluation.evaluation import Scores
from nfbmr.evaluation.metrics import upsampled
from nfbmr.evaluation.style import FAINT, INK, colours, dress, lettering, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURMAP = "inferno"
_DRAWN_SIDE = 320
_OPACITY = 0.8


@dataclass(frozen=True)
class Shown:
    """One image of a grid.

    Attributes:
        name: The image's identity.
        defect: Its kind; ``"good"`` for a normal part.
        score: Its score.
        pixels: The image, uint8 (h, w, 3).
        map_HW: Its anomaly map.
        mask: Ground truth (h, w), if there is one.
    """

    name: str
    defect: str
    score: float
    pixels: NDArray[np.uint8]
    map_HW: NDArray[np.float32]
    mask: NDArray[np.bool_] | None = None


def telling(scores: Scores, threshold: float, count: int) -> dict[str, list[int]]:
    """Which images to look at: up to `count` numbers for each of best, worst and borderline.

    best:
        defects that score highest and good parts that score lowest, half and half;
    worst:
        defects that score lowest and good parts that score highest;
    borderline:
        those nearest to the threshold that are in neither (none without a threshold).

    Example:
        >>> scores = Scores(tuple("abcd"), ("good", "good", "crack", "crack"), np.array([0.1, 0.6, 0.5, 0.9]))
        >>> telling(scores, 0.55, 2)
        {'best': [3, 0], 'worst': [2, 1], 'borderline': []}
    """
    order = np.argsort(scores.score, kind="stable")
    defective = [int(i) for i in order if scores.labels[i]]
    good = [int(i) for i in order if not scores.labels[i]]
    best = _alternate(defective[::-1], good, count)
    worst = _alternate(
        [i for i in defective if i not in best], [i for i in good[::-1] if i not in best], count
    )
    near = np.argsort(np.abs(scores.score - threshold), kind="stable").tolist()
    rest = [] if math.isnan(threshold) else [i for i in near if i not in {*best, *worst}]
    return {"best": best, "worst": worst, "borderline": rest[:count]}


def colour_scale(
    normal_NHW: NDArray[np.float32], test_NHW: NDArray[np.float32], quantile: float = 0.9
) -> tuple[float, float]:
    """One scale for a run's heat maps: from what is common on normal parts to the highest of the test set.

    Args:
        normal_NHW: Maps of good validation images.
        test_NHW: Maps of the images to be drawn from.
        quantile: Of the normal positions; what lies below is not coloured.

    Returns:
        The lowest and the highest value that are coloured. The highest is the 0.999 quantile of the test
        positions, so that a single one does not leave all others dark.
    """
    low = float(np.quantile(normal_NHW, quantile))
    high = float(np.quantile(test_NHW, 0.999))
    return low, high if high > low else low + max(abs(low) * 1e-3, 1e-6)


def overlay(
    pixels: NDArray[np.uint8], map_HW: NDArray[np.float32], vmin: float, vmax: float
) -> NDArray[np.uint8]:
    """An anomaly map laid over its image.

    The map is upsampled bilinearly to the image's size. Positions at `vmin` or below leave the image as it
    is; the higher the value, the brighter the colour and the less of the image shows through.

    Args:
        pixels: The image, uint8 (h, w, 3).
        map_HW: Its map, at any resolution.
        vmin: Value where colour begins.
        vmax: Value where colour is brightest.

    Returns:
        uint8 (h, w, 3).

    Example:
        >>> image = np.full((4, 4, 3), 100, dtype=np.uint8)
        >>> bool((overlay(image, np.zeros((2, 2), dtype=np.float32), 0.0, 1.0) == image).all())
        True
    """
    up_hw = upsampled(map_HW, pixels.shape[:2])
    level_hw = np.clip((up_hw - vmin) / max(vmax - vmin, 1e-12), 0.0, 1.0)
    opacity_hw1 = (_OPACITY * np.sqrt(level_hw))[..., None]
    colour_hw3 = _palette()[(level_hw * 255).round().astype(np.uint8)]
    mixed = pixels * (1 - opacity_hw1) + colour_hw3 * opacity_hw1
    return np.asarray(mixed.round().astype(np.uint8))


def heatmap_grid(
    shown: Sequence[Shown],
    path: Path,
    *,
    title: str,
    vmin: float,
    vmax: float,
    threshold: float = math.nan,
    scale: str = "",
    caption: str = "",
) -> Path:
    """A grid of images: each as it is, under its map, and with the outline of its ground truth.

    Args:
        shown: The images, in reading order.
        path: The picture to write.
        title: "Best", "Worst", ...
        vmin: As for :func:`overlay`; shared by the whole grid.
        vmax: Likewise.
        threshold: For the captions.
        scale: What the two ends of the scale are, e.g. "0.9 quantile of normal validation maps to ...".
        caption: What the images are of.
    """
    columns = min(2, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = new_figure(5.4 * columns, 0.9 + 2.15 * rows, caption)
    grid, bar = figure.subfigures(2, 1, height_ratios=[2.15 * rows, 0.55])
    grid.set_facecolor("white")
    cells = np.ravel(grid.subfigures(rows, columns, squeeze=False, wspace=0.03))
    colour = colours(item.defect for item in shown)
    for cell, item in zip(cells, shown, strict=False):
        verdict = "" if math.isnan(threshold) else (", rejected" if item.score > threshold else ", passed")
        cell.suptitle(
            lettering(f"{item.defect}: {item.score:.4g}{verdict}", 60),
            x=0.02, ha="left", fontsize=9, fontweight="bold",
            color=FAINT if item.defect == GOOD else colour[item.defect],
        )  # fmt: skip
        cell.supxlabel(lettering(item.name, 70), x=0.02, ha="left", fontsize=6.5, color=FAINT)
        _draw_triple(cell.subplots(1, 3, gridspec_kw={"wspace": 0.03}), item, vmin, vmax)
    _draw_scale(bar.subplots(), vmin, vmax, threshold, f"{title}: anomaly map, {scale}" if scale else title)
    return save(figure, path)


def _draw_triple(axes_3: NDArray[np.object_], item: Shown, vmin: float, vmax: float) -> None:
    pixels, mask = _small(item.pixels), None if item.mask is None else _small(item.mask)
    for axes in axes_3:
        axes.set_axis_off()
    axes_3[0].imshow(pixels, interpolation="nearest")
    axes_3[1].imshow(overlay(pixels, item.map_HW, vmin, vmax), interpolation="nearest")
    if mask is not None and mask.any():
        axes_3[2].imshow(pixels // 2 + 64, interpolation="nearest")
        axes_3[2].contour(mask.astype(float), levels=[0.5], colors=["#00e5ff"], linewidths=1.0)
    elif item.defect == GOOD:
        axes_3[2].text(0.5, 0.5, "no defect", transform=axes_3[2].transAxes, ha="center", va="center",
                       fontsize=8, color=FAINT)  # fmt: skip
    else:
        axes_3[2].text(0.5, 0.5, "no mask", transform=axes_3[2].transAxes, ha="center", va="center",
                       fontsize=8, color=FAINT)  # fmt: skip


def _draw_scale(axes: Axes, vmin: float, vmax: float, threshold: float, label: str) -> None:
    dress(axes, xlabel=label, grid="none")
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=COLOURMAP, aspect="auto", extent=(vmin, vmax, 0, 1))
    axes.set_yticks([])


def _alternate(first: Sequence[int], second: Sequence[int], count: int) -> list[int]:
    """`count` numbers, half from each; where one runs out, the rest from the other. Those of the first go first."""
    half = min(len(first), max(math.ceil(count / 2), count - len(second)))
    return [*first[:half], *second[: count - half]][:count]


def _small(pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels reduced to what a grid can show; a defect's mask keeps every defect."""
    from PIL import Image

    longest = max(pixels.shape[:2])
    values = pixels.astype(np.uint8) * (255 if pixels.dtype == np.bool_ else 1)
    if longest > _DRAWN_SIDE:
        size = tuple(max(1, round(side * _DRAWN_SIDE / longest)) for side in pixels.shape[1::-1])
        values = np.asarray(Image.fromarray(values).resize((size[0], size[1]), Image.Resampling.BOX))
    return np.asarray(values > 0, dtype=np.uint8) if pixels.dtype == np.bool_ else values


@functools.cache
def _palette() -> NDArray[np.float64]:
    from matplotlib import colormaps

    return np.asarray(colormaps[COLOURMAP](np.linspace(0, 1, 256))[:, :3] * 255)
