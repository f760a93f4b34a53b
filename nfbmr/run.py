"""A run, top to bottom like the paper: data -> features -> flow -> mapping -> scores -> tracker."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from nfbmr.conclude import (
    Context,
    conclude,
    content_digest,
    content_digests,
    dataset_facts,
    split_facts,
    summarise,
)
from nfbmr.config import Config
from nfbmr.data.audit import audit_split
from nfbmr.data.pictures import Picture, picture_of
from nfbmr.data.samples import Dataset, Sample, Split
from nfbmr.environment import environment
from nfbmr.errors import ConfigError, ImageError, Interrupted, NfbmrError, Pruned
from nfbmr.features.extraction import extract
from nfbmr.features.store import FeatureStore, open_store
from nfbmr.features.table import ViewedFeatures
from nfbmr.methods.detector import Detector, build
from nfbmr.methods.fitting import Fitting, OnEpoch, choose_scorer, embeddings_of, latents, maps_of
from nfbmr.paths import RunPaths, read_json, write_json, write_text
from nfbmr.preparation import arranged, read_data, training_data
from nfbmr.recording import Recorder
from nfbmr.resolve import dump_yaml, load_config
from nfbmr.results import ScoredImages
from nfbmr.scoring.fusion import Selection
from nfbmr.tracking import FolderTracker, NoTracker, Status, Tracker
from nfbmr.training.compute import limit_threads
from nfbmr.training.stopping import StopRequest
from nfbmr.training.workers import ALONE, Workers

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


def new_run(config: Config, *, run_id: str | None = None, folder: Path | None = None) -> Run:
    """Make a run's folder, and write down what is to be run.

    Args:
        config: What to run.
        run_id: The run's name; by default the time, the method and four random letters.
        folder: The run's own; by default ``<output>/<run_id>``.
    """
    if run_id is None:
        run_id = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{config.method}-{uuid.uuid4().hex[:4]}"
    paths = RunPaths(folder or config.output / run_id)
    write_json(paths.identity, {"run_id": run_id})
    # Written last: a folder with a configuration is a run.
    write_text(paths.config, dump_yaml(config))
    return Run(run_id, paths, config)


def open_run(folder: Path) -> Run:
    """Open the folder of a run, finished or not.

    Raises:
        ConfigError: `folder` is no run's.
    """
    paths = RunPaths(folder)
    if not paths.config.exists():
        raise ConfigError("not the folder of a run", where=folder, fix="give a folder that holds config.yaml")
    return Run(read_json(paths.identity)["run_id"], paths, load_config(paths.config))


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
    run = new_run(config) if resume is None else open_run(resume)
    with StopRequest() as stop:
        return carry_out(run, tracking, stop)


def carry_out(
    run: Run,
    tracking: Callable[[Run], Tracker],
    stop: StopRequest,
    *,
    test: bool = True,
    on_epoch: OnEpoch | None = None,
    workers: Workers = ALONE,
) -> dict[str, Any]:
    """Do a run, or what is left of it.

    Args:
        run: Which; a finished one is only read.
        tracking: Makes the run's tracker.
        stop: Asks it to checkpoint and stop.
        test: False ends before the test set is read, as a sweep's trials do; the run can be gone on with.
        on_epoch: Told of each epoch of both stages, also of a flow that the store had. :class:`Pruned` ends
            the run early.
        workers: The processes that share the work, all of which call this. Rank 0 alone writes the run's
            folder and opens a tracker; of several checkpoints, flows and features nothing says how many
            workers made them.

    Returns:
        The run's summary; without `test` it has validation metrics alone.
    """
    limit_threads()
    with workers.together():
        summary = workers.from_first(lambda: finished(run, test))
        if summary is not None:
            log.info("run %s is finished already", run.run_id)
            return summary
        return _recorded(run, tracking, stop, test, on_epoch, workers)


def finished(run: Run, test: bool = True) -> dict[str, Any] | None:
    """The summary of a run of which nothing is left to do, else None."""
    for summary in (run.paths.summary, *(() if test else (run.paths.fitted,))):
        if summary.exists():
            return dict(read_json(summary))
    return None


def _recorded(
    run: Run,
    tracking: Callable[[Run], Tracker],
    stop: StopRequest,
    test: bool,
    on_epoch: OnEpoch | None,
    workers: Workers,
) -> dict[str, Any]:
    """Do it, with its tracker told of the beginning, the course and the end."""
    tracker = tracking(run) if workers.rank == 0 else NoTracker()
    status: Status = "failed"
    try:
        recorder, clock = Recorder(run.paths, run.config, tracker), Clock()
        trained = fit(run, recorder, clock, stop, on_epoch, workers)
        summary = (
            evaluate_on_test(run, trained, clock, stop, workers)
            if test
            else workers.from_first(lambda: fitted_summary(run, trained, clock))
        )
        recorder.end(summary)
        status = "finished"
    except Pruned:
        status = "pruned"
        raise
    except (Interrupted, KeyboardInterrupt) as stopped:
        status = "killed"
        raise Interrupted(
            "what is done is kept",
            where=run.paths.root,
            fix=f"go on with: nfbmr train --resume {run.paths.root}",
        ) from stopped
    except NfbmrError:
        raise
    except Exception:
        if workers.count > 1:
            # As a rule a lost peer; whoever started the workers starts them again, or says that it failed.
            status = "killed"
        raise
    finally:
        tracker.finish(status)
    return summary


@dataclass(frozen=True)
class Trained:
    """A run after every choice is made, and before the test set is read; `key` is its first stage's."""

    detector: Detector
    selection: Selection
    validation: ScoredImages
    split: Split
    key: str
    store: FeatureStore
    context: Context


