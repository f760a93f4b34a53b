"""Optuna's own pictures of a study, in the house style.

Optuna draws with pyplot and sets a style for good; both are undone here, so that whoever else draws in this
process is not disturbed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfbmr.errors import TrackingError
from nfbmr.evaluation.style import ACCENT, FAINT, INK, dress, legend, lettering, save
from tune.children import short_names
from tune.paths import SweepPaths

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna import Study
    from optuna.trial import FrozenTrial

Target = Callable[["FrozenTrial"], float]

log = logging.getLogger(__name__)

_STATE_COLOURS = {"complete": ACCENT, "pruned": "#e69f00", "fail": "#d55e00"}


def load_study(path: Path) -> Study:
    """The study that a journal holds.

    Args:
        path: Of Optuna's journal, :attr:`tune.paths.SweepPaths.study`.

    Raises:
        TrackingError: It holds no study that can be read.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        name = optuna.get_all_study_names(storage)[0]
        return optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())
    except (OSError, ValueError, LookupError) as error:
        raise TrackingError(
            f"Optuna's journal holds no study that can be read ({type(error).__name__}: {error})",
            where=path,
            fix="going on with the sweep (nfbmr sweep --resume) mends a last line that was cut short",
        ) from error


def draw_study(paths: SweepPaths, objectives: Sequence[str]) -> list[Path]:
    """Draw what there is to see; what too few trials do not show is left out.

    Args:
        paths: Of the sweep; the pictures go to its folder of pictures.
        objectives: Their names, in the order of the study.

    Returns:
        The pictures, as PNG: ``history``, ``importance``, ``parallel``, ``slice``, ``curves``, ``timeline``
        and, of several objectives, ``pareto``.
    """
    study = load_study(paths.study)
    pictures = []
    for name, draw in _pictures(study, objectives).items():
        path = paths.pictures / f"{name}.png"
        try:
            with _apart():
                figure = draw()
                caption = lettering(_caption(paths.name, study))
                figure.suptitle(caption, x=0.01, ha="left", fontsize=8, color=FAINT)
                pictures.append(save(figure, path))
        except Exception as error:
            # A sweep that is finished must not fail over a picture.
            log.warning("the picture %s cannot be drawn: %s", path, error)
    return pictures


@dataclass(frozen=True)
class _Goal:
    """One objective of a study, as Optuna's functions take it.

    Attributes:
        label: Its name.
        ending: Of the file names, where there are several.
        value: Takes it out of a trial; None for the only one.
        cost: The same, less being better.
    """

    label: str
    ending: str = ""
    value: Target | None = None
    cost: Target | None = None

    @classmethod
    def of(cls, study: Study, labels: Sequence[str]) -> list[_Goal]:
        """All of a study."""
        from optuna.study import StudyDirection

        directions = study.directions
        labels = [*labels, *(f"objective {i + 1}" for i in range(len(labels), len(directions)))]
        if len(directions) == 1:
            return [cls(labels[0])]
        return [
            cls(
                label,
                f"-{label.replace('/', '-')}",
                partial(_value, index=i),
                partial(_value, index=i, sign=-1.0 if direction == StudyDirection.MAXIMIZE else 1.0),
            )
            for i, (label, direction) in enumerate(zip(labels, directions, strict=False))
        ]


def _value(trial: FrozenTrial, *, index: int, sign: float = 1.0) -> float:
    return sign * float(trial.values[index])


def _pictures(study: Study, objectives: Sequence[str]) -> dict[str, Callable[[], Figure]]:
    """The pictures that there are enough trials for, by name."""
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as own

    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    names = sorted({name for trial in complete for name in trial.params})
    varied = [name for name in names if len({str(trial.params.get(name)) for trial in complete}) > 1]
    goals = _Goal.of(study, objectives)
    labels = [goal.label for goal in goals]
    pictures: dict[str, Callable[[], Figure]] = {}
    for goal in goals if complete else ():
        pictures[f"history{goal.ending}"] = partial(_history, own, study, goal)
    if len(complete) > 1 and varied:
        for goal in goals:
            pictures[f"importance{goal.ending}"] = partial(_importance, own, study, varied, goal)
            pictures[f"slice{goal.ending}"] = partial(_slice, own, study, varied, goal)
        pictures["parallel"] = partial(_parallel, own, study, varied, labels)
    if len(goals) == 1 and any(len(trial.intermediate_values) > 1 for trial in trials):
        pictures["curves"] = partial(_curves, own, study, labels[0])
    if any(trial.datetime_complete for trial in trials):
        pictures["timeline"] = partial(_timeline, own, study, len(trials))
    if complete and 2 <= len(goals) <= 3:
        pictures["pareto"] = partial(_pareto, own, study, labels)
    return pictures


# One function a picture


def _history(own: Any, study: Study, goal: _Goal) -> Figure:
    axes = own.plot_optimization_history(study, target=goal.value, target_name=goal.label)
    for line in axes.get_lines():  # the best so far: a step, since nothing lies between two trials
        line.set(drawstyle="steps-post", label="best so far")
    for points in axes.collections[:1]:
        points.set_label("a trial")
    _whole_numbers(axes.xaxis)
    return _dressed(axes, (7.0, 4.0), title=f"{goal.label} by trial", xlabel="trial", ylabel=goal.label)


