"""Pictures of a study: Optuna's own in the house style, and what it draws without their uncertainty.

Optuna draws with pyplot and sets a style for good; both are undone here, so that whoever else draws in this
process is not disturbed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfbmr.errors import TrackingError
from nfbmr.evaluation.style import ACCENT, FAINT, INK, dress, legend, lettering, new_figure, save
from nfbmr.text import count
from tune.records.children import short_names
from tune.records.paths import SweepPaths
from tune.search.importance import Readiness, importances
from tune.search.plot_style import apart, as_words, dressed, plain_numbers, whole_numbers
from tune.search.trial_facts import is_copy, validation_auroc

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna import Study
    from optuna.trial import FrozenTrial

Target = Callable[["FrozenTrial"], float]
"""An objective's value of a trial."""

log = logging.getLogger(__name__)

_MOST_CHOICES = 8
_OF_MANY = ("importance", "slice", "parallel")
_NEAR = "not told from the best (within two standard errors)"
_REPEAT = "repeats an earlier point: not run"
_STATE_COLOURS = {"complete": ACCENT, "pruned": "#e69f00", "fail": "#d55e00"}


def load_study(path: Path) -> Study:
    """The study that a journal holds.

    Args:
        path: Path of Optuna's journal, :attr:`tune.records.paths.SweepPaths.study`.

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


def draw_study(paths: SweepPaths, objectives: Sequence[str], near: Collection[int] = ()) -> list[Path]:
    """Draw what there is to see; what too few trials do not show is left out.

    Importance, slice and parallel take :attr:`tune.search.importance.Readiness.needed` finished trials.

    Args:
        paths: Paths of the sweep; the pictures go to its folder of pictures. Those of an earlier version of
            fewer trials than that are removed.
        objectives: Their names, in the order of the study.
        near: Numbers of the trials that the first objective cannot tell from the best.

    Returns:
        The pictures, as PNG: ``history``, ``importance``, ``parallel``, ``slice``, ``curves``, ``timeline``
        and, of several objectives, ``pareto``.
    """
    study = load_study(paths.study)
    pictures = []
    drawn = _pictures(study, objectives, near)
    for old in (path for kind in _OF_MANY for path in paths.pictures.glob(f"{kind}*.png")):
        if old.stem not in drawn:
            old.unlink()
    for name, draw in drawn.items():
        path = paths.pictures / f"{name}.png"
        try:
            with apart():
                figure = draw()
                trials = count(len(study.get_trials(deepcopy=False)), "trial")
                caption = lettering(f"{paths.name}, {trials}")
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
        ending: Ending of the file names, where there are several.
        value: Takes it out of a trial; None for the only one.
    """

    label: str
    ending: str = ""
    value: Target | None = None

    def of_trial(self, trial: FrozenTrial) -> float:
        """The objective of a finished trial."""
        return float(trial.values[0]) if self.value is None else self.value(trial)

    @classmethod
    def of(cls, study: Study, labels: Sequence[str]) -> list[_Goal]:
        """All of a study."""
        labels = [*labels, *(f"objective {i + 1}" for i in range(len(labels), len(study.directions)))]
        if len(study.directions) == 1:
            return [cls(labels[0])]

        def value_at(index: int) -> Target:
            return lambda trial: float(trial.values[index])

        return [
            cls(label, f"-{label.replace('/', '-')}", value_at(i))
            for i, label in enumerate(labels[: len(study.directions)])
        ]


def _pictures(
    study: Study, objectives: Sequence[str], near: Collection[int]
) -> dict[str, Callable[[], Figure]]:
    """The pictures that there are enough trials for, by name."""
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as optuna_plots

    trials = study.get_trials(deepcopy=False)
    complete = [t for t in trials if t.state == TrialState.COMPLETE and not is_copy(t)]
    readiness = Readiness.of(trials)
    varied = list(readiness.varied)
    goals = _Goal.of(study, objectives)
    labels = [goal.label for goal in goals]
    pictures: dict[str, Callable[[], Figure]] = {}
    for goal in goals if complete else ():
        pictures[f"history{goal.ending}"] = partial(_history, optuna_plots, study, goal)
    if readiness.enough:
        for goal in goals:
            pictures[f"importance{goal.ending}"] = partial(_importance, complete, varied, goal)
            of_goal = near if goal is goals[0] else ()
            pictures[f"slice{goal.ending}"] = partial(_slice, complete, varied, goal, of_goal)
        pictures["parallel"] = partial(_parallel, optuna_plots, study, varied, labels, near)
    if len(goals) == 1 and any(len(trial.intermediate_values) > 1 for trial in trials):
        pictures["curves"] = partial(_curves, optuna_plots, study, labels[0])
    if any(trial.datetime_complete for trial in trials):
        pictures["timeline"] = partial(_timeline, optuna_plots, study, len(trials))
    if complete and 2 <= len(goals) <= 3:
        pictures["pareto"] = lambda: dressed(
            optuna_plots.plot_pareto_front(study, target_names=labels), (6.0, 5.0), title="The Pareto front"
        )
    return pictures