def fit(
    run: Run,
    recorder: Recorder,
    clock: Clock,
    stop: StopRequest,
    on_epoch: OnEpoch | None = None,
    workers: Workers = ALONE,
) -> Trained:
    """Features, both stages, and every choice; the test set is not read."""
    config = run.config
    store = open_store(config.store)  # refused before anything is read
    dataset, split = workers.from_first(lambda: read_data(config))
    digest = workers.from_first(lambda: begin(run, recorder, dataset, split))

    def told(stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        recorder.epoch(stage, epoch, metrics)
        if on_epoch is not None:
            on_epoch(stage, epoch, metrics)

    with clock("features"):
        data, features, weights_digest = training_data(config, split, store, stop, workers)
    config = config.model_copy(update={"features": features})
    detector = build(config, data.train.features.shapes, weights_digest)

    fitted = {}
    fitting = Fitting(detector, data, store, run.paths.checkpoints, stop=stop, on_epoch=told, workers=workers)
    for stage in detector.networks.stages:
        with clock(stage.name):
            fitted[stage.name] = fitting.fit(stage)

    with clock("selection"):
        validation = score_validation(fitting)
        judge = detector.networks.stages[-1]
        selection = workers.from_first(
            lambda: choose_scorer(config, judge, validation.good, validation.defective)
        )
        detector = detector.with_scorer(selection.scorer)
        if workers.rank == 0:
            detector.save(run.paths.model)
    context = Context(
        run_id=run.run_id,
        dataset=dataset_facts(dataset, split, digest),
        split=split_facts(split),
        history={name: list(fit.history) for name, fit in fitted.items()},
        epochs={name: fit.epoch for name, fit in fitted.items() if fit.epoch},
        reused={stage.name: fitted[stage.name].reused for stage in detector.networks.stages if stage.shared},
        saved={name: fit.seconds for name, fit in fitted.items() if fit.reused},
    )
    return Trained(detector, selection, validation, split, fitting.key, store, context)


def begin(run: Run, recorder: Recorder, dataset: Dataset, split: Split) -> str:
    """Write down and record what the run sees; the digest of the data set's contents."""
    write_json(run.paths.split, split.as_json())
    write_json(run.paths.environment, environment())
    contents = content_digests(dataset)
    write_json(run.paths.contents, contents)
    digest = content_digest(dataset, contents)
    recorder.begin(dataset, split, digest)
    return digest


def fitted_summary(run: Run, trained: Trained, clock: Clock) -> dict[str, Any]:
    """The summary of a run that stops before the test set."""
    summary = summarise(
        run.paths, trained.detector, trained.selection, trained.validation, trained.context, clock.seconds
    )
    write_json(run.paths.fitted, summary)
    return summary


def evaluate_on_test(
    run: Run, trained: Trained, clock: Clock, stop: StopRequest, workers: Workers = ALONE
) -> dict[str, Any]:
    """Score the test set, once; measure, draw and report."""
    with clock("test"):
        test, unreadable = score_test(trained, stop, workers)
    return workers.from_first(lambda: measure_and_report(run, trained, clock, test, unreadable))


def measure_and_report(
    run: Run, trained: Trained, clock: Clock, test: ScoredImages, unreadable: Mapping[str, str]
) -> dict[str, Any]:
    """From score parts of the test images to the run's summary."""
    with clock("audit"):
        leak = audit_split(trained.split).finding
        if leak is not None:
            log.warning("%s", leak)
    context = replace(trained.context, leak=leak, unreadable=unreadable)
    with clock("report"):
        return conclude(
            run.paths,
            trained.detector,
            trained.selection,
            trained.validation,
            test,
            context,
            timings=clock.seconds,
        )


def score_validation(fitting: Fitting) -> ScoredImages:
    """Score parts of the validation images and their synthetic defects."""
    data, z = fitting.data, fitting.latents
    maps_NPHW = torch.cat(
        [
            maps_of(fitting.detector, data.good, None if z is None else z.good, fitting.workers),
            maps_of(fitting.detector, data.defective, None if z is None else z.defective, fitting.workers),
        ]
    )
    return ScoredImages("validation", (*data.good_samples, *data.defective_samples), maps_NPHW)


def score_test(
    trained: Trained, stop: StopRequest, workers: Workers = ALONE
) -> tuple[ScoredImages, dict[str, str]]:
    """Score parts of the test images: the one place where a run reads them.

    Returns:
        The images that could be read, and what was wrong with the others by name.
    """
    detector, config = trained.detector, trained.detector.config
    turns = config.features.test_rotations
    pictures: list[Picture] = []
    readable: list[Sample] = []
    failed: dict[str, str] = {}
    for sample in trained.split.test:
        try:
            pictures += picture_of(sample).turned(turns)
            readable.append(sample)
        except ImageError as error:
            failed[sample.name] = error.what
    extraction = extract(
        pictures,
        config.features,
        trained.store,
        device=str(detector.device),
        on_error="skip",
        stop=lambda: stop.requested,
        workers=workers,
    )
    failed |= {readable[i // turns].name: error.what for i, error in extraction.failed.items()}
    samples = tuple(sample for sample in readable if sample.name not in failed)
    seen = ViewedFeatures.of(arranged(config, extraction), turns)
    z = (
        latents(detector, seen, trained.key, trained.store, workers)
        if detector.networks.keeps_latents
        else None
    )
    spaces = embeddings_of(detector, seen, z, workers)
    return ScoredImages("test", samples, maps_of(detector, seen, z, workers), spaces), failed


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
