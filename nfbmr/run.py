"""A run, top to bottom like the paper: data -> features -> flow -> mapping -> scores -> tracker."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from nfbmr.conclude import Context, conclude, dataset_facts, split_facts
from nfbmr.config import Config, FeatureConfig
from nfbmr.data.audit import audit_split
from nfbmr.data.defects import synthetic_defects
from nfbmr.data.pictures import Picture, ViewOp, picture_of
from nfbmr.data.samples import Dataset, Sample, Split
from nfbmr.environment import environment
from nfbmr.errors import ConfigError, DataError, ImageError, Interrupted
from nfbmr.features.extraction import extract, weights_of
from nfbmr.features.store import FeatureStore
from nfbmr.features.table import FeatureTable, join
from nfbmr.methods.detector import Detector, build
from nfbmr.methods.fitting import (
    TrainingData,
    choose_scorer,
    embeddings_of,
    fit_flow,
    fit_mapping,
    latents,
    maps_of,
)
from nfbmr.paths import RunPaths, read_json, write_json, write_text
from nfbmr.resolve import dump_yaml, flat, load_config
from nfbmr.results import ScoredImages, side_counts, synthetic_sample
from nfbmr.tracking import FolderTracker, Status, Tracker
from nfbmr.training.compute import device_of, limit_threads
from nfbmr.training.stopping import StopRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run's identity and folder."""

    run_id: str
    paths: RunPaths
    config: Config


def journal_only(run: Run) -> Tracker:
    """The Python API's tracker: a journal in the run's folder, which ``nfbmr track sync`` can send."""
    return FolderTracker(run.paths.journal, run_id=run.run_id)


def open_run(config: Config, resume: Path | None = None) -> Run:
    """Make a new run's folder, or open one that was interrupted.

    Raises:
        ConfigError: `resume` is no run's folder.
    """
    if resume is not None:
        paths = RunPaths(resume)
        if not paths.config.exists():
            raise ConfigError(
                "not the folder of a run", where=resume, fix="give a folder that holds config.yaml"
            )
        return Run(read_json(paths.identity)["run_id"], paths, load_config(paths.config))
    run_id = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{config.method}-{uuid.uuid4().hex[:4]}"
    paths = RunPaths(config.output / run_id)
    write_json(paths.identity, {"run_id": run_id})
    write_text(paths.config, dump_yaml(config))
    return Run(run_id, paths, config)


def train(
    config: Config, *, resume: Path | None = None, tracking: Callable[[Run], Tracker] = journal_only
) -> dict[str, Any]:
    """Train and evaluate a method on a folder of images.

    Features and flows that the store holds are used again; the test set is read once, after every choice.

    Args:
        config: What to run; ignored where `resume` is given.
        resume: Folder of an interrupted run to go on with.
        tracking: Makes the run's tracker.

    Returns:
        The run's summary, as ``--json`` prints it.

    Raises:
        NfbmrError: What was wrong, where, and what to do; finished work is kept.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint is written.
    """
    limit_threads()
    run = open_run(config, resume)
    if run.paths.summary.exists():
        log.info("run %s is finished already", run.run_id)
        return dict(read_json(run.paths.summary))
    tracker = tracking(run)
    status: Status = "failed"
    try:
        with StopRequest() as stop:
            summary = _train(run, tracker, stop)
        status = "finished"
    except (Interrupted, KeyboardInterrupt) as stopped:
        status = "killed"
        raise Interrupted(
            "stopped; a checkpoint is written",
            where=run.paths.root,
            fix=f"go on with: nfbmr train --resume {run.paths.root}",
        ) from stopped
    finally:
        tracker.finish(status)
    return summary


