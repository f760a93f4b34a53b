"""A finished model on another labelled data set, with the full report: an external test.

The model is taken as it is; nothing is chosen, and the run's own results stay. What comes of it lies in a
folder of its own and says in every place which data set it is about.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nfbmr.config import Config
from nfbmr.data.contents import held
from nfbmr.data.layouts import load_dataset
from nfbmr.data.notices import notices
from nfbmr.data.samples import Dataset, Sample
from nfbmr.devices import device_of, limit_threads
from nfbmr.environment import environment
from nfbmr.errors import CheckpointError, DataError, OutputError
from nfbmr.evaluation.summary import DatasetFacts, RunSummary
from nfbmr.features.store import open_store
from nfbmr.finalize import RunContext, content_digest, content_digests, learned_digests, report_test
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths, read_json, write_json
from nfbmr.results import side_counts
from nfbmr.run import Clock
from nfbmr.score_samples import score_samples
from nfbmr.scoring.selection import Selection
from nfbmr.stopping import StopRequest
from nfbmr.text import count, visible

log = logging.getLogger(__name__)

SPLIT = "external"
"""What a summary calls the split of such a test: none of the images were there to be learned from."""


@dataclass(frozen=True)
class EvaluatedModel:
    """A model, and what is known of how it was made.

    Attributes:
        folder: Folder of networks and scorer.
        known: Folder of its summary, its split and its images' fingerprints.
        run: Whether that is the folder of a run here.
    """

    folder: Path
    known: Path
    run: bool

    @classmethod
    def of(cls, folder: Path) -> EvaluatedModel:
        """What a folder holds: a finished run, or a registered model as it was fetched.

        Raises:
            OutputError: It holds neither.
        """
        if RunPaths(folder).model.exists():
            model, known, run = RunPaths(folder).model, folder, True
        else:
            model, known, run = folder, folder.parent / "evidence", False
        if not RunPaths(known).summary.exists():
            raise OutputError(
                "neither a finished run nor a registered model",
                where=folder,
                fix="give the folder that nfbmr train has made, finished, or NAME, NAME@ALIAS, NAME/VERSION",
            )
        return cls(model, known, run)


@held()
def evaluate_elsewhere(
    model: Path,
    data: Path,
    *,
    layout: str = "auto",
    category: str | None = None,
    out: Path | None = None,
    store: Path | None = None,
    device: str = "auto",
) -> RunSummary:
    """Test a finished model on another labelled data set.

    Of a data set with sides the test side is scored, of any other all images.

    Args:
        model: A finished run's folder, or a registered model's as it was fetched.
        data: Folder, manifest or configuration, as ``data.path`` takes it.
        layout: Layout of the data set.
        category: Which one, where there are several.
        out: Folder for what comes of it; by default in ``evaluations/`` of the run, or here.
        store: Store of features; by default the run's, or that of the default configuration.
        device: As in the configuration.

    Returns:
        A summary whose test metrics, data set and report are of these images alone, and whose ``validation``
        metrics are those of the model's own run.

    Raises:
        OutputError: There is no finished run or registered model; or `out` is a run's own folder.
        DataError: The data set cannot be read, or none of its images.
        CheckpointError: The model is damaged, has no threshold, or other weights.
        Interrupted: Ctrl-C or SIGTERM; features are kept.
    """
    limit_threads()
    tested = EvaluatedModel.of(model)
    base = RunSummary.read(RunPaths(tested.known).summary)
    detector = Detector.load(tested.folder, device_of(device))
    if detector.scorer is None:
        raise CheckpointError("the model has no threshold yet", where=model, fix="finish the run first")
    place = store or (detector.config.store if tested.run else Config().store)
    dataset = load_dataset(data, layout=layout, category=category)
    for notice in notices(dataset):
        log.warning("%s: %s", dataset.name, notice)
    samples, clock = samples_of(dataset), Clock()
    contents = content_digests(samples)
    digest = content_digest(replace(dataset, samples=samples), contents)
    if out is None:  # in the run's folder; else here, where the model's own digest keeps versions apart
        name = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', dataset.name).strip('.-')[:60]}-{digest[:8]}"
        out = model / "evaluations" / name
        if not tested.run:
            out = Path("evaluations") / f"{name}-{detector.digest()[:8]}"
    paths = RunPaths(out)
    if paths.config.exists() or paths.model.exists():
        raise OutputError("a run lies here", where=paths.root, fix="choose another folder with --out")
    with StopRequest() as stop, clock("test"):
        images, failed = score_samples(detector, samples, open_store(place), stop)
    if not images.samples:
        raise DataError("no image could be read", where=data, fix=next(iter(failed.values()), "check it"))
    write_json(paths.contents, contents)
    grouped = any(sample.group for sample in samples)
    context = RunContext(
        run_id=base.run_id,
        dataset=_facts(dataset, samples, digest),
        split={"name": SPLIT, "seed": base.seed, "digest": digest, "grouped": grouped, "known_defects": {}},
        leak=_leak(tested.known, contents),
        unreadable=failed,
    )
    known = _before(base, context, paths, clock, detector)
    selection = Selection(
        detector.scorer,
        math.nan if base.selection.auroc is None else base.selection.auroc,
        torch.zeros(0),
        torch.zeros(0),
        (),
    )
    return report_test(paths, detector, selection, None, images, context, known)


def samples_of(dataset: Dataset) -> tuple[Sample, ...]:
    """The images that are scored: the test side where there is one, else all."""
    return tuple(s for s in dataset.samples if s.subset == "test") or dataset.samples


def _facts(dataset: Dataset, samples: tuple[Sample, ...], digest: str) -> DatasetFacts:
    none = side_counts(())
    return DatasetFacts(
        name=dataset.name,
        layout=dataset.layout,
        source=str(dataset.root),
        digest=digest,
        counts={"train": none, "validation": none, "test": side_counts(samples)},
        notices=tuple(notices(dataset)),
    )


def _leak(known: Path, contents: Mapping[str, str]) -> str | None:
    """A sentence where images are among those that the model learned or was chosen from; None elsewhere."""
    paths = RunPaths(known)
    if not paths.contents.exists() or not paths.split.exists():
        return None
    seen = learned_digests(read_json(paths.split), read_json(paths.contents))
    same = sum(fingerprint in seen for fingerprint in contents.values())
    if not same:
        return None
    return (
        f"{same} of {count(len(contents), 'image')} are files that the model was trained or chosen with: "
        "the numbers are too good"
    )


def _before(
    base: RunSummary, context: RunContext, paths: RunPaths, clock: Clock, detector: Detector
) -> RunSummary:
    """The model's own summary, with all that came of its own test set replaced."""
    trained_on = f"{visible(base.dataset.name)} ({visible(base.dataset.source)})"
    note = (
        f"An external test: {visible(context.dataset.name)} ({visible(context.dataset.source)}). The model "
        f"was trained, and its threshold chosen, on {trained_on}; the validation column is of that data set."
    )
    metrics_but_test = {side: metrics for side, metrics in base.metrics.items() if side != "test"}
    return base.model_copy(
        update={
            "run_dir": str(paths.root),
            "dataset": context.dataset,
            "split": SPLIT,
            "split_digest": context.dataset.digest,
            "metrics": metrics_but_test,
            "notes": (note,),
            "timings": {phase: round(seconds, 3) for phase, seconds in clock.seconds.items()},
            "config": detector.config.model_dump(mode="json"),
            "environment": environment(),
            "saved_seconds": {},
            "gpu_memory": None,
        }
    )
