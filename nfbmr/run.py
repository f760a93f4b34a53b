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

import torch

from nfbmr.config import Config
from nfbmr.data.audit import audit_split
from nfbmr.data.contents import held
from nfbmr.data.near_duplicates import draw_matches
from nfbmr.data.samples import Dataset, Split
from nfbmr.devices import limit_threads
from nfbmr.environment import environment
from nfbmr.errors import ConfigError, Interrupted, NfbmrError, Pruned
from nfbmr.evaluation.summary import RunSummary
from nfbmr.features.store import FeatureStore, open_store
from nfbmr.finalize import (
    RunContext,
    content_digest,
    content_digests,
    dataset_facts,
    finalize_run,
    split_facts,
    summarise,
)
from nfbmr.methods.detector import Detector, build
from nfbmr.methods.fitting import Fitting, OnEpoch, choose_scorer
from nfbmr.methods.forward import maps_of
from nfbmr.paths import RunPaths, read_json, write_json, write_text
from nfbmr.prepare import read_data, training_data
from nfbmr.progress import working
from nfbmr.resolve import dump_yaml, load_config
from nfbmr.results import ScoredImages
from nfbmr.run_logger import RunLogger
from nfbmr.score_samples import score_samples
from nfbmr.scoring.selection import Selection
from nfbmr.stopping import StopRequest
from nfbmr.tracking import FolderTracker, NoTracker, Status, Tracker
from nfbmr.workers import SINGLE_PROCESS, ProcessGroup

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
) -> RunSummary:
    """Train and evaluate a method on a folder of images.

    Features and stages that the store holds are used again; the test set is read once, after every choice.

    Args:
        config: What to run; ignored where `resume` is given.
        resume: Folder of an interrupted run to go on with.
        tracking: Makes the run's tracker.

    Returns:
        The run's summary.

    Raises:
        NfbmrError: What was wrong, where, and what to do; finished work is kept.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint is written.
    """
    run = new_run(config) if resume is None else open_run(resume)
    with StopRequest() as stop:
        return execute_run(run, tracking, stop)


def execute_run(
    run: Run,
    tracking: Callable[[Run], Tracker],
    stop: StopRequest,
    *,
    test: bool = True,
    on_epoch: OnEpoch | None = None,
    workers: ProcessGroup = SINGLE_PROCESS,
) -> RunSummary:
    """Do a run, or what is left of it.

    Args:
        run: Which; a finished one is only read.
        tracking: Makes the run's tracker.
        stop: Asks it to checkpoint and stop.
        test: False ends before the test set is read, as a sweep's trials do; the run can be gone on with.
        on_epoch: Told of each epoch of both stages, also of one that the store had. :class:`Pruned` ends
            the run early.
        workers: The processes that share the work, all of which call this. Rank 0 alone writes the run's
            folder and opens a tracker; of several checkpoints, flows and features nothing says how many
            workers made them.

    Returns:
        The run's summary; without `test` it has validation metrics alone.
    """
    limit_threads()
    with held(), workers.propagate_errors():
        summary = workers.broadcast(lambda: finished(run, test))
        if summary is not None:
            log.info("run %s is finished already", run.run_id)
            return summary
        return _recorded(run, tracking, stop, test, on_epoch, workers)


def finished(run: Run, test: bool = True) -> RunSummary | None:
    """The summary of a run of which nothing is left to do, else None."""
    for summary in (run.paths.summary, *(() if test else (run.paths.fitted,))):
        if summary.exists():
            return RunSummary.read(summary)
    return None


