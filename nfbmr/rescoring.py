"""Evaluate a finished run again, with another fusion, without training or extracting anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nfbmr.config import ScoringConfig
from nfbmr.data.samples import digest_of
from nfbmr.errors import ConfigError, OutputError
from nfbmr.evaluation.summary import RunSummary
from nfbmr.finalize import RunContext, finalize_run
from nfbmr.methods.detector import Detector
from nfbmr.methods.fitting import choose_scorer
from nfbmr.paths import RunPaths, read_json
from nfbmr.results import read_sets


def evaluate(run: Path | str, scoring: ScoringConfig | None = None) -> RunSummary:
    """Fuse a run's kept score components anew, choose the threshold on validation data, and measure.

    Args:
        run: Folder of a finished run.
        scoring: The fusion; None for the run's own.

    Returns:
        The summary; its files lie in ``evaluations/`` of the run, whose own results stay.

    Raises:
        OutputError: The run is not finished or damaged.
        ConfigError: `scoring` pools errors otherwise than the run did.
    """
    paths = finished(Path(run))
    summary = RunSummary.read(paths.summary)
    detector = Detector.load(paths.model)
    pool = detector.config.scoring.pool
    if scoring is not None and scoring.pool != pool:
        raise ConfigError(
            f"the run's kept maps are of errors pooled by {pool:g}, and cannot be pooled otherwise",
            where=f"scoring.pool = {scoring.pool:g}",
            fix=f"leave it at {pool:g}, or train again with another",
        )
    config = detector.config.model_copy(update={"scoring": scoring or detector.config.scoring})
    detector = replace(detector, config=config)
    sets = {images.side: images for images in read_sets(paths.scores, paths.maps)}
    validation, test = sets["validation"], sets["test"]
    judge = detector.networks
    selection = choose_scorer(config, judge, validation.good, validation.defective)
    split = {**read_json(paths.split), "known_defects": summary.known_defects}
    context = RunContext(
        run_id=summary.run_id,
        dataset=summary.dataset,
        split=split,
        leak=summary.leak,
        doubt=summary.doubt,
        history=read_json(paths.history),
        epochs=summary.selection.epochs,
        reused=summary.reused,
        unreadable=summary.unreadable,
    )
    folder = RunPaths(paths.root / "evaluations" / digest_of([config.scoring.model_dump_json()])[:8])
    return finalize_run(folder, detector, selection, validation, test, context, timings=summary.timings)


def finished(run: Path) -> RunPaths:
    """The paths of a finished run.

    Raises:
        OutputError: There is no run, or it is not finished.
    """
    paths = RunPaths(run)
    if not paths.config.exists():
        raise OutputError("not the folder of a run", where=run, fix="give a folder that nfbmr train has made")
    if not paths.summary.exists():
        raise OutputError("the run is not finished", where=run, fix=f"go on with: nfbmr train --resume {run}")
    return paths


def parts_of(run: Path) -> tuple[str, ...]:
    """Names of the score components of a finished run's method."""
    return tuple(read_json(finished(run).model / "model.json")["parts"])


def parse_fusion(text: str, components: Sequence[str]) -> tuple[float, ...]:
    """Weights from ``source=1,target=1,norm=0.5``; components that are not named weigh nothing.

    Args:
        text: Names with weights.
        components: The names there are.

    Raises:
        ConfigError: A component does not exist or a weight is no number.

    Example:
        >>> parse_fusion("source=1,norm=0.5", ("source", "target", "norm"))
        (1.0, 0.0, 0.5)
    """
    weights = dict.fromkeys(components, 0.0)
    example = ",".join(f"{component}=1" for component in components)
    given = [item.strip().partition("=") for item in text.split(",")]
    if len({name for name, _, _ in given}) < len(given):
        raise ConfigError(
            "a score component is named twice", where=f"--fuse {text}", fix="name each component once"
        )
    for name, equals, value in given:
        if not equals:
            raise ConfigError("not PART=WEIGHT", where=f"--fuse {text}", fix=f"for example --fuse {example}")
        if name not in weights:
            raise ConfigError(
                "no such score component",
                where=f"--fuse {text}",
                fix=f"components are {', '.join(components)}",
            )
        try:
            weights[name] = float(value)
            if not 0 <= weights[name] <= 1e6:
                raise ValueError
        except ValueError:
            raise ConfigError(
                "a weight is no number from 0 to 1e6",
                where=f"--fuse {text}",
                fix=f"for example --fuse {example}",
            ) from None
    return tuple(weights.values())
