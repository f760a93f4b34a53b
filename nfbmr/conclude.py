"""The end of a run: score parts to metrics, pictures, report and summary."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.images import file_digest, read_mask
from nfbmr.data.pictures import picture_of
from nfbmr.data.samples import Dataset, Sample, Split, digest_of
from nfbmr.environment import environment
from nfbmr.errors import ImageError
from nfbmr.evaluation.evaluation import Scores, evaluate
from nfbmr.evaluation.intervals import Estimate
from nfbmr.evaluation.report import write_report
from nfbmr.illustrate import Drawn, HeatMaps, Scene, draw_curves, draw_heatmaps
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths, write_json
from nfbmr.results import ScoredImages, side_counts, write_maps, write_scores
from nfbmr.scoring.fusion import Scorer, Selection, colours_of, reduction_name
from nfbmr.training.compute import device_of, gpu_memory
from nfbmr.wording import count

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What a summary says besides numbers.

    Attributes:
        run_id: The run's name.
        dataset: Name, layout, source folder, digest and counts.
        split: Name, seed and digest of the split, and whether it keeps groups together.
        leak: What the audit found, in a sentence; None where it found nothing.
        history: Metrics by stage, an epoch a row.
        epochs: The epoch kept, by stage.
        reused: Whether the flow came from the store.
        saved: Seconds of training that were not needed for that, by stage.
        unreadable: What was wrong with test images that could not be scored, by name.
    """

    run_id: str
    dataset: Mapping[str, Any]
    split: Mapping[str, Any]
    leak: str | None = None
    history: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    reused: Mapping[str, bool] = field(default_factory=dict)
    saved: Mapping[str, float] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)


def content_digests(dataset: Dataset) -> dict[str, str]:
    """A fingerprint of every image's bytes by its name; what was wrong, for one that cannot be read."""

    def one(sample: Sample) -> str:
        try:
            return file_digest(sample.path)
        except ImageError as error:
            return error.what

    return {sample.name: one(sample) for sample in dataset.samples}


def content_digest(dataset: Dataset, contents: Mapping[str, str]) -> str:
    """A fingerprint of every image's name, kind and bytes: an edited image is another data set."""
    return digest_of(f"{s.name}:{s.defect}:{contents[s.name]}" for s in dataset.samples)


def dataset_facts(dataset: Dataset, split: Split, digest: str) -> dict[str, Any]:
    """What a summary says of a data set."""
    sides = {"train": split.train, "validation": split.validation, "test": split.test}
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "source": str(dataset.root),
        "digest": digest,
        "counts": {side: side_counts(samples) for side, samples in sides.items()},
    }


def split_facts(split: Split) -> dict[str, Any]:
    """What a summary says of a split."""
    return {"name": split.name, "seed": split.seed, "digest": split.digest, "grouped": split.grouped}


