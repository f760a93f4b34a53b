"""The end of a run: score components to metrics, pictures, report and summary."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.images import file_digest, read_masks
from nfbmr.data.notices import notices
from nfbmr.data.pictures import picture_of
from nfbmr.data.samples import Dataset, Sample, Split, digest_of
from nfbmr.devices import device_of, gpu_memory
from nfbmr.environment import environment
from nfbmr.errors import ImageError
from nfbmr.evaluation.evaluation import Scores, evaluate
from nfbmr.evaluation.false_rejects import (
    note_on_false_rejects,
    note_on_missed,
    note_on_outlier,
    note_on_threshold,
)
from nfbmr.evaluation.intervals import Estimate
from nfbmr.evaluation.report import write_report
from nfbmr.evaluation.summary import Candidate, DatasetFacts, GpuMemory, RunSummary, SelectionFacts
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths, write_json
from nfbmr.results import ScoredImages, kinds_of, side_counts, weights_of, write_maps, write_scores
from nfbmr.run_figures import Drawn, HeatMaps, Scene, draw_curves, draw_heatmaps
from nfbmr.scoring.fusion import Scorer, reduction_name
from nfbmr.scoring.ranking import auroc_influence
from nfbmr.scoring.selection import Selection
from nfbmr.scoring.thresholds import colours_of, realised_rates

log = logging.getLogger(__name__)

_SCALE = "anomaly map: from the 0.9 quantile of good validation parts to three times as far as their highest"
_KEPT_BYTES = 256_000_000


@dataclass(frozen=True)
class RunContext:
    """What a summary says besides numbers.

    Attributes:
        run_id: The run's name.
        dataset: Name, layout, source folder, digest and counts.
        split: Name, seed and digest of the split, whether it keeps groups together, and how many known
            defects of each kind choose.
        leak: What the audit found, in a sentence; None where it found nothing.
        doubt: What the audit is not sure of, in a sentence; None where it is sure.
        history: Metrics by stage, an epoch a row.
        epochs: The epoch kept, by stage.
        reused: Whether it came from the store, by stage.
        saved: Seconds of training that were not needed for that, by stage.
        unreadable: What was wrong with test images that could not be scored, by name.
    """

    run_id: str
    dataset: DatasetFacts
    split: Mapping[str, Any]
    leak: str | None = None
    doubt: str | None = None
    history: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    reused: Mapping[str, bool] = field(default_factory=dict)
    saved: Mapping[str, float] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)


def content_digests(samples: Iterable[Sample]) -> dict[str, str]:
    """A fingerprint of every image's bytes by its name; what was wrong, for one that cannot be read."""

    def digest_of(sample: Sample) -> str:
        try:
            return file_digest(sample.path)
        except ImageError as error:
            return error.what

    return {sample.name: digest_of(sample) for sample in samples}


def learned_digests(split: Mapping[str, Any], contents: Mapping[str, str]) -> frozenset[str]:
    """Fingerprints of all images that a model was trained or chosen with, known defects among them.

    Args:
        split: Names by side, as a run's ``split.json`` has them.
        contents: Contents of :func:`content_digests`; names that it lacks are left out.
    """
    names = (name for side in ("train", "validation", "known") for name in split.get(side, ()))
    return frozenset(contents[name] for name in names if name in contents)


def content_digest(dataset: Dataset, contents: Mapping[str, str]) -> str:
    """A fingerprint of every image's name, kind and bytes: an edited image is another data set."""
    return digest_of(f"{s.name}:{s.defect}:{contents[s.name]}" for s in dataset.samples)


def dataset_facts(dataset: Dataset, split: Split, digest: str) -> DatasetFacts:
    """What a summary says of a data set."""
    sides = {"train": split.train, "validation": split.held_out, "test": split.test}
    return DatasetFacts(
        name=dataset.name,
        layout=dataset.layout,
        source=str(dataset.root),
        digest=digest,
        counts={side: side_counts(samples) for side, samples in sides.items()},
        notices=tuple(notices(dataset)),
    )


def split_facts(split: Split) -> dict[str, Any]:
    """What a summary says of a split."""
    return {
        "name": split.name,
        "seed": split.seed,
        "digest": split.digest,
        "grouped": split.grouped,
        "known_defects": kinds_of(split.known),
    }