# One function a picture


def _history(optuna_plots: Any, study: Study, goal: _Goal) -> Figure:
    axes = optuna_plots.plot_optimization_history(study, target=goal.value, target_name=goal.label)
    for line in axes.get_lines():  # the best so far: a step, since nothing lies between two trials
        line.set(drawstyle="steps-post", label="best so far")
    for points in axes.collections[:1]:
        points.set_label("a trial")
    if repeats := [trial for trial in study.get_trials(deepcopy=False) if is_copy(trial) and trial.values]:
        places = [trial.number for trial in repeats], [goal.of_trial(trial) for trial in repeats]
        axes.scatter(*places, s=14, color="white", zorder=4, label=_REPEAT)
        axes.collections[-1].set(edgecolor=ACCENT, linewidth=0.8)
    whole_numbers(axes.xaxis)
    figure = dressed(axes, (7.0, 4.0), title=f"{goal.label} by trial", xlabel="trial", ylabel=goal.label)
    # Where no trial can lie behind it.
    legend(axes, facecolor="white", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return figure


def _importance(complete: list[FrozenTrial], names: list[str], goal: _Goal) -> Figure:
    measured = importances(complete, [goal.of_trial(trial) for trial in complete], names)
    figure = new_figure(7.0, 1.9 + 0.35 * len(names), "")
    axes = dress(
        figure.add_subplot(),
        title=f"What {goal.label} depended on",
        xlabel="share of the differences between trials, on trials left out; 95 % interval",
        grid="x",
    )
    axes.axvline(0.0, color=INK, linewidth=1.0)
    for y, importance in enumerate(measured):
        estimate, shade = importance.estimate, ACCENT if importance.certain else FAINT
        if not estimate.defined:
            axes.text(0.0, y, " all trials reached the same", fontsize=8, color=FAINT, va="center")
            continue
        axes.plot([estimate.low, estimate.high], [y, y], color=shade, linewidth=2.2)
        fill = shade if importance.certain else "white"
        axes.plot(estimate.value, y, "o", color=shade, markerfacecolor=fill, markersize=7, zorder=4)
        axes.annotate(
            f"{estimate.value:.2f}" if importance.certain else "not told from chance",
            (1.0, y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK if importance.certain else FAINT,
            annotation_clip=False,
        )
    short = short_names(dict.fromkeys(names))
    axes.set_yticks(range(len(measured)), [lettering(short[importance.name]) for importance in measured])
    axes.set_ylim(len(measured) - 0.4, -0.6)
    axes.tick_params(axis="y", labelsize=9, labelcolor=INK, length=0)
    return figure


def _parallel(
    optuna_plots: Any, study: Study, names: list[str], labels: list[str], near: Collection[int]
) -> Figure:
    import numpy as np
    from matplotlib.patheffects import withStroke

    axes = optuna_plots.plot_parallel_coordinate(study, params=names, target_name=labels[0])
    columns = [*labels, *names]
    size = (2.0 + 1.3 * len(columns), 5.0)
    # The scales stand on one another, which a constrained layout cannot do.
    figure = dressed(axes, size, title="Every finished trial", grid="none", layout="tight")
    short = short_names(dict.fromkeys(names))
    shown = [lettering(short.get(text, text)) for text in columns]
    axes.set_xticks(range(len(columns)), shown, rotation=20, ha="right")
    reached = [trial.values[0] for trial in study.get_trials(deepcopy=False) if trial.number in near]
    for lines in axes.collections:
        lines.set_cmap("viridis_r")  # Optuna's begins with white
        if near and len(labels) == 1:
            # Optuna orders its lines anew; what they are coloured by is the objective.
            bold = np.isin(np.asarray(lines.get_array()), reached)
            lines.set_linewidths(np.where(bold, 2.2, 0.8).tolist())
            lines.set_alpha(np.where(bold, 1.0, 0.35).tolist())
            axes.set_title(f"bold: {_NEAR}", loc="right", fontsize=8, color=FAINT)
    for scale in figure.axes:
        if scale.get_yscale() == "log":
            plain_numbers(scale.yaxis)
        as_words(scale.yaxis)
        scale.tick_params(axis="y", labelsize=8, colors=INK)
        for text in scale.get_yticklabels():
            text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    return figure


def _slice(complete: list[FrozenTrial], names: list[str], goal: _Goal, near: Collection[int]) -> Figure:
    figure = new_figure(1.4 + 2.3 * len(names), 4.0, "")
    every = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    short = short_names(dict.fromkeys(names))
    for axes, name in zip(every, names, strict=True):
        having = [trial for trial in complete if name in trial.params]
        places, ticks = _places(having, name)
        for place, trial in zip(places, having, strict=True):
            value, is_near = goal.of_trial(trial), trial.number in near
            shade = ACCENT if is_near else FAINT
            auroc = validation_auroc(trial)
            # The interval is of the validation AUROC, whatever else the sweep has for objectives.
            if auroc.value == value and auroc.has_interval:
                axes.plot([place, place], [auroc.low, auroc.high], color=shade, linewidth=1.0, alpha=0.4)
            fill = shade if is_near else "white"
            axes.plot(place, value, "o", color=shade, markerfacecolor=fill, markersize=5, zorder=4)
        dress(axes, xlabel=short[name], ylabel=goal.label if axes is every[0] else "")
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks, rotation=30, ha="right")
            axes.set_xlim(-0.6, len(ticks) - 0.4)
        elif getattr(having[0].distributions[name], "log", False):
            axes.set_xscale("log")
            plain_numbers(axes.xaxis, most=5)
    # Objects that are drawn nowhere, for the legend alone.
    every[-1].plot([], [], "o", color=ACCENT, label=f"{_NEAR}; lines: 95 % intervals")
    every[-1].plot([], [], "o", color=FAINT, markerfacecolor="white", label="other trials")
    handles, labels = every[-1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", ncols=2, fontsize=8, labelcolor=INK, frameon=False
    )
    return figure


def _places(trials: list[FrozenTrial], name: str) -> tuple[list[float], list[str]]:
    """Where each trial stands along a dimension; the words below where it is a choice, as pictures show them.

    A few whole numbers are choices too. Trials with the same choice are spread a little, so that their
    intervals are seen apart.
    """
    values = [trial.params[name] for trial in trials]
    numeric = all(isinstance(value, int | float) for value in values)
    in_order = sorted(set(values), key=None if numeric else str)
    known = ["–" if value is None else str(value) for value in in_order]
    if any(isinstance(value, float) for value in values) or (
        len(known) > _MOST_CHOICES and all(isinstance(value, int) for value in values)
    ):
        return [float(value) for value in values], []
    words = ["–" if value is None else str(value) for value in values]
    places, seen = [], dict.fromkeys(known, 0)
    for word in words:
        same = words.count(word)
        places.append(known.index(word) + 0.6 * ((seen[word] + 0.5) / same - 0.5))
        seen[word] += 1
    return places, [lettering(word, longest=24) for word in known]


def _curves(optuna_plots: Any, study: Study, label: str) -> Figure:
    axes = optuna_plots.plot_intermediate_values(study)
    by_number = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for line in axes.get_lines():
        # Optuna gives each its colour: of many, no two could be told apart.
        state = by_number[int(str(line.get_label()).removeprefix("Trial"))].state.name.lower()
        line.set(linewidth=1.0, alpha=0.7, marker="", color=_STATE_COLOURS.get(state, FAINT), label=state)
    once = {line.get_label(): line for line in axes.get_lines()}
    figure = dressed(axes, (7.0, 4.0), title=f"{label} by epoch", xlabel="epochs of all stages", ylabel=label)
    legend(axes, handles=list(once.values()), facecolor="white", loc="lower right")
    return figure


def _timeline(optuna_plots: Any, study: Study, count: int) -> Figure:
    axes = optuna_plots.plot_timeline(study)
    repeats = {trial.number for trial in study.get_trials(deepcopy=False) if is_copy(trial)}
    for bar in axes.patches:
        bar.set_visible(round(bar.get_y() + bar.get_height() / 2) not in repeats)  # those never ran
    whole_numbers(axes.yaxis)
    size = (7.0, 2.0 + min(0.1 * count, 8.0))
    return dressed(axes, size, title="When each trial ran", xlabel="time", ylabel="trial", grid="x")
