"""Who suggests trials and who is ended early: Optuna's study, samplers and pruner, as a plan asks."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from nfbmr.methods.registry import epochs_of
from tune.records.paths import SweepPaths
from tune.search.history import weights_of
from tune.search.plan import SweepPlan

if TYPE_CHECKING:
    import optuna

    from tune.search.storage import SweepStorage

log = logging.getLogger(__name__)

ETA = 3
"""Of the trials that reach a rung, one in so many goes on (successive halving's reduction factor)."""

POPULATION = 16
"""Of a generation of NSGA-II: small, as trials are dear."""

STARTUP = 10
"""Trials drawn at random before TPE and the Gaussian process use what they have seen."""

BLOCK = 1 << 16
"""Bytes of a journal that are read at once to find its last whole line."""


CANDIDATES = 24
"""Points that TPE draws around the good ones to take the best of, as Optuna does by default."""


def sampler_of(
    plan: SweepPlan, asked: int, crowd: float = 1.0, again: int = 0
) -> optuna.samplers.BaseSampler:
    """The sampler of a sweep for the trial after `asked` others.

    The sequence of QMC is one for the whole sweep; all others draw from a seed of their own each time.

    Args:
        plan: What was asked.
        asked: Trials so far.
        crowd: For how many trials each of those that TPE is shown stands; see :mod:`tune.search.history`.
        again: How often a point for this trial was suggested that is not wanted. Of TPE's candidates a
            quarter are looked at each time, as the best of 24 would be the same point again.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    drawn = [plan.config.seed, asked, again] if again else [plan.config.seed, asked]
    seed = int(np.random.SeedSequence(drawn).generate_state(1)[0])
    # Optuna's own default by the number of objectives, kept in spaces with conditions too: left open, `group`
    # would make the model of several objectives a joint one there, and nowhere else.
    joint = len(plan.objectives) == 1
    options: dict[str, Any] = {"seed": seed, "n_startup_trials": STARTUP, "constant_liar": True}
    if again:
        options["n_ei_candidates"] = max(1, CANDIDATES >> 2 * again)
    if crowd > 1.0:
        options["weights"] = weights_of(crowd)
    # Of `group`, which is experimental, and of `weights`, which Optuna wants to take away in its version 6.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)
        match plan.sampler:
            case "tpe" if joint and not plan.space.conditional:
                from tune.search.tpe import FlatTPESampler

                dimensions = {dimension.name: dimension.distribution() for dimension in plan.space.dimensions}
                return FlatTPESampler(dimensions, **options)
            case "tpe":
                return samplers.TPESampler(
                    multivariate=joint, group=joint and plan.space.conditional, **options
                )
            case "gp":
                return samplers.GPSampler(
                    seed=seed, n_startup_trials=STARTUP, warn_independent_sampling=False
                )
            case "nsga2":
                return samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "qmc":
                return samplers.QMCSampler(
                    seed=plan.config.seed,
                    scramble=True,
                    independent_sampler=samplers.RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                )


def base_epochs(plan: SweepPlan) -> int:
    """Epochs that trials are compared over: those of the base configuration.

    A method that only measures has none; trials of others are then compared at a ninth, a third and all of
    their own.
    """
    return epochs_of(plan.config) or ETA**3


def scaled_step(step: int, epochs: int, base: int) -> int:
    """A trial's step on the scale of the base configuration.

    Example:
        >>> [scaled_step(step, 60, 30) for step in (1, 2, 3, 60)]
        [1, 1, 2, 30]
    """
    return math.ceil(step * base / max(epochs, 1))


def open_study(paths: SweepPaths, plan: SweepPlan) -> tuple[optuna.Study, SweepStorage]:
    """The study in the sweep's folder, and what stores it.

    What a killed driver left of a write is cleared away.

    Args:
        paths: Paths of the sweep; the caller holds its lock.
        plan: What was asked.
    """
    import optuna

    from tune.search.pruning import WithinMethod
    from tune.search.storage import SweepStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    paths.root.mkdir(parents=True, exist_ok=True)
    _mend(paths)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if plan.prune and len(plan.objectives) == 1:
        pruner = WithinMethod(
            optuna.pruners.SuccessiveHalvingPruner(
                min_resource=max(1, round(base_epochs(plan) / ETA**2)), reduction_factor=ETA
            )
        )
    storage = SweepStorage(paths.study)
    study = optuna.create_study(
        study_name=plan.name,
        storage=storage,
        directions=["maximize" if goal.maximise else "minimize" for goal in plan.goals],
        pruner=pruner,
        sampler=sampler_of(plan, 0),
        load_if_exists=True,
    )
    return study, storage


def _mend(paths: SweepPaths) -> None:
    """Remove the lock and the half-written last line of a driver that was killed while it wrote.

    Only the holder of the sweep's own lock may do so.
    """
    journal = paths.study
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError), journal.open("r+b") as file:
        end = whole = file.seek(0, os.SEEK_END)
        while whole:
            begin = max(0, whole - BLOCK)
            file.seek(begin)
            newline = file.read(whole - begin).rfind(b"\n")
            whole = begin + newline + 1
            if newline >= 0:
                break
        if whole < end:
            log.warning("the last entry of %s was cut short and is dropped", journal)
            file.truncate(whole)
