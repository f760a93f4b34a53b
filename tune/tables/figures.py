"""Pictures of an ablation: rows with intervals, differences to the reference, lines over categories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nfbmr.evaluation.style import (
    ACCENT,
    DEFECT_COLOURS,
    FAINT,
    GOOD_COLOUR,
    INK,
    MARKERS,
    dress,
    legend,
    lettering,
    new_figure,
    save,
)
from tune.tables.rows import METRICS
from tune.tables.table import NOT_RUN, Line, Table, interval, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VERDICT_COLOURS = {"better": "#009e73", "worse": "#d55e00", "tie": GOOD_COLOUR, "unknown": FAINT}
_PUBLISHED = "#e69f00"
_NAME = 28


def draw(table: Table, folder: Path) -> list[Path]:
    """Every picture that the table has numbers for.

    Besides rows, differences and lines over categories: rows along a key where they are a sweep, and
    ``categories``, where the table asks for it.

    Args:
        table: What is drawn.
        folder: Where to; pictures of an earlier call are replaced.

    Raises:
        OutputError: The disk is full or the folder cannot be written.
    """
    drawn = [bars(table, folder / "bars.png")]
    if len(table.lines) > 1:
        drawn.append(differences(table, folder / "differences.png"))
    if len(table.categories) > 1:
        drawn.append(lines(table, folder / "lines.png"))
    if table.curves:
        drawn.append(sweep(table, folder / "sweep.png"))
    if "categories" in table.pictures and table.categories:
        drawn.append(shortfalls(table, folder / "categories.png"))
    return drawn


def bars(table: Table, path: Path) -> Path:
    """Each row's metric with its interval; published numbers as diamonds beside it.

    The axis does not begin at zero, so a row is a mark on a line and not a bar whose length would mislead.
    """
    entries = [table.entry(line) for line in table.lines]
    places = max(2, len(entries) + len(table.literature_rows))
    figure = new_figure(7.2, 1.5 + 0.46 * places, _caption(table))
    axes = dress(figure.add_subplot(), title=_heading(table), xlabel=f"{METRICS[table.metric]}, %", grid="x")
    for y, (line, entry) in enumerate(zip(table.lines, entries, strict=True)):
        shade = INK if line.name == table.reference else ACCENT
        estimate = entry.mean.estimate
        if estimate.defined:
            if estimate.has_interval:
                axes.plot([100 * estimate.low, 100 * estimate.high], [y, y], color=shade, linewidth=2.2)
            for value in entry.mean.values if entry.mean.seeds > 1 else ():
                axes.plot(100 * value, y + 0.24, "|", color=shade, markersize=6, alpha=0.8)
            axes.plot(
                100 * estimate.value, y, "o", color=shade, markersize=7, markeredgecolor="white", zorder=5
            )
        else:
            across = axes.get_yaxis_transform()
            axes.text(0.5, y, "no result", transform=across, fontsize=8, color=FAINT, va="center")
        published = line.reported(table.metric)
        if published is not None:
            axes.plot(100 * published.value, y - 0.24, "D", color=_PUBLISHED, markersize=5, zorder=4)
    for y, line in enumerate(table.literature_rows, len(entries)):
        published = line.reported(table.metric)
        if published is not None:
            axes.plot(100 * published.value, y, "D", color=_PUBLISHED, markersize=5, zorder=4)
    if any(entry.mean.seeds > 1 for entry in entries):
        axes.plot([], [], "|", color=ACCENT, markersize=6, label="one seed")
    if table.has_published:
        axes.plot([], [], "D", color=_PUBLISHED, markersize=5, label="published, on another protocol")
    legend(axes, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1, ncols=2, columnspacing=1.2)
    _names(axes, table, table.lines, [line.name for line in table.literature_rows])
    _ends(
        axes,
        [*(interval(entry.mean.estimate) for entry in entries), *(NOT_RUN for _ in table.literature_rows)],
    )
    return save(figure, path)


def differences(table: Table, path: Path) -> Path:
    """A forest plot: each row less the reference, paired, with its interval and what that says."""
    others = [line for line in table.lines if line.name != table.reference]
    entries = [table.entry(line) for line in others]
    figure = new_figure(7.2, 1.5 + 0.46 * max(2, len(others)), _caption(table))
    axes = dress(
        figure.add_subplot(),
        title=f"Less {table.reference}, paired",
        xlabel=f"difference in {METRICS[table.metric]}, percentage points",
        grid="x",
    )
    axes.axvline(0.0, color=INK, linewidth=1.0)
    words = []
    for y, entry in enumerate(entries):
        difference = entry.difference
        if difference is None or not difference.estimate.defined:
            axes.text(0.0, y, " no cells to compare", fontsize=8, color=FAINT, va="center")
            words.append("")
            continue
        estimate, shade = difference.estimate, _VERDICT_COLOURS[difference.verdict]
        if estimate.has_interval:
            axes.plot([100 * estimate.low, 100 * estimate.high], [y, y], color=shade, linewidth=2.2)
        axes.plot(100 * estimate.value, y, "o", color=shade, markersize=7, markeredgecolor="white", zorder=4)
        words.append(f"{interval(estimate, sign=True)}  {verdict(difference)}")
    _names(axes, table, others)
    _ends(axes, words)
    return save(figure, path)


def lines(table: Table, path: Path) -> Path:
    """Each row's metric over categories or kinds of defect (Zhang et al. 2024, figure 10), then the whole."""
    places = [*range(len(table.categories)), len(table.categories) + 0.6]
    figure = new_figure(max(6.4, 2.6 + 0.55 * len(places)), 4.6, _caption(table))
    over = "categories" if table.breakdown == "category" else "kinds of defect"
    axes = dress(
        figure.add_subplot(),
        title=f"{_heading(table)} over {over}",
        ylabel=f"{METRICS[table.metric]}, %",
        grid="y",
    )
    width = 0.5 / max(1, len(table.lines))
    for n, line in enumerate(table.lines):
        shade, marker = DEFECT_COLOURS[n % len(DEFECT_COLOURS)], MARKERS[n % len(MARKERS)]
        if line.name == table.reference:
            shade = INK
        entries = [table.entry(line, category) for category in (*table.categories, None)]
        x = [place + (n - (len(table.lines) - 1) / 2) * width for place in places]
        y = [100 * entry.mean.estimate.value for entry in entries]
        for at, category in zip(x, (*table.categories, None), strict=True):
            published = line.reported(table.metric, category)
            if published is not None:
                axes.plot(
                    at, 100 * published.value, "D", color=shade, markersize=5, fillstyle="none", zorder=4
                )
        axes.plot(x[:-1], y[:-1], color=shade, linewidth=1.3, alpha=0.75)
        axes.plot(x, y, marker, color=shade, markersize=4.5, label=lettering(line.name, _NAME))
        for at, entry in zip(x, entries, strict=True):
            estimate = entry.mean.estimate
            if estimate.has_interval:
                ends = [100 * estimate.low, 100 * estimate.high]
                axes.plot([at, at], ends, color=shade, linewidth=0.9, alpha=0.55)
    if table.has_published:
        axes.plot([], [], "D", color=INK, markersize=5, fillstyle="none", label="published")
    axes.axvline(len(table.categories) - 0.2, color=FAINT, linewidth=0.8)
    names = [lettering(name, 18) for name in table.categories]
    slanted = max(map(len, names)) * len(names) > 90
    axes.set_xticks(
        places, [*names, table.whole], rotation=35 if slanted else 0, ha="right" if slanted else "center"
    )
    legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return save(figure, path)