def _train(run: Run, tracker: Tracker, stop: StopRequest) -> dict[str, Any]:
    config, clock = run.config, Clock()
    dataset, split = read_data(config)
    write_json(run.paths.split, split.as_json())
    write_json(run.paths.environment, environment())
    _describe(run, dataset, split, tracker)

    store = FeatureStore(config.store)
    with clock("features"):
        data, features, weights_digest = training_data(config, split, store, stop)
    config = config.model_copy(update={"features": features})
    detector = build(config, data.train.shape, weights_digest)
    device = device_of(config.train.device)
    detector.flow.to(device)

    def on_epoch(stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        if "objective" in metrics:
            log.info("stage %s, epoch %d: %s", stage, epoch, told(metrics))
        tracker.metrics({f"{stage}/{k}": v for k, v in metrics.items() if k != "epoch"}, step=epoch)

    fitted = {}
    with clock("flow"):
        flow_key, fitted["flow"] = fit_flow(detector, data, store, stop=stop, on_epoch=on_epoch)
    if detector.mapping is not None:
        detector.mapping.to(device)
        with clock("mapping"):
            folder = run.paths.checkpoints("mapping")
            fitted["mapping"] = fit_mapping(
                detector, data, flow_key, store, folder, stop=stop, on_epoch=on_epoch
            )

    with clock("selection"):
        validation = score_validation(detector, split, data, flow_key, store)
        selection = choose_scorer(detector, validation.good_NPHW, validation.defective_NPHW)
        detector = detector.with_scorer(selection.scorer)
        detector.save(run.paths.model)
    with clock("test"):
        test, unreadable = score_test(detector, split, flow_key, store)

    with clock("audit"):
        leak = audit_split(split).finding
        if leak is not None:
            log.warning("%s", leak)

    with clock("report"):
        context = Context(
            run_id=run.run_id,
            dataset=dataset_facts(dataset, split),
            split=split_facts(split),
            leak=leak,
            history={stage: list(fit.history) for stage, fit in fitted.items()},
            epochs={stage: fit.epoch for stage, fit in fitted.items()},
            reused={"flow": fitted["flow"].reused},
            unreadable=unreadable,
        )
        summary = conclude(run.paths, detector, selection, validation, test, context, timings=clock.seconds)
    _track(run, tracker, summary)
    return summary


def read_data(config: Config) -> tuple[Dataset, Split]:
    """The data set and its split; without a path, the synthetic demonstration set is made first."""
    from nfbmr.data.layouts import load_dataset
    from nfbmr.data.splits import make_split

    path, category = config.data.path, config.data.category
    if path is None:
        from nfbmr.data.synthesize import CLASSES, synthesize

        category = category or CLASSES[0]
        path = config.store.parent / "synthetic" / category
        log.info("no --data given: the synthetic demonstration set, %s", path)
        # Enough held-out good images (a fifth of 120) for a threshold at 5 %.
        synthesize(path, classes=(category,), train=120, test_good=50, test_defective=70)
    dataset = load_dataset(path, layout=config.data.layout, category=category, group_by=config.data.group_by)
    return dataset, make_split(dataset, config.data)


def training_data(
    config: Config, split: Split, store: FeatureStore, stop: StopRequest
) -> tuple[TrainingData, FeatureConfig, str]:
    """Extract what may be learned from: training images, their views, validation images, their defects.

    Returns:
        The stored features; how they were made, with nothing left to be measured, so that prediction does the
        same; the digest of the backbone's weights.

    Raises:
        ImageError: Images cannot be read; all of them are named, and the features of the others are kept.
    """
    bases = [picture_of(sample) for sample in split.train]
    views = [[base, *(base.then(ViewOp(view)) for view in config.features.views)] for base in bases]
    train = [picture for pictures in views for picture in pictures]
    good, defective = validation_pictures(config, split)
    everything = [*train, *good, *defective]
    device = str(device_of(config.train.device))
    extraction = extract(everything, config.features, store, device=device, stop=lambda: stop.requested)
    log.info("features: %d computed, %d from the store", extraction.computed, extraction.reused)
    table = join(extraction.tables)
    rows = torch.arange(len(train)).view(len(bases), -1)
    first, second = len(train), len(train) + len(good)
    return (
        TrainingData(
            train=table.part(range(first)),
            rows_NV=rows,
            good=table.part(range(first, second)),
            defective=table.part(range(second, len(everything))),
        ),
        config.features.model_copy(update={"compute": extraction.compute}),
        weights_of(extraction),
    )


def validation_pictures(config: Config, split: Split) -> tuple[list[Picture], list[Picture]]:
    """Pictures that choices are made on: never test images, unless `selection.on` says so."""
    if config.selection.on == "test":
        log.warning("selection.on = test: results are marked test-peeked and say nothing of new parts")
        good = [picture_of(sample) for sample in split.test if sample.is_good]
        return good, [picture_of(sample) for sample in split.test if not sample.is_good]
    defects = synthetic_defects(
        split.validation,
        kinds=config.selection.defects,
        per_image=config.selection.per_image,
        seed=config.seed,
    )
    return [picture_of(sample) for sample in split.validation], list(defects)


def score_validation(
    detector: Detector, split: Split, data: TrainingData, flow_key: str, store: FeatureStore
) -> ScoredImages:
    """Score parts of the validation images and their synthetic defects."""
    peeked = detector.config.selection.on == "test"
    samples = [s for s in split.test if s.is_good] if peeked else list(split.validation)
    if peeked:
        samples += [s for s in split.test if not s.is_good]
    else:
        repeats = len(data.defective) // max(1, len(split.validation))
        samples += [synthetic_sample(s) for s in split.validation for _ in range(repeats)]
    maps_NPHW = torch.cat(
        [maps_of(detector, y, latents(detector, y, flow_key, store)) for y in (data.good, data.defective)]
    )
    return ScoredImages("validation", tuple(samples), maps_NPHW)


def score_test(
    detector: Detector, split: Split, flow_key: str, store: FeatureStore
) -> tuple[ScoredImages, dict[str, str]]:
    """Score parts of the test images: the one place where a run reads them.

    Returns:
        The images that could be read, and what was wrong with the others by name.
    """
    pictures: list[Picture] = []
    readable: list[Sample] = []
    failed: dict[str, str] = {}
    for sample in split.test:
        try:
            pictures.append(picture_of(sample))
            readable.append(sample)
        except ImageError as error:
            failed[sample.name] = error.what
    config = detector.config
    device = str(device_of(config.train.device))
    extraction = extract(pictures, config.features, store, device=device, on_error="skip")
    failed |= {readable[i].name: error.what for i, error in extraction.failed.items()}
    samples = [sample for i, sample in enumerate(readable) if i not in extraction.failed]
    table: FeatureTable = join(extraction.tables)
    z = latents(detector, table, flow_key, store)
    spaces = embeddings_of(detector, table, z)
    return ScoredImages("test", tuple(samples), maps_of(detector, table, z), spaces), failed


@dataclass
class Clock:
    """Seconds by phase of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time a block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started


def told(metrics: Mapping[str, float]) -> str:
    """An epoch's losses, for people."""
    names = ("loss", "validation_loss", "validation_auroc")
    return ", ".join(f"{name.replace('_', ' ')} {metrics[name]:.4f}" for name in names if name in metrics)


def _describe(run: Run, dataset: Dataset, split: Split, tracker: Tracker) -> None:
    sides: dict[str, Sequence[Sample]] = {
        "train": split.train,
        "validation": split.validation,
        "test": split.test,
    }
    counts = {side: side_counts(samples) for side, samples in sides.items()}
    log.info("%s, split %s (seed %d): %s", dataset.name, split.name, split.seed, counts)
    if not split.test:
        raise DataError(
            "nothing to test on", where=dataset.root, fix="lower data.validation_fraction or add images"
        )
    peeked = run.config.selection.on == "test"
    tracker.params(flat(run.config))
    tracker.tags(
        {
            "nfbmr.method": run.config.method,
            "nfbmr.split": split.name,
            "nfbmr.split_digest": split.digest,
            "nfbmr.test_peeked": str(peeked).lower(),
        }
    )
    flat_counts = {
        f"{side}_{kind}": count for side, kinds in counts.items() for kind, count in kinds.items() if count
    }
    tracker.dataset(dataset.name, split.digest, split.name, str(dataset.root), flat_counts)
    for path in (run.paths.config, run.paths.split, run.paths.environment):
        tracker.artifact(path)


def _track(run: Run, tracker: Tracker, summary: dict[str, Any]) -> None:
    """Results, pictures and the model; losses went out as they were made."""
    numbers = {}
    for side, metrics in summary["metrics"].items():
        for name, estimate in metrics.items():
            for suffix, value in (
                ("", estimate["value"]),
                ("_low", estimate["low"]),
                ("_high", estimate["high"]),
            ):
                if value is not None:
                    numbers[f"{side}/{name}{suffix}"] = value
    numbers |= {f"seconds/{phase}": seconds for phase, seconds in summary["timings"].items()}
    tracker.metrics(numbers)
    tracker.artifact(run.paths.report)
    for picture in sorted(run.paths.pictures.glob("*.png")):
        tracker.artifact(picture, "pictures")
    for path in (run.paths.summary, run.paths.scores, run.paths.history):
        tracker.artifact(path)
    if run.config.tracking.log_model:
        tracker.model(run.paths.model)
