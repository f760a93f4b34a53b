"""Whether TPE finds as much when it looks at a bounded history: the best value after so many trials.

Two made objectives, several seeds, both ways from the same seeds. Up to the window's size both suggest the
same, so the difference lies in what follows. The lower the value the better.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import optuna

from tune.search.history import weights_of
from tune.search.samplers import STARTUP
from tune.search.storage import SweepStorage
from tune.search.tpe import FlatTPESampler


def valley(trial: optuna.Trial) -> float:
    """A bent valley whose bottom a word shifts, and a rate by its decades: all searched at once."""
    x = [trial.suggest_float(f"x{i}", -2.0, 2.0) for i in range(2)]
    rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    kind = trial.suggest_categorical("kind", ("a", "b", "c", "d"))
    off = {"a": 0.0, "b": 0.05, "c": 0.1, "d": 0.15}[kind]
    return (x[1] - x[0] ** 2) ** 2 + 0.05 * (1 - x[0]) ** 2 + off + 0.1 * (math.log10(rate) + 3 - x[0]) ** 2


def branches(trial: optuna.Trial) -> float:
    """Conditions: six methods with dimensions of their own; the best is the hardest to get right."""
    method = trial.suggest_categorical("method", tuple("uvwxyz"))
    at = "uvwxyz".index(method)
    size = trial.suggest_float("size", 0.0, 1.0)
    own = [trial.suggest_float(f"{method}{i}", -1.0, 1.0) for i in range(4 + at % 3)]
    off = [value - (0.1 * at - 0.15 * i) for i, value in enumerate(own)]
    sharp = 1.0 + 2.0 * (at == 5)
    distance = sharp * sum(d**2 + 0.05 * (1 - math.cos(20 * d)) for d in off)
    return 0.5 * (5 - at) / 5 + distance + abs(size - 0.6 - 0.2 * off[0]) + 0.3 * abs(off[1] - off[2])


OBJECTIVES: Mapping[str, Callable[[optuna.Trial], float]] = {"valley": valley, "branches": branches}


def best_values(
    objective: Callable[[optuna.Trial], float], seed: int, marks: Sequence[int], *, bounded: bool
) -> list[tuple[float, float]]:
    """The lowest value after each number of trials, and the mean of the last hundred suggestions by then.

    Args:
        objective: What is made lower.
        seed: Of the sampler, with the number of trials, as in a sweep.
        marks: Numbers of trials, in order.
        bounded: Whether the sampler looks at a window of the history.
    """
    values: list[float] = []
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        storage = SweepStorage(Path(folder) / "study.journal")
        study = optuna.create_study(study_name="made", storage=storage)
        storage.follow("made", lambda _: True)
        for asked in range(marks[-1]):
            options: dict[str, Any] = {
                "seed": int(np.random.SeedSequence([seed, asked]).generate_state(1)[0]),
                "n_startup_trials": STARTUP,
                "constant_liar": True,
            }
            if bounded and storage.history.overflows:
                options["weights"] = weights_of(storage.history.crowd)
            if objective is branches:
                study.sampler = optuna.samplers.TPESampler(multivariate=True, group=True, **options)
            else:
                known = storage.numbered(0).distributions if asked else {}
                study.sampler = FlatTPESampler(known, **options)
            with storage.together():
                with storage.narrowed() if bounded else contextlib.nullcontext():
                    trial = study.ask()
                    values.append(objective(trial))
                study.tell(trial, values[-1])
    return [(min(values[:mark]), mean(values[max(0, mark - 100) : mark])) for mark in marks]


def quality(marks: Sequence[int], seeds: int) -> list[dict[str, Any]]:
    """A row an objective and a number of trials: the best value of each seed, bounded and not."""
    rows = []
    with warnings.catch_warnings(action="ignore"):
        for name, objective in OBJECTIVES.items():
            reached = {
                bounded: [best_values(objective, seed, marks, bounded=bounded) for seed in range(seeds)]
                for bounded in (True, False)
            }
            for at, mark in enumerate(marks):
                bounded, whole = ([best[at] for best in reached[way]] for way in (True, False))
                rows.append({
                    "objective": name,
                    "trials": mark,
                    "bounded": [best for best, _ in bounded],
                    "unbounded": [best for best, _ in whole],
                    "bounded_last": mean(last for _, last in bounded),
                    "unbounded_last": mean(last for _, last in whole),
                })  # fmt: skip
    return rows
