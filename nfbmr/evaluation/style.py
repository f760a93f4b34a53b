"""How every picture looks: colours, axes, lettering, and saving.

Only matplotlib's object-oriented interface is used, never pyplot, and no global setting is changed, so that
pictures can be drawn in any thread and beside anybody else's.
"""

from __future__ import annotations

import functools
import itertools
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nfbmr.data.samples import GOOD
from nfbmr.paths import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD_COLOUR = "#8094ab"
"""Colour of good images, in every figure."""
INK, FAINT, GRID = "#1f2933", "#6b7785", "#e3e7ec"
"""Colours of text, of what is said beside it, and of a grid's lines."""
ACCENT = "#0072b2"
"""Colour of what a figure is about."""
# Okabe and Ito's palette, told apart with every common kind of colour blindness, then four of Paul Tol's.
DEFECT_COLOURS = (
    "#d55e00",
    "#0072b2",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#44aa99",
    "#999933",
    "#332288",
)
"""Colours of kinds of defects, one after the other."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
"""Shapes of points: of good images, then of kinds of defects."""
_DPI = 150
_COMPRESSION = 4
"""Of 9: from there on a picture takes longer and hardly less room."""

_FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "Noto Sans SC",
    "Source Han Sans",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "IPAexGothic",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "Meiryo",
    "Microsoft YaHei",
    "SimHei",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Thai",
    "Noto Sans Devanagari",
)


def colours(kinds: Iterable[str]) -> dict[str, str]:
    """A colour for good and each kind of defect; the same kinds always get the same colours.

    Example:
        >>> colours(["crack", "good", "break"])
        {'good': '#8094ab', 'break': '#d55e00', 'crack': '#0072b2'}
    """
    defects = sorted(set(kinds) - {GOOD})
    return {GOOD: GOOD_COLOUR, **dict(zip(defects, itertools.cycle(DEFECT_COLOURS), strict=False))}


def markers(kinds: Iterable[str]) -> dict[str, str]:
    """A marker for good and each kind of defect, for readers who cannot tell the colours apart."""
    defects = sorted(set(kinds) - {GOOD})
    return {GOOD: MARKERS[0], **dict(zip(defects, itertools.cycle(MARKERS[1:]), strict=False))}


def new_figure(width: float, height: float, caption: str) -> Figure:
    """An empty figure, sized in inches, with the caption (data set, split, method, seed) above all else."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    if caption:
        lines = textwrap.fill(lettering(caption), width=int(width * 15), break_on_hyphens=False)
        figure.suptitle(lines, x=0.01, ha="left", fontsize=8, color=FAINT)
    return figure


def dress(axes: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "", grid: str = "both") -> Axes:
    """Give axes the house look: a title at the left, no box, a faint grid."""
    if title:
        axes.set_title(lettering(title), loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(lettering(xlabel), fontsize=9, color=INK)
    axes.set_ylabel(lettering(ylabel), fontsize=9, color=INK)
    axes.tick_params(which="both", labelsize=8, colors=FAINT, length=3, width=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    if grid != "none":
        axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    return axes


def legend(axes: Axes, **options: Any) -> None:
    """A legend without a box around it; `options` are matplotlib's own."""
    if "handles" in options or axes.get_legend_handles_labels()[0]:
        axes.legend(labelcolor=INK, fontsize=8, framealpha=0.85, edgecolor="none", **options)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure whole or not at all; its kind is the path's suffix, PNG where there is none.

    Raises:
        OutputError: The disk is full or the folder cannot be written.
    """
    from matplotlib.text import Text

    fonts = list(_fonts())
    for text in figure.findobj(Text):
        text.set_fontfamily(fonts)
    kind = path.suffix.lstrip(".").lower() or "png"
    with atomic(path) as temporary:
        if kind == "png":
            _write_png(figure, temporary)
        else:
            figure.savefig(temporary, format=kind, dpi=_DPI)
    return path


def _write_png(figure: Figure, path: Path) -> None:
    """As ``savefig``, which draws a figure once more for its layout, and packs it as small as can be."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(_DPI)  # those of other libraries come with their own
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    canvas.draw()
    # The ground is white: nothing shows through.
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    picture.save(path, format="png", dpi=(_DPI, _DPI), compress_level=_COMPRESSION)


def lettering(text: str, longest: int | None = None) -> str:
    r"""Text as matplotlib can show it: one line, dollars not read as mathematics, every character in a font.

    Characters that no installed font has are written as escapes, so that two names never look the same.

    Args:
        text: Anything, file names included.
        longest: Shorten the middle to this many characters.

    Example:
        >>> lettering("two\nlines for $5")
        'two lines for \\$5'
        >>> lettering("an exceedingly long name.png", longest=12)
        'an exc…e.png'
    """
    known = _characters()
    text = " ".join(text.split())
    # A legend leaves out what begins with an underscore.
    text = f" {text}" if text.startswith("_") else text
    if longest is not None and len(text) > longest:
        text = text[: longest // 2] + "…" + text[len(text) + 1 - (longest - longest // 2) :]
    shown = (c if ord(c) in known else c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(shown).replace("$", r"\$")


@functools.cache
def _fonts() -> tuple[str, ...]:
    """DejaVu Sans, which comes with matplotlib, then what is installed for scripts that it lacks."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *(font for font in _FALLBACK_FONTS if font in installed))


@functools.cache
def _characters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    maps = (get_font(findfont(FontProperties(family=[font]))).get_charmap() for font in _fonts())
    return frozenset(itertools.chain.from_iterable(maps))