def sweep(table: Table, path: Path) -> Path:
    """Rows as lines over the values of a key, with intervals; other rows as level lines beside them."""
    figure = new_figure(6.6, 4.4, _caption(table))
    axes = dress(
        figure.add_subplot(),
        title=f"{_heading(table)} over {table.sweep_key}",
        xlabel=table.sweep_key,
        ylabel=f"{METRICS[table.metric]}, %",
    )
    by_name = {line.name: line for line in table.lines}
    numeric = all(curve.numeric for curve in table.curves)
    values = list(dict.fromkeys(str(value) for curve in table.curves for value, _ in curve.points))
    for n, curve in enumerate(table.curves):
        shade, marker = DEFECT_COLOURS[(n + 1) % len(DEFECT_COLOURS)], MARKERS[n % len(MARKERS)]
        entries = [table.entry(by_name[name]) for _, name in curve.points]
        x = [float(value) if numeric else values.index(str(value)) for value, _ in curve.points]
        label = lettering(curve.label or METRICS[table.metric], 40)
        axes.plot(x, [100 * e.mean.estimate.value for e in entries], f"{marker}-", color=shade, label=label)
        for at, entry, (_, name) in zip(x, entries, curve.points, strict=True):
            estimate = entry.mean.estimate
            if estimate.has_interval:
                axes.plot([at, at], [100 * estimate.low, 100 * estimate.high], color=shade, alpha=0.55)
            published = by_name[name].reported(table.metric)
            if published is not None:
                axes.plot(at, 100 * published.value, "D", color=_PUBLISHED, markersize=5, zorder=4)
    if any(by_name[name].reported(table.metric) for curve in table.curves for _, name in curve.points):
        axes.plot([], [], "D", color=_PUBLISHED, markersize=5, label="published, on another protocol")
    along = {name for curve in table.curves for _, name in curve.points}
    for n, line in enumerate(line for line in table.lines if line.name not in along):
        value = 100 * table.entry(line).mean.estimate.value
        style = ("--", ":", "-.")[n % 3]
        axes.axhline(value, color=FAINT, linestyle=style, linewidth=1.2, label=lettering(line.name, _NAME))
    ticks = sorted({float(value) for curve in table.curves for value, _ in curve.points}) if numeric else []
    axes.set_xticks(ticks or range(len(values)), [f"{tick:g}" for tick in ticks] or values)
    axes.margins(x=0.12)
    legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return save(figure, path)