def _recorded(
    run: Run,
    tracking: Callable[[Run], Tracker],
    stop: StopRequest,
    test: bool,
    on_epoch: OnEpoch | None,
    workers: ProcessGroup,
) -> RunSummary:
    """Do it, with its tracker told of the beginning, the course and the end."""
    tracker = tracking(run) if workers.rank == 0 else NoTracker()
    status: Status = "failed"
    try:
        recorder, clock = RunLogger(run.paths, run.config, tracker), Clock()
        trained = fit(run, recorder, clock, stop, on_epoch, workers, trial=not test)
        summary = (
            evaluate_on_test(run, trained, clock, stop, workers)
            if test
            else workers.broadcast(lambda: fitted_summary(run, trained, clock))
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
    context: RunContext


def fit(
    run: Run,
    recorder: RunLogger,
    clock: Clock,
    stop: StopRequest,
    on_epoch: OnEpoch | None = None,
    workers: ProcessGroup = SINGLE_PROCESS,
    *,
    trial: bool = False,
) -> Trained:
    """Features, both stages, and every choice; the test set is not read.

    Stages are taken from the store where it has them; of a `trial` the mapping stays in the run's folder.
    """
    config = run.config
    store = open_store(config.store)  # refused before anything is read
    with working("reading the data set"):
        dataset, split = workers.broadcast(lambda: read_data(config))
        digest = workers.broadcast(lambda: begin(run, recorder, dataset, split))

    def report_epoch(stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        recorder.epoch(stage, epoch, metrics)
        if on_epoch is not None:
            on_epoch(stage, epoch, metrics)

    with clock("features"), working("reading the images"):
        data, features, weights_digest = training_data(config, split, store, stop, workers)
    config = config.model_copy(update={"features": features})
    with working("making the networks"):
        detector = build(config, data.train.features.shapes, weights_digest)

    fitted = {}
    fitting = Fitting(
        detector,
        data,
        store,
        run.paths.checkpoints,
        stop=stop,
        on_epoch=report_epoch,
        workers=workers,
        trial=trial,
    )
    for stage in detector.networks.stages:
        with clock(stage.name), working(f"stage {stage.name}"):
            fitted[stage.name] = fitting.fit(stage)

    with clock("selection"), working("choosing score and threshold"):
        validation = score_validation(fitting, stop)
        judge = detector.networks
        selection = workers.broadcast(
            lambda: choose_scorer(config, judge, validation.good, validation.defective)
        )
        detector = detector.with_scorer(selection.scorer)
        if workers.rank == 0:
            detector.save(run.paths.model)
    context = RunContext(
        run_id=run.run_id,
        dataset=dataset_facts(dataset, split, digest),
        split=split_facts(split),
        history={name: list(fit.history) for name, fit in fitted.items()},
        epochs={name: fit.epoch for name, fit in fitted.items() if fit.epoch},
        reused={
            stage.name: fitted[stage.name].reused for stage in detector.networks.stages if stage.cacheable
        },
        saved={name: fit.seconds for name, fit in fitted.items() if fit.reused},
    )
    return Trained(detector, selection, validation, split, fitting.key, store, context)


def begin(run: Run, recorder: RunLogger, dataset: Dataset, split: Split) -> str:
    """Write down and record what the run sees; the digest of the data set's contents."""
    write_json(run.paths.split, split.as_json())
    write_json(run.paths.environment, environment())
    contents = content_digests({s.name: s for s in (*dataset.samples, *split.known)}.values())
    write_json(run.paths.contents, contents)
    digest = content_digest(dataset, contents)
    recorder.begin(dataset, split, digest)
    return digest


def fitted_summary(run: Run, trained: Trained, clock: Clock) -> RunSummary:
    """The summary of a run that stops before the test set."""
    summary = summarise(
        run.paths, trained.detector, trained.selection, trained.validation, trained.context, clock.seconds
    )
    summary.write(run.paths.fitted)
    return summary


def evaluate_on_test(
    run: Run, trained: Trained, clock: Clock, stop: StopRequest, workers: ProcessGroup = SINGLE_PROCESS
) -> RunSummary:
    """Score the test set, once; measure, draw and report."""
    with clock("test"), working("scoring the test images"):
        test, unreadable = score_test(trained, stop, workers)
        if workers.any_rank(stop.requested):  # what comes, the audit above all, takes its time
            raise Interrupted("stopped after the test images were scored", where=run.paths.root)
    return workers.broadcast(lambda: measure_and_report(run, trained, clock, test, unreadable))


def measure_and_report(
    run: Run, trained: Trained, clock: Clock, test: ScoredImages, unreadable: Mapping[str, str]
) -> RunSummary:
    """From score components of the test images to the run's summary."""
    with clock("audit"), working("looking for test images among the training images"):
        audit = audit_split(trained.split)
        for sentence in (audit.finding, audit.doubt):
            if sentence is not None:
                log.warning("%s", sentence)
        if audit.unsure:
            draw_matches(audit.unsure, run.paths.pictures / "audit-unsure.png")
    context = replace(trained.context, leak=audit.finding, doubt=audit.doubt, unreadable=unreadable)
    with clock("report"), working("measuring and drawing"):
        return finalize_run(
            run.paths,
            trained.detector,
            trained.selection,
            trained.validation,
            test,
            context,
            timings=clock.seconds,
        )


def score_validation(fitting: Fitting, stop: StopRequest | None = None) -> ScoredImages:
    """Score components of the validation images and their synthetic defects."""
    data, z = fitting.data, fitting.latents
    maps_NPHW = torch.cat(
        [
            maps_of(fitting.detector, side, z_side, fitting.workers, stop=stop)
            for side, z_side in (
                (data.good, None if z is None else z.good),
                (data.defective, None if z is None else z.defective),
            )
        ]
    )
    return ScoredImages("validation", (*data.good_samples, *data.defective_samples), maps_NPHW)


def score_test(
    trained: Trained, stop: StopRequest, workers: ProcessGroup = SINGLE_PROCESS
) -> tuple[ScoredImages, dict[str, str]]:
    """Score components of the test images: the one place where a run reads them.

    Returns:
        The images that could be read, and what was wrong with the others by name.
    """
    return score_samples(
        trained.detector, trained.split.test, trained.store, stop, key=trained.key, workers=workers
    )


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
