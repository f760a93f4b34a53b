"""Where a detector looks: anomaly maps over images, grids of the telling ones (Zhang et al. 2024, figure 8).

Shapes: N images, H W the anomaly map, h w the image.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.samples import GOOD
from nfbmr.evaluation.evaluation import Scores
from nfbmr.evaluation.style import FAINT, INK, colours, dress, lettering, new_figure, save
from nfbmr.scoring.maps import upsampled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWN_SIDE = 320  # pixels
_MOST_SIDES = 3.0  # so many times that of a long picture, whose other side keeps its pixels
_PANEL, _TALLEST = 1.75, 2.4  # inches, and panels
_LONG = 2.2  # width over height from which panels stand one below the other
_OPACITY = 0.85
_STRIP = 1_000_000  # pixels that are mixed at once
_TRUE, _PREDICTED = "#00e5ff", "#ff2fd6"


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
        predicted: The predicted mask (h, w), if there is a threshold for positions.
    """

    name: str
    defect: str
    score: float
    pixels: NDArray[np.uint8]
    map_HW: NDArray[np.float32]
    mask: NDArray[np.bool_] | None = None
    predicted: NDArray[np.bool_] | None = None


def select_examples(scores: Scores, threshold: float, count: int) -> dict[str, list[int]]:
    """Which images to look at: up to `count` numbers for each of best, worst and borderline.

    best:
        defects that score highest and good parts that score lowest, half and half;
    worst:
        defects that score lowest and good parts that score highest;
    borderline:
        those nearest to the threshold that are in neither (none without a threshold).

    Example:
        >>> scores = Scores(tuple("abcd"), ("good", "good", "crack", "crack"), np.array([0.1, 0.6, 0.5, 0.9]))
        >>> select_examples(scores, 0.55, 2)
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
    mixed_hw3 = np.empty_like(pixels)
    rows = max(1, _STRIP // max(pixels.shape[1], 1))
    # In strips: a large picture as numbers of 8 bytes would take more memory than all else.
    for top in range(0, len(pixels), rows):
        strip = slice(top, top + rows)
        level_hw = np.clip((up_hw[strip] - vmin) / max(vmax - vmin, 1e-12), 0.0, 1.0)
        opacity_hw1 = (_OPACITY * np.sqrt(level_hw))[..., None]
        colour_hw3 = _palette()[(level_hw * 255).round().astype(np.uint8)]
        mixed_hw3[strip] = (pixels[strip] * (1 - opacity_hw1) + colour_hw3 * opacity_hw1).round()
    return mixed_hw3


def heatmap_grid(
    shown: Sequence[Shown],
    path: Path,
    *,
    title: str,
    vmin: float,
    vmax: float,
    threshold: float = math.nan,
    pixel_threshold: float = math.nan,
    scale: str = "",
    kinds: Sequence[str] = (),
    caption: str = "",
) -> Path:
    """A grid of images: each as it is, under its map, and with the outlines of what it shows.

    The ground truth is outlined in cyan, the predicted mask in magenta.

    Args:
        shown: The images, in reading order.
        path: The picture to write.
        title: "Best", "Worst", ...
        vmin: Map value where the colours begin, as for :func:`overlay`; the same in the whole grid.
        vmax: Map value where they end.
        threshold: For the captions.
        pixel_threshold: Threshold of positions, marked on the scale.
        scale: What the two ends of the scale are: "anomaly map: 0.9 quantile of good parts to ...".
        kinds: All kinds of defect of the data set, so that each has the colour it has in other pictures.
        caption: What the images are of.
    """
    columns = min(2, max(1, len(shown)))
    lines = [shown[i : i + columns] for i in range(0, len(shown), columns)] or [()]
    sizes = [[item.pixels.shape[:2] for item in line] for line in lines]
    long = bool(shown) and all(w > _LONG * h for line in sizes for h, w in line)
    if long:  # three of them beside each other would be too small to see anything in
        heights = [3 * 3.15 * _PANEL * max(h / w for h, w in line) + 0.6 for line in sizes]
    else:
        tallest = [max([0.4, *(min(_TALLEST, h / max(w, 1)) for h, w in line)]) for line in sizes]
        heights = [_PANEL * tall + 0.5 for tall in tallest]
    figure = new_figure(3.15 * _PANEL * columns, sum(heights) + 1.2, caption)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[sum(heights) + 0.3, 0.6])
    grid, bar = halves[:, 0]
    grid.suptitle(lettering(title), x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    cells = np.ravel(grid.subfigures(len(lines), columns, squeeze=False, height_ratios=heights))
    colour = {**colours([*kinds, *(item.defect for item in shown)]), GOOD: FAINT}
    for cell, item in zip(cells, shown, strict=False):
        verdict = "" if math.isnan(threshold) else (", rejected" if item.score > threshold else ", passed")
        heading = lettering(f"{item.defect}: {item.score:.4g}{verdict}", 60)
        cell.suptitle(heading, x=0.02, ha="left", fontsize=9, fontweight="bold", color=colour[item.defect])
        cell.supxlabel(lettering(item.name, 70), x=0.02, ha="left", fontsize=6.5, color=FAINT)
        panels = cell.subplots(
            3 if long else 1, 1 if long else 3, gridspec_kw={"wspace": 0.02, "hspace": 0.05}
        )
        _draw_triple(panels, item, vmin, vmax)
    limit = "" if math.isnan(threshold) else f"; threshold of the score {threshold:.4g}"
    _draw_scale(bar.subplots(), vmin, vmax, pixel_threshold, f"{scale or 'anomaly map'}{limit}")
    return save(figure, path)


def _draw_triple(axes_3: Sequence[Axes], item: Shown, vmin: float, vmax: float) -> None:
    pixels = _small(item.pixels)
    for axes in axes_3:
        axes.set_axis_off()
        axes.set(xticks=[], yticks=[])  # they are not seen, and to make them takes as long as all else
    axes_3[0].imshow(pixels, interpolation="nearest")
    axes_3[1].imshow(overlay(pixels, item.map_HW, vmin, vmax), interpolation="nearest")
    outlines = [
        (_small(mask), colour, width)
        for mask, colour, width in ((item.mask, _TRUE, 1.5), (item.predicted, _PREDICTED, 1.1))
        if mask is not None and mask.any()
    ]
    if outlines:
        axes_3[2].imshow(pixels, interpolation="nearest")
        for mask, colour, width in outlines:
            _outline(axes_3[2], mask, colour, width)
    else:
        word = "good part" if item.defect == GOOD else "no mask"
        if item.predicted is not None:
            word = f"{word},\nno region"
        axes_3[2].annotate(
            word, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=8, color=FAINT
        )


def _outline(axes: Axes, mask: NDArray[np.uint8], colour: str, width: float) -> None:
    # Of a mask up to the border only the part inside would be outlined without a margin.
    h, w = mask.shape
    x, y = np.arange(-1, w + 1), np.arange(-1, h + 1)
    axes.contour(x, y, np.pad(mask, 1), levels=[0.5], colors=[colour], linewidths=width)
    axes.set(xlim=(-0.5, w - 0.5), ylim=(h - 0.5, -0.5))


def _draw_scale(axes: Axes, vmin: float, vmax: float, mark: float, label: str) -> None:
    dress(axes, xlabel=label, grid="none")
    levels_1K3 = _palette()[None].round().astype(np.uint8)
    axes.imshow(levels_1K3, aspect="auto", extent=(vmin, vmax, 0, 1), interpolation="bilinear")
    axes.set_yticks([])
    if vmin <= mark <= vmax:
        axes.axvline(mark, color=_PREDICTED, linewidth=2)


def _alternate(first: Sequence[int], second: Sequence[int], count: int) -> list[int]:
    """`count` numbers, half from each, the first's first; where one runs out, the rest from the other."""
    half = min(len(first), max(math.ceil(count / 2), count - len(second)))
    return [*first[:half], *second[: count - half]][:count]


def _small(pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels reduced to what a grid can show; a defect's mask keeps every defect."""
    from PIL import Image

    longest, shortest = max(pixels.shape[:2]), max(1, min(pixels.shape[:2]))
    side = _DRAWN_SIDE * min(_MOST_SIDES, longest / shortest)
    values = pixels.astype(np.uint8) * (255 if pixels.dtype == np.bool_ else 1)
    if longest > side:
        width, height = (max(1, round(pixel * side / longest)) for pixel in pixels.shape[1::-1])
        values = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BOX))
    return np.asarray(values > 0, dtype=np.uint8) if pixels.dtype == np.bool_ else values


@functools.cache
def _palette() -> NDArray[np.float64]:
    """256 colours of plasma, from violet to yellow; its dark beginning would be lost on dark images."""
    from matplotlib import colormaps

    return np.asarray(colormaps["plasma"](np.linspace(0.25, 1, 256))[:, :3] * 255)
