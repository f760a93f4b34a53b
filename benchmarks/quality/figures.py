"""Pictures of a study: validation against test, a point a setting, and test against the number of images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from benchmarks.quality.rows import Row
from nfbmr.evaluation.style import (
    DEFECT_COLOURS,
    FAINT,
    INK,
    MARKERS,
    dress,
    legend,
    lettering,
    new_figure,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.quality.report import Choice

X, Y = "objective", "test_image_auroc"
_MARKED = (("o", 13.0, "best of the grid"), ("s", 9.5, "pick"))
"""Marker, size and name of what is marked: the best, then the pick."""
PEEKED = "The best is known from test scores alone (test-peeked); the pick is not."


def draw(
    by_set: Mapping[str, Sequence[Row]],
    choices: Mapping[str, Choice | None],
    few: Mapping[str, Mapping[str, Mapping[float, float]]],
    folder: Path,
) -> list[Path]:
    """All pictures: of all sets together first, then of each, then of few images.

    Args:
        by_set: Finished rows of each set.
        choices: What today's objective chooses on each.
        few: Test AUROC by set, setting and number of training images.
        folder: Where they go.
    """
    look = _looks(by_set)
    drawn = {name: _over_seeds(rows) for name, rows in by_set.items() if choices[name] is not None}
    pictures = []
    if len(drawn) > 1:
        pictures.append(_all_sets(drawn, choices, look, folder / "all.png"))
    for name, rows in drawn.items():
        figure = new_figure(7.2, 5.2, f"{name}: every setting of the grid. {PEEKED}")
        axes = figure.add_subplot()
        _scatter(axes, name, rows, choices[name], look)
        legend(axes, handles=_handles(rows, look), loc="upper left", bbox_to_anchor=(1.0, 1.0))
        pictures.append(save(figure, folder / f"{name}.png"))
    if few:
        pictures.append(_few_images(few, folder / "few.png"))
    return pictures


def _looks(by_set: Mapping[str, Sequence[Row]]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each method, the same in every picture."""
    methods = sorted({str(row["method"]) for rows in by_set.values() for row in rows})
    looks = zip(itertools.cycle(DEFECT_COLOURS), itertools.cycle(MARKERS), strict=False)
    return dict(zip(methods, looks, strict=False))


def _all_sets(
    by_set: Mapping[str, Sequence[Row]],
    choices: Mapping[str, Choice | None],
    look: Mapping[str, tuple[str, str]],
    path: Path,
) -> Path:
    columns = min(3, len(by_set))
    lines = math.ceil(len(by_set) / columns)
    figure = new_figure(4.2 * columns, 3.6 * lines + 0.9, f"Validation against test on every set. {PEEKED}")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, rows) in zip(grid, by_set.items(), strict=False):
        _scatter(axes, name, rows, choices[name], look)
    for axes in grid[len(by_set) :]:
        axes.set_axis_off()
    handles = _handles([row for rows in by_set.values() for row in rows], look)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(7, len(handles)),
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )
    return save(figure, path)


def _scatter(
    axes: Axes, name: str, rows: Sequence[Row], choice: Choice | None, look: Mapping[str, tuple[str, str]]
) -> None:
    dress(axes, title=name, xlabel="validation objective", ylabel="test image AUROC")
    for method, (colour, marker) in look.items():
        own = [row for row in rows if row["method"] == method and row.get(X) is not None]
        axes.scatter(
            [row[X] for row in own],
            [row[Y] for row in own],
            c=colour,
            marker=marker,
            s=30,
            alpha=0.8,
            linewidths=0.5,
            edgecolors="white",
        )
    if choice is None:
        return
    for names, (marker, size, _) in zip((choice.bests, choice.picks), _MARKED, strict=True):
        marked = [row for row in rows if row["setting"] in names and row.get(X) is not None]
        axes.scatter(
            [row[X] for row in marked],
            [row[Y] for row in marked],
            s=size**2,
            marker=marker,
            facecolors="none",
            edgecolors=INK,
            linewidths=1.2,
        )
    rho = "undefined" if choice.correlation is None else f"{choice.correlation:.2f}"
    axes.text(
        0.02,
        0.98,
        f"Spearman {rho}, regret {choice.regret:.1f} points",
        transform=axes.transAxes,
        va="top",
        fontsize=8,
        color=FAINT,
    )
    axes.margins(0.06, 0.12)


def _handles(rows: Sequence[Row], look: Mapping[str, tuple[str, str]]) -> list[Any]:
    from matplotlib.lines import Line2D

    methods = {str(row["method"]) for row in rows}
    handles: list[Any] = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=6, label=lettering(method))
        for method, (colour, marker) in look.items()
        if method in methods
    ]
    marks: dict[str, Any] = {
        "linestyle": "none",
        "markerfacecolor": "none",
        "markeredgecolor": INK,
        "markeredgewidth": 1.2,
    }
    for marker, size, label in _MARKED:
        handles.append(Line2D([], [], marker=marker, markersize=size * 0.8, label=label, **marks))
    return handles


def _over_seeds(rows: Sequence[Row]) -> list[Row]:
    """A point a setting: the means of its seeds."""
    by_setting: dict[str, list[Row]] = {}
    for row in rows:
        if row.get(X) is not None:
            by_setting.setdefault(str(row["setting"]), []).append(row)
    return [
        {**own[0], **{c: mean(float(row[c]) for row in own) for c in (X, Y)}} for own in by_setting.values()
    ]


def _few_images(few: Mapping[str, Mapping[str, Mapping[float, float]]], path: Path) -> Path:
    columns = min(3, len(few))
    lines = math.ceil(len(few) / columns)
    figure = new_figure(
        4.2 * columns, 3.6 * lines + 0.9, "Test image AUROC by the number of training images."
    )
    settings = sorted({setting for each in few.values() for setting in each})
    looks = dict(
        zip(
            settings,
            zip(itertools.cycle(DEFECT_COLOURS), itertools.cycle(MARKERS), strict=False),
            strict=False,
        )
    )
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, own) in zip(grid, few.items(), strict=False):
        dress(axes, title=name, xlabel="training images", ylabel="test image AUROC")
        axes.set_xscale("log")
        for setting, values in own.items():
            colour, marker = looks[setting]
            axes.plot(
                list(values), list(values.values()), color=colour, marker=marker, markersize=5, linewidth=1.4
            )
        numbers = sorted({n for values in own.values() for n in values})
        axes.set_xticks(numbers, [f"{n:.0f}" for n in numbers])
        axes.minorticks_off()
    for axes in grid[len(few) :]:
        axes.set_axis_off()
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=5, label=lettering(setting))
        for setting, (colour, marker) in looks.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(3, len(handles)),
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )
    return save(figure, path)
