"""Whether TPE finds as much when it looks at a bounded history: the best value after so many trials.

Two made objectives, several seeds, every window from the same seeds. Up to a window's size all suggest the
same, so the difference lies in what follows. The lower the value the better.
``python -m benchmarks.growth_window --windows 250,500,all --seeds 0,1`` compares sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import optuna

from tune.search.history import WINDOW, weights_of
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
    objective: Callable[[optuna.Trial], float], seed: int, marks: Sequence[int], window: int | None
) -> list[tuple[float, float]]:
    """The lowest value after each number of trials, and the mean of the last hundred suggestions by then.

    Args:
        objective: What is made lower.
        seed: Of the sampler, with the number of trials, as in a sweep.
        marks: Numbers of trials, in order.
        window: How many ended trials the sampler looks at; None: at all.
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
            if window is not None and (crowd := storage.history.crowd(window)) > 1.0:
                options["weights"] = weights_of(crowd)
            if objective is branches:
                study.sampler = optuna.samplers.TPESampler(multivariate=True, group=True, **options)
            else:
                known = storage.numbered(0).distributions if asked else {}
                study.sampler = FlatTPESampler(known, **options)
            with storage.together():
                with storage.narrowed() if window is not None else contextlib.nullcontext():
                    if window is not None:
                        storage.look_at(window)
                    trial = study.ask()
                    values.append(objective(trial))
                study.tell(trial, values[-1])
    return [(min(values[:mark]), mean(values[max(0, mark - 100) : mark])) for mark in marks]


def quality(
    marks: Sequence[int], seeds: Sequence[int], windows: Sequence[int | None] = (WINDOW, None)
) -> Iterator[dict[str, Any]]:
    """A row an objective, a seed and a window, as soon as it is measured.

    Args:
        marks: Numbers of trials, in order.
        seeds: Of the sampler.
        windows: As :func:`best_values` takes them.
    """
    with warnings.catch_warnings(action="ignore"):
        for seed in seeds:
            for name, objective in OBJECTIVES.items():
                for window in windows:
                    used = time.process_time()
                    reached = best_values(objective, seed, marks, window)
                    yield {
                        "objective": name,
                        "seed": seed,
                        "window": window,
                        "trials": list(marks),
                        "best": [best for best, _ in reached],
                        "last": [last for _, last in reached],
                        "cpu_s": time.process_time() - used,
                    }  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: the best values of all seeds by objective, number of trials and window."""
    lines = ["| objective, made low | trials | window | best, by seed | their mean | last 100 |"]
    lines.append("|---" * 6 + "|")
    for objective in OBJECTIVES:
        these = [row for row in rows if row["objective"] == objective]
        for at, trials in enumerate(these[0]["trials"] if these else ()):
            for window in dict.fromkeys(row["window"] for row in these):
                own = [row for row in these if row["window"] == window]
                best = [row["best"][at] for row in own]
                lines.append(
                    f"| {objective} | {trials} | {window or 'all'} | {', '.join(f'{b:.4f}' for b in best)} "
                    f"| {mean(best):.4f} | {mean(row['last'][at] for row in own):.3f} |"
                )
    return lines


def main() -> None:
    """Measure windows beside each other; a line of JSON a row to standard output, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", default=f"{WINDOW},all", help="sizes, and `all`")
    parser.add_argument("--seeds", default="0,1,2,3")
    parser.add_argument("--trials", default="500,1000,1500", help="after which the best value is looked at")
    given = parser.parse_args()
    windows = [None if word == "all" else int(word) for word in given.windows.split(",")]
    marks, seeds = (list(map(int, words.split(","))) for words in (given.trials, given.seeds))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for row in quality(marks, seeds, windows):
        rows.append(row)
        print(json.dumps(row), flush=True)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