def _importance(own: Any, study: Study, names: list[str], goal: _Goal) -> Figure:
    # Of the only objective Optuna knows the direction; of one among several it takes less to be better.
    axes = own.plot_param_importances(study, params=names, target=goal.cost, target_name=goal.label)
    size = (7.0, 1.6 + 0.35 * len(names))
    return _dressed(
        axes, size, title=f"What {goal.label} depended on", xlabel="importance", ylabel="", grid="x"
    )


def _parallel(own: Any, study: Study, names: list[str], labels: list[str]) -> Figure:
    from matplotlib.patheffects import withStroke

    axes = own.plot_parallel_coordinate(study, params=names, target_name=labels[0])
    columns = [*labels, *names]
    size = (2.0 + 1.3 * len(columns), 5.0)
    # The scales stand on one another, which a constrained layout cannot do.
    figure = _dressed(axes, size, title="Every finished trial", grid="none", layout="tight")
    short = short_names(dict.fromkeys(names))
    shown = [lettering(short.get(text, text)) for text in columns]
    axes.set_xticks(range(len(columns)), shown, rotation=20, ha="right")
    for lines in axes.collections:
        lines.set_cmap("viridis_r")  # Optuna's begins with white
    for scale in figure.axes:
        if scale.get_yscale() == "log":
            _plain_numbers(scale.yaxis)
        _as_words(scale.yaxis)
        scale.tick_params(axis="y", labelsize=8, colors=INK)
        for text in scale.get_yticklabels():
            text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    return figure


def _slice(own: Any, study: Study, names: list[str], goal: _Goal) -> Figure:
    axes = own.plot_slice(study, params=names, target=goal.value, target_name=goal.label)
    # A colour bar beside a single picture was made for no constrained layout.
    layout = "constrained" if len(names) > 1 else "tight"
    figure = _dressed(axes, (2.8 + 2.2 * len(names), 4.0), layout=layout)
    for one in figure.axes:
        for points in one.collections:
            points.set_cmap("viridis_r")  # Optuna's begins with white
        if _as_words(one.xaxis):
            one.tick_params(axis="x", labelrotation=30)
    return figure


def _curves(own: Any, study: Study, label: str) -> Figure:
    axes = own.plot_intermediate_values(study)
    by_number = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for line in axes.get_lines():
        # Optuna gives each its colour: of many, no two could be told apart.
        state = by_number[int(str(line.get_label()).removeprefix("Trial"))].state.name.lower()
        line.set(linewidth=1.0, alpha=0.7, marker="", color=_STATE_COLOURS.get(state, FAINT), label=state)
    once = {line.get_label(): line for line in axes.get_lines()}
    figure = _dressed(
        axes, (7.0, 4.0), title=f"{label} by epoch", xlabel="epochs of all stages", ylabel=label
    )
    legend(axes, handles=list(once.values()), facecolor="white", loc="lower right")
    return figure


def _timeline(own: Any, study: Study, count: int) -> Figure:
    axes = own.plot_timeline(study)
    _whole_numbers(axes.yaxis)
    size = (7.0, 2.0 + min(0.1 * count, 8.0))
    return _dressed(axes, size, title="When each trial ran", xlabel="time", ylabel="trial", grid="x")


def _pareto(own: Any, study: Study, labels: list[str]) -> Figure:
    axes = own.plot_pareto_front(study, target_names=labels)
    return _dressed(axes, (6.0, 5.0), title="The Pareto front")


# How they look


def _dressed(
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
    for one in every:
        one.set_title("")
        one.grid(visible=False)
        dress(
            one,
            title=title,
            xlabel=words.get("xlabel", one.get_xlabel()),
            ylabel=words.get("ylabel", one.get_ylabel()),
            grid=grid,
        )
    for one in figure.axes:
        one.set_facecolor("none")
        for text in one.texts:
            text.set(fontsize=8, color=INK)
        if one not in every:  # a colour bar, or a scale of its own
            one.tick_params(labelsize=8, colors=FAINT)
            one.yaxis.label.set(fontsize=9, color=INK)
        if one.get_legend() is not None:
            _legend(one)
    return figure


def _legend(axes: Any) -> None:
    """The legend in the house look; where it would explain one thing alone, none."""
    old = axes.get_legend()
    handles, names = axes.get_legend_handles_labels()
    if not handles:  # Optuna made them for the legend alone
        handles, names = old.legend_handles, [text.get_text() for text in old.get_texts()]
    old.remove()
    if len(handles) > 1:
        legend(axes, handles=handles, labels=[name.lower() for name in names], facecolor="white", loc="best")


def _as_words(axis: Any) -> bool:
    """Write choices as words, where Optuna wrote them as Python does; whether they are choices."""
    labels = [text.get_text() for text in axis.get_ticklabels()]
    if not any(text.startswith("'") for text in labels):
        return False
    words = ["–" if text.strip("'") == "None" else lettering(text.strip("'"), longest=24) for text in labels]
    axis.set_ticks(axis.get_ticklocs(), words)
    return True


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def _plain_numbers(axis: Any) -> None:
    """A few plain numbers on a logarithmic scale."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _caption(name: str, study: Study) -> str:
    count = len(study.get_trials(deepcopy=False))
    return f"{name}, {count} trial{'s' if count != 1 else ''}"


@contextmanager
def _apart() -> Iterator[None]:
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