def shortfalls(table: Table, path: Path) -> Path:
    """What each row lacks of 100 % in each category, as bars (Zhang et al. 2024, figure 6, has the rest).

    These bars begin at zero, so that their lengths can be compared; those of an AUROC near 100 % could not.
    """
    places = [*table.categories, None]
    figure = new_figure(max(6.4, 2.0 + 0.62 * len(places)), 4.2, _caption(table))
    axes = dress(
        figure.add_subplot(),
        title=f"What is missing to 100 % {METRICS[table.metric]}: shorter is better",
        ylabel="percentage points",
        grid="y",
    )
    width = 0.8 / len(table.lines)
    for n, line in enumerate(table.lines):
        shade = INK if line.name == table.reference else DEFECT_COLOURS[n % len(DEFECT_COLOURS)]
        label: str | None = lettering(line.name, _NAME)
        for at, category in enumerate(places):
            estimate = table.entry(line, category).mean.estimate
            x = at + (n - (len(table.lines) - 1) / 2) * width
            if estimate.defined:
                axes.bar(x, 100 - 100 * estimate.value, 0.92 * width, color=shade, alpha=0.8, label=label)
                label = None
            if estimate.has_interval:
                ends = [100 - 100 * estimate.high, 100 - 100 * estimate.low]
                axes.plot([x, x], ends, color=FAINT, linewidth=1.0)
            published = line.reported(table.metric, category)
            if published is not None:
                axes.plot(x, 100 - 100 * published.value, "D", color=_PUBLISHED, markersize=5, zorder=4)
    if any(line.reported(table.metric, category) for line in table.lines for category in places):
        axes.plot([], [], "D", color=_PUBLISHED, markersize=5, label="published, on another protocol")
    axes.set_ylim(bottom=0)
    axes.set_xticks(
        range(len(places)),
        [table.whole if category is None else lettering(category, 18) for category in places],
        rotation=35,
        ha="right",
    )
    legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return save(figure, path)


def _names(axes: Axes, table: Table, lines: Sequence[Line], others: Sequence[str] = ()) -> None:
    """Names of rows at the left, the first at the top; a star where cells are missing."""
    marked = [
        f"{line.name}{' *' if table.entry(line).missing else ''}{' (test-peeked)' if line.peeked else ''}"
        for line in lines
    ]
    marked += others
    axes.set_yticks(range(len(marked)), [lettering(name, _NAME) for name in marked])
    axes.set_ylim(max(1.5, len(marked) - 0.5), -0.5)
    for label in axes.get_yticklabels():
        label.set_color(INK)
        label.set_fontsize(9)
    axes.tick_params(axis="y", length=0)


def _ends(axes: Axes, texts: Sequence[str]) -> None:
    """Numbers in a column of their own, right of the axes."""
    for y, text in enumerate(texts):
        axes.annotate(
            f"{text}  ",
            (1.0, y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
            annotation_clip=False,
        )
    low, high = axes.get_xlim()
    if math.isclose(low, high):
        axes.set_xlim(low - 1, high + 1)


def _heading(table: Table) -> str:
    name = METRICS[table.metric]
    return f"{name[0].upper()}{name[1:]}"


def _caption(table: Table) -> str:
    missing = "; *: cells are missing" if table.missing else ""
    return f"{table.name}: {table.about}; {table.confidence:.0%} intervals{missing}"