def summarise(
    paths: RunPaths,
    detector: Detector,
    selection: Selection,
    validation: ScoredImages,
    context: RunContext,
    timings: Mapping[str, float],
) -> RunSummary:
    """What there is to say of a run before its test set is read."""
    config, scorer = detector.config, selection.scorer
    write_json(paths.history, context.history)
    write_json(paths.influence, influence_of(validation, scorer))
    estimates = _measure(validation, selection, context, detector)
    with_pixels = detector.networks.has_pixel_maps
    units = validation.good.units
    parts = len(set(units)) if context.split["grouped"] else len(units)
    stated, peeked = config.selection.false_reject_rate, config.selection.on == "test"
    expected = realised_rates(parts, stated) if parts and not peeked else None
    notes = note_on_threshold(parts, stated, expected) if expected else []
    if expected:
        good_N = scorer.score(validation.good.maps_NPHW).tolist()
        notes += [*note_on_outlier(units, good_N), *note_on_missed(estimates)]
    memory = gpu_memory(device_of(config.train.device))
    return RunSummary(
        run_id=context.run_id,
        run_dir=str(paths.root),
        method=config.method,
        dataset=context.dataset,
        split=context.split["name"],
        split_digest=context.split["digest"],
        seed=config.seed,
        test_peeked=peeked,
        known_defects=dict(context.split["known_defects"]),
        metrics={"validation": dict(estimates)},
        notes=tuple(notes),
        threshold=scorer.threshold,
        pixel_threshold=scorer.pixel_threshold if with_pixels else None,
        selection=SelectionFacts(
            on=config.selection.on,
            auroc=selection.auroc,
            parts=tuple(scorer.components),
            weights=tuple(scorer.weights),
            normalise="none" if config.scoring.weights == "paper" else config.scoring.normalise,
            reduction=reduction_name(scorer),
            levels=tuple(level.as_json() for level in scorer.levels),
            false_reject_rate=stated,
            false_reject_interval=expected,
            pixel_false_reject_rate=config.selection.pixel_false_reject_rate if with_pixels else None,
            epochs=dict(context.epochs),
            candidates=tuple(Candidate(**candidate) for candidate in selection.candidates[:8]),
        ),
        reused=dict(context.reused),
        saved_seconds=dict(context.saved),
        parameters=detector.parameters(),
        timings={phase: round(seconds, 3) for phase, seconds in timings.items()},
        gpu_memory=None if memory is None else GpuMemory(**memory),
        config=config.model_dump(mode="json"),
        environment=environment(),
    )


def finalize_run(
    paths: RunPaths,
    detector: Detector,
    selection: Selection,
    validation: ScoredImages,
    test: ScoredImages,
    context: RunContext,
    *,
    timings: Mapping[str, float],
) -> RunSummary:
    """Measure, draw, report; the summary is written last, so its presence means that the run is whole.

    Returns:
        The summary.
    """
    known = summarise(paths, detector, selection, validation, context, timings)
    return report_test(paths, detector, selection, validation, test, context, known)


def report_test(
    paths: RunPaths,
    detector: Detector,
    selection: Selection,
    validation: ScoredImages | None,
    test: ScoredImages,
    context: RunContext,
    known: RunSummary,
) -> RunSummary:
    """Measure test images, draw and report; the summary is written last.

    Args:
        paths: Where everything is written.
        detector: The model.
        selection: What was chosen.
        validation: The images that chose; None where they are not at hand: nothing of them is written then.
        test: The images.
        context: What there is to say of them.
        known: What there was to say before.
    """
    scorer = selection.scorer
    sets = (test,) if validation is None else (validation, test)
    write_maps(paths.maps, sets)
    write_scores(paths.scores, sets, scorer, test_peeked=known.test_peeked)
    masks = Masks(test)
    estimates = _measure(test, selection, context, detector, masks)
    drawn, regions = _draw(paths, detector, selection, validation, test, masks, estimates, context)
    scores = scores_of(test, selection, grouped=bool(context.split["grouped"]))
    without_test = {side: metrics for side, metrics in known.metrics.items() if side != "test"}
    summary = known.model_copy(
        update={
            "leak": context.leak,
            "doubt": context.doubt,
            "metrics": {"test": dict(estimates), **without_test},
            "kinds": scores.counts(),
            "notes": (
                *([context.doubt] if context.doubt else []),
                *scores.notes(),
                *note_on_false_rejects(estimates, known.selection),
                *known.notes,
            ),
            "unreadable": dict(context.unreadable),
            "report": str(paths.report),
            "pictures": str(paths.pictures),
        }
    )
    write_report(summary, drawn, paths.report, regions)
    summary.write(paths.summary)
    return summary


