"""The one picture of a comparison: quality against latency, with intervals, names, and the Pareto front."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nfbmr.evaluation.labels import Label, Segment, write_labels
from nfbmr.evaluation.style import ACCENT, FAINT, GOOD_COLOUR, INK, dress, legend, lettering, new_figure, save
from tune.ablation.comparison_table import Compared, Contender, milliseconds
from tune.tables.rows import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = 24
_TICKS = (1, 2, 3, 5)


def draw_comparison(compared: Compared, path: Path) -> Path | None:
    """Draw it, a panel a split; None where no method has both numbers.

    Raises:
        OutputError: The disk is full or the folder cannot be written.
    """
    shown = {
        split: [
            contender
            for contender in compared.contenders
            if contender.cost is not None and compared.estimate(contender, split).defined
        ]
        for split in compared.tables
    }
    shown = {split: contenders for split, contenders in shown.items() if contenders}
    if not shown:
        return None
    caption = f"{compared.title}: {compared.about}. {compared.machine}"
    figure = new_figure(6.6 * len(shown) + 0.6, 5.2, caption)
    drawn = []
    for n, (split, contenders) in enumerate(shown.items()):
        axes = figure.add_subplot(1, len(shown), n + 1)
        drawn.append((axes, *_panel(axes, compared, split, contenders)))
    for axes, labels, steps in drawn:
        write_labels(axes, labels, lines=steps)
    return save(figure, path)


def _panel(
    axes: Axes, compared: Compared, split: str, contenders: Sequence[Contender]
) -> tuple[list[Label], list[Segment]]:
    """Points and intervals of a split; the names that they are still to get, and the front's steps."""
    dress(
        axes,
        title=f"Split {split}",
        xlabel="milliseconds an image, from file to score (log scale)",
        ylabel=f"{METRICS['image_auroc']}, %",
    )
    axes.set_xscale("log")
    labels = []
    for contender in sorted(contenders, key=lambda contender: split in contender.front):
        assert contender.cost is not None  # only such are shown
        on_front, timing, estimate = (
            split in contender.front,
            contender.cost.one,
            compared.estimate(contender, split),
        )
        colour = ACCENT if on_front else GOOD_COLOUR
        ends = (estimate.low, estimate.high) if estimate.has_interval else (estimate.value,) * 2
        y, low, high = (100 * value for value in (estimate.value, *ends))
        axes.plot([timing.value] * 2, [low, high], color=colour, linewidth=1.6, alpha=0.55, zorder=2)
        axes.plot([timing.low, timing.high], [y, y], color=colour, linewidth=1.6, alpha=0.55, zorder=2)
        axes.plot(
            timing.value,
            y,
            "o",
            color=colour,
            markersize=8,
            markeredgecolor="white",
            markeredgewidth=1,
            zorder=5,
        )
        name = lettering(contender.name, _NAME)
        across, upright = (timing.low, timing.high), (low, high)
        labels.append(Label(timing.value, y, name, across, upright, INK if on_front else FAINT, on_front))
    steps = _front(axes, compared, split, contenders)
    _limits(axes, labels, contenders)
    level = compared.tables[split].confidence
    axes.plot([], [], color=GOOD_COLOUR, linewidth=1.6, label=f"{level:.0%} interval; range of 80 % of calls")
    axes.plot(
        [], [], "o-", color=ACCENT, markersize=6, linewidth=1.2, label="front: none is faster and better"
    )
    legend(axes, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1, ncols=1)
    return labels, steps


def _front(axes: Axes, compared: Compared, split: str, contenders: Sequence[Contender]) -> list[Segment]:
    """The front as steps: what quality is to be had in a time."""
    points = sorted(
        (contender.cost.one.value, 100 * compared.estimate(contender, split).value)
        for contender in contenders
        if contender.cost is not None and split in contender.front
    )
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=ACCENT, linewidth=1.2, drawstyle="steps-post", alpha=0.8, zorder=3)
    steps: list[Segment] = []
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        steps += [((x0, y0), (x1, y0)), ((x1, y0), (x1, y1))]
    return steps


def _limits(axes: Axes, labels: Sequence[Label], contenders: Sequence[Contender]) -> None:
    """Room for names, and round numbers on the logarithmic axis."""
    low = min(contender.cost.one.low for contender in contenders if contender.cost is not None)
    high = max(contender.cost.one.high for contender in contenders if contender.cost is not None)
    low, high = low / 1.6, high * 1.9
    axes.set_xlim(low, high)
    bottom, top = min(label.range_y[0] for label in labels), max(label.range_y[1] for label in labels)
    room = max(0.5, 0.06 * (top - bottom))
    axes.set_ylim(bottom - room, min(100 + room, top + room))
    ticks = [
        step * 10.0**power
        for power in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))))
        for step in _TICKS
    ]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [milliseconds(tick) if tick < 1 else f"{tick:g}" for tick in shown])
    axes.set_xticks([], minor=True)
