"""The house look for what Optuna draws, and pyplot left as it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from nfbmr.evaluation.style import FAINT, INK, dress, legend, lettering

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def dressed(
    axes: Any,
    size: tuple[float, float],
    *,
    title: str = "",
    grid: str = "both",
    layout: str = "constrained",
    **words: str,
) -> Figure:
    """The house look for what Optuna drew; its own words stay where there are none of ours."""
    import numpy as np

    every: list[Any] = list(np.atleast_1d(axes).ravel())
    figure: Figure = every[0].figure
    figure.set_size_inches(*size)
    figure.set_layout_engine(layout)  # type: ignore[arg-type]
    figure.set_facecolor("white")
    for panel in every:
        panel.set_title("")
        panel.grid(visible=False)
        dress(
            panel,
            title=title,
            xlabel=words.get("xlabel", panel.get_xlabel()),
            ylabel=words.get("ylabel", panel.get_ylabel()),
            grid=grid,
        )
    for panel in figure.axes:
        panel.set_facecolor("none")
        for text in panel.texts:
            text.set(fontsize=8, color=INK)
        if panel not in every:  # a colour bar, or a scale of its own
            panel.tick_params(labelsize=8, colors=FAINT)
            panel.yaxis.label.set(fontsize=9, color=INK)
        old: Any = panel.get_legend()
        if old is not None:
            handles, names = panel.get_legend_handles_labels()
            if not handles:  # Optuna made them for the legend alone
                handles, names = old.legend_handles, [text.get_text() for text in old.get_texts()]
            old.remove()
            if len(handles) > 1:  # it would explain one thing alone
                labels = [name.lower() for name in names]
                legend(panel, handles=handles, labels=labels, facecolor="white", loc="best")
    return figure


def as_words(axis: Any) -> bool:
    """Write choices as words, where Optuna wrote them as Python does; whether they are choices."""
    labels = [text.get_text() for text in axis.get_ticklabels()]
    if not any(text.startswith("'") for text in labels):
        return False
    words = ["–" if text.strip("'") == "None" else lettering(text.strip("'"), longest=24) for text in labels]
    axis.set_ticks(axis.get_ticklocs(), words)
    return True


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def plain_numbers(axis: Any, most: int = 20) -> None:
    """A few plain numbers on a logarithmic scale; powers of ten alone where they are more than `most`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    locator = LogLocator(subs=(1, 2, 5), numticks=20)
    if sum(low <= tick <= high for tick in locator.tick_values(low, high)) > most:
        locator = LogLocator(numticks=20)
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


@contextmanager
def apart() -> Iterator[None]:
    """Draw without a window, and leave pyplot as it was."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    backend, before = mpl.get_backend(auto_select=False), set(plt.get_fignums())
    with mpl.rc_context(), warnings.catch_warnings():
        # Experimental interfaces, axes with one value, importances from few trials: nothing to act upon.
        warnings.simplefilter("ignore")
        plt.switch_backend("agg")
        try:
            yield
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
            if backend is not None:
                with suppress(ImportError):
                    plt.switch_backend(backend)