def influence_of(validation: ScoredImages, scorer: Scorer) -> dict[str, float]:
    """What each part photographed adds to ``validation/image_auroc``, by its name; empty without one class.

    Two runs on the same parts are told apart by it (:func:`nfbmr.scoring.ranking.difference_error`).
    """
    good, defective = validation.good, validation.defective
    if not good.units or not defective.units:
        return {}
    good_N, defective_M = scorer.score(good.maps_NPHW), scorer.score(defective.maps_NPHW)
    influence_U = auroc_influence(good_N, defective_M, good.units, defective.units, defective.weights)
    units = sorted({*good.units, *defective.units})
    return dict(zip(units, influence_U.tolist(), strict=True))


def _measure(
    images: ScoredImages,
    selection: Selection,
    context: RunContext,
    detector: Detector,
    masks: Masks | None = None,
) -> dict[str, Estimate]:
    config = detector.config
    with_pixels = masks is not None and detector.networks.has_pixel_maps
    return evaluate(
        scores_of(images, selection, grouped=bool(context.split["grouped"])),
        selection.scorer.threshold,
        config.evaluation,
        config.seed,
        maps_NHW=selection.scorer.fuse(images.maps_NPHW).numpy() if with_pixels else None,
        masks=masks if with_pixels else None,
        pixel_threshold=selection.scorer.pixel_threshold,
    )


def _draw(
    paths: RunPaths,
    detector: Detector,
    selection: Selection,
    validation: ScoredImages | None,
    test: ScoredImages,
    masks: Masks,
    estimates: Mapping[str, Estimate],
    context: RunContext,
) -> tuple[list[Drawn], list[dict[str, Any]]]:
    """All pictures, and the regions of the images that they show."""
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
            f"{config.method} on {context.dataset.name}, "
            f"split {context.split['name']}, seed {config.seed}{peeked}"
        ),
        typical=scorer.typical,
        depth=config.features.bits,
    )
    maps = (
        _fused(scorer, test, validation) if detector.networks.has_pixel_maps else _gradients(detector, test)
    )
    files, shown = [sample.path for sample in test.samples], config.evaluation.heatmaps
    drawn, regions = draw_heatmaps(scene, maps, files, masks, paths.pictures, count=shown)
    return draw_curves(scene, paths.pictures) + drawn, regions


def _fused(scorer: Scorer, test: ScoredImages, validation: ScoredImages | None) -> HeatMaps:
    """The anomaly maps, on one scale that good validation images begin."""
    maps_NHW = scorer.fuse(test.maps_NPHW).numpy()
    if validation is None:
        return HeatMaps(lambda i: maps_NHW[i], scorer.colours, _SCALE, scorer.pixel_limit)
    normal_NHW = scorer.fuse(validation.good.maps_NPHW)
    if not len(maps_NHW) or not len(normal_NHW):
        return HeatMaps(lambda i: maps_NHW[i], (0.0, 1.0), "")
    return HeatMaps(
        lambda i: maps_NHW[i],
        colours_of(normal_NHW),
        _SCALE,
        scorer.pixel_limit,
    )


def _gradients(detector: Detector, test: ScoredImages) -> HeatMaps:
    """Where each image's score comes from, computed for those that are drawn."""

    def gradient(i: int) -> NDArray[np.float32]:
        return detector.networks.saliency_map(picture_of(test.samples[i])).numpy()

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
        weights=weights_of(images.samples) if images.side == "validation" else None,
    )


class Masks:
    """Ground-truth masks by image number; one that cannot be read is reported once and left out.

    What was read is kept, a bit a pixel: metrics and pictures ask again and again.
    """

    def __init__(self, images: ScoredImages) -> None:
        self._paths = tuple(sample.masks for sample in images.samples)
        self._reported: set[int] = set()
        self._kept: dict[int, tuple[tuple[int, int], NDArray[np.uint8]]] = {}
        self._room = _KEPT_BYTES

    def __call__(self, index: int) -> NDArray[np.bool_] | None:
        """The mask of an image, (h, w); None where it has none."""
        paths = self._paths[index]
        if not paths:
            return None
        if index in self._kept:
            (height, width), bits = self._kept[index]
            return np.unpackbits(bits, count=height * width).reshape(height, width).astype(np.bool_)
        try:
            mask = read_masks(paths)
        except ImageError as error:
            if index not in self._reported:
                log.warning("mask left out: %s", error)
            self._reported.add(index)
            return None
        bits = np.packbits(mask)
        if bits.nbytes <= self._room:
            self._room -= bits.nbytes
            self._kept[index] = ((mask.shape[0], mask.shape[1]), bits)
        return mask