def summarise(
    paths: RunPaths,
    detector: Detector,
    selection: Selection,
    validation: ScoredImages,
    context: Context,
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """What there is to say of a run before its test set is read."""
    config, scorer = detector.config, selection.scorer
    write_json(paths.history, context.history)
    estimates = _measure(validation, selection, context, detector)
    return {
        "run_id": context.run_id,
        "run_dir": str(paths.root),
        "method": config.method,
        "dataset": dict(context.dataset),
        "split": context.split["name"],
        "split_digest": context.split["digest"],
        "seed": config.seed,
        "test_peeked": config.selection.on == "test",
        "metrics": {"validation": {name: estimate.as_json() for name, estimate in estimates.items()}},
        "notes": _notes_on_threshold(validation, config.selection.false_reject_rate),
        "threshold": scorer.threshold,
        "selection": {
            "on": config.selection.on,
            "auroc": selection.auroc,
            "parts": list(scorer.parts),
            "weights": list(scorer.weights),
            "normalise": "none" if config.scoring.weights == "paper" else config.scoring.normalise,
            "reduction": reduction_name(scorer),
            "false_reject_rate": config.selection.false_reject_rate,
            "epochs": dict(context.epochs),
            "candidates": [dict(candidate) for candidate in selection.candidates[:8]],
        },
        "reused": dict(context.reused),
        "saved_seconds": dict(context.saved),
        "parameters": detector.parameters(),
        "timings": {phase: round(seconds, 3) for phase, seconds in timings.items()},
        "gpu_memory": gpu_memory(device_of(config.train.device)),
        "config": config.model_dump(mode="json"),
        "environment": environment(),
    }


def conclude(
    paths: RunPaths,
    detector: Detector,
    selection: Selection,
    validation: ScoredImages,
    test: ScoredImages,
    context: Context,
    *,
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """Measure, draw, report; the summary is written last, so its presence means that the run is whole.

    Returns:
        The summary, as ``--json`` prints it.
    """
    scorer = selection.scorer
    known = summarise(paths, detector, selection, validation, context, timings)
    write_maps(paths.maps, (validation, test))
    write_scores(paths.scores, (validation, test), scorer, test_peeked=known["test_peeked"])
    estimates = _measure(test, selection, context, detector)
    drawn = _draw(paths, detector, selection, validation, test, estimates, context)
    scores = scores_of(test, selection, grouped=bool(context.split["grouped"]))
    metrics = {"test": {name: estimate.as_json() for name, estimate in estimates.items()}}
    summary = known | {
        "leak": context.leak,
        "metrics": metrics | known["metrics"],
        "kinds": scores.counts(),
        "notes": [*scores.notes(), *known["notes"]],
        "unreadable": dict(context.unreadable),
        "report": str(paths.report),
        "pictures": str(paths.pictures),
    }
    write_report(summary, drawn, paths.report)
    write_json(paths.summary, summary)
    return summary


def _notes_on_threshold(validation: ScoredImages, rate: float) -> list[str]:
    """A word where too few good images set the threshold."""
    good = int((~validation.defective_N).sum())
    needed = math.ceil(1 / rate) - 1
    if good >= needed:
        return []
    return [
        f"The threshold comes from {count(good, 'good validation image')}; a false-reject rate of {rate:.0%} "
        f"needs {needed} at least. It is their highest score, and says little of new parts."
    ]


def _measure(
    images: ScoredImages, selection: Selection, context: Context, detector: Detector
) -> dict[str, Estimate]:
    config = detector.config
    with_pixels = images.side == "test" and detector.networks.localises
    return evaluate(
        scores_of(images, selection, grouped=bool(context.split["grouped"])),
        selection.scorer.threshold,
        config.evaluation,
        config.seed,
        maps_NHW=selection.scorer.fuse(images.maps_NPHW).numpy() if with_pixels else None,
        masks=Masks(images) if with_pixels else None,
    )


def _draw(
    paths: RunPaths,
    detector: Detector,
    selection: Selection,
    validation: ScoredImages,
    test: ScoredImages,
    estimates: Mapping[str, Estimate],
    context: Context,
) -> list[Drawn]:
    config, scorer = detector.config, selection.scorer
    peeked = ", test-peeked" if config.selection.on == "test" else ""
    scene = Scene(
        scores=scores_of(test, selection, grouped=bool(context.split["grouped"])),
        estimates=estimates,
        threshold=scorer.threshold,
        history=context.history,
        epochs=context.epochs,
        embeddings={space: values.numpy() for space, values in test.embeddings.items()},
        confidence=config.evaluation.confidence,
        seed=config.seed,
        caption=(
            f"{config.method} on {context.dataset['name']}, "
            f"split {context.split['name']}, seed {config.seed}{peeked}"
        ),
    )
    maps = _fused(scorer, test, validation) if detector.networks.localises else _gradients(detector, test)
    return draw_curves(scene, paths.pictures) + draw_heatmaps(
        scene,
        maps,
        [sample.path for sample in test.samples],
        Masks(test),
        paths.pictures,
        count=config.evaluation.heatmaps,
    )


def _fused(scorer: Scorer, test: ScoredImages, validation: ScoredImages) -> HeatMaps:
    """The anomaly maps, on one scale that good validation images begin."""
    maps_NHW = scorer.fuse(test.maps_NPHW).numpy()
    normal_NHW = scorer.fuse(validation.good.maps_NPHW)
    if not len(maps_NHW) or not len(normal_NHW):
        return HeatMaps(lambda i: maps_NHW[i], (0.0, 1.0), "")
    return HeatMaps(
        lambda i: maps_NHW[i],
        colours_of(normal_NHW),
        "anomaly map: from the 0.9 quantile of good validation parts to three times as far as their highest",
    )


def _gradients(detector: Detector, test: ScoredImages) -> HeatMaps:
    """Where each image's score comes from, computed for those that are drawn."""

    def gradient(i: int) -> NDArray[np.float32]:
        return detector.networks.localise(picture_of(test.samples[i])).numpy()

    return HeatMaps(
        gradient, (0.1, 1.0), "by how much each pixel moves the score, in shares of its own maximum"
    )


def scores_of(images: ScoredImages, selection: Selection, *, grouped: bool) -> Scores:
    """The images' scores, as the evaluation reads them."""
    return Scores(
        names=tuple(sample.name for sample in images.samples),
        defects=tuple(sample.defect for sample in images.samples),
        score=selection.scorer.score(images.maps_NPHW).numpy(),
        groups=tuple(sample.group for sample in images.samples) if grouped else None,
    )


class Masks:
    """Ground-truth masks by image number; one that cannot be read is reported once and left out."""

    def __init__(self, images: ScoredImages) -> None:
        self._paths: tuple[Path | None, ...] = tuple(sample.mask for sample in images.samples)
        self._told: set[int] = set()

    def __call__(self, index: int) -> NDArray[np.bool_] | None:
        """The mask of an image, (h, w); None where it has none."""
        path = self._paths[index]
        if path is None:
            return None
        try:
            return read_mask(path)
        except ImageError as error:
            if index not in self._told:
                log.warning("mask left out: %s", error)
            self._told.add(index)
            return None
