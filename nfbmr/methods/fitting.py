"""Fitting a method's stages on stored features, each flow once.

A trained flow is content-addressed: its key covers the features it saw, its configuration, how it was trained
and the seed. A run, a trial or an ablation row that differs only in its mapping finds it and trains nothing.
Two runs that want the same flow at once: one trains, the other waits for it.

All functions that are given `workers` are called by all of them, and give all the same.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfbmr.config import Config, ScoringConfig
from nfbmr.data.samples import Sample, digest_of, units_of
from nfbmr.errors import Interrupted, NfbmrError
from nfbmr.features.store import FeatureStore, SpaceSpec
from nfbmr.features.table import FeatureTable
from nfbmr.flows.flow import Flow
from nfbmr.methods.detector import Detector
from nfbmr.methods.table import method_named
from nfbmr.paths import read_json, write_json
from nfbmr.scoring.fusion import Selection, UnitMaps, auroc_error, select_scorer
from nfbmr.tensors import read_tensors, write_tensors
from nfbmr.training.batches import Batches
from nfbmr.training.compute import autocast, device_of
from nfbmr.training.loop import train_stage
from nfbmr.training.stages import FlowStage, MappingStage
from nfbmr.training.stopping import StopRequest
from nfbmr.training.workers import ALONE, Workers, concatenated, same_weights, share_of

log = logging.getLogger(__name__)

SELECTION_VERSION = 3
"""Raised when another epoch would be chosen from the same validation set: old flows are then not found."""

OnEpoch = Callable[[str, int, Mapping[str, float]], None]
"""Told of each epoch: the stage, the epoch (from 1) and its metrics."""


@dataclass(frozen=True)
class TrainingData:
    """Stored features of the images that may be learned from.

    Attributes:
        train: Features of the training images and their views.
        rows_NV: Rows of `train`, an image a line, a view a column; the first column is the image as it is.
        good: Features of the good validation images.
        defective: Features of their synthetic defects.
        good_samples: The images of `good`, row by row.
        defective_samples: The images of `defective`.
    """

    train: FeatureTable
    rows_NV: Tensor
    good: FeatureTable
    defective: FeatureTable
    good_samples: tuple[Sample, ...]
    defective_samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Fitted:
    """A stage's outcome: where its weights come from, and how it got there."""

    history: tuple[Mapping[str, float], ...]
    epoch: int
    reused: bool

    @property
    def seconds(self) -> float:
        """What its epochs took, whenever that was."""
        return sum(metrics.get("seconds", 0.0) for metrics in self.history)


def fit_flow(
    detector: Detector,
    data: TrainingData,
    store: FeatureStore,
    *,
    stop: StopRequest | None = None,
    on_epoch: OnEpoch | None = None,
    workers: Workers = ALONE,
) -> tuple[str, Fitted]:
    """Train the detector's flow in place, or take it from the store.

    Rank 0 holds the flow's lock and looks for it; the others wait for its word.

    Returns:
        The flow's key and how it was fitted.
    """
    config, flow = detector.config, detector.flow
    identity = flow_identity(config, data)
    key = digest_of([json.dumps(identity, sort_keys=True)])
    folder = store.root / "flows" / key
    with _only_one(folder, stop) if workers.rank == 0 else nullcontext():
        if workers.rank == 0:
            store.fetch_flow(folder)
        meta = workers.from_first(lambda: _load(flow, folder))
        if meta is not None:
            same_weights(flow, workers)
            log.info("stage one: flow %s is in the store; nothing to train", key)
            if on_epoch is not None:
                for metrics in meta["history"]:
                    on_epoch("flow", int(metrics["epoch"]), metrics)
            return key, Fitted(tuple(meta["history"]), meta["epoch"], reused=True)
        if workers.rank == 0:
            flow.standardise.fit(data.train, data.rows_NV[:, 0])
        same_weights(flow.standardise, workers)
        result = train_stage(
            FlowStage(flow),
            Batches((data.train,), data.rows_NV, config.train.flow.batch, config.seed, workers=workers),
            config.train.flow,
            config.train,
            seed=config.seed,
            folder=folder / "checkpoints",
            identity=identity,
            on_epoch=_named(on_epoch, "flow"),
            validate=lambda: _flow_validation(detector, data, workers),
            stop=stop,
            select=config.selection.epoch,
            workers=workers,
        )
        if workers.rank == 0:
            history = list(result.history)
            _save(flow, folder, {"identity": identity, "history": history, "epoch": result.epoch})
            store.publish_flow(folder)
        return key, Fitted(tuple(result.history), result.epoch, reused=False)


def fit_mapping(
    detector: Detector,
    data: TrainingData,
    flow_key: str,
    store: FeatureStore,
    folder: Path,
    *,
    stop: StopRequest | None = None,
    on_epoch: OnEpoch | None = None,
    workers: Workers = ALONE,
) -> Fitted:
    """Train the detector's mapping in place; latents are computed once and stored before the first epoch.

    Args:
        detector: Its flow is trained.
        data: Features to learn from and to validate on.
        flow_key: What :func:`fit_flow` returned; latents are stored under it.
        store: Where latents are kept.
        folder: Where the stage's checkpoints go.
        stop: Set by a signal: the stage then checkpoints and raises.
        on_epoch: Told of each epoch.
        workers: Who takes part.
    """
    config = detector.config
    z_train, z_good, z_defective = (
        latents(detector, table, flow_key, store, workers)
        for table in (data.train, data.good, data.defective)
    )
    if detector.mapping is None:
        raise ValueError(f"method {config.method} has no mapping to fit")
    result = train_stage(
        MappingStage(detector.mapping, detector.flow.standardise),
        Batches(
            (data.train, z_train), data.rows_NV, config.train.mapping.batch, config.seed, workers=workers
        ),
        config.train.mapping,
        config.train,
        seed=config.seed,
        folder=folder,
        identity={
            "flow": flow_key,
            "mapping": config.mapping.model_dump(mode="json"),
            "train": _how(config, "mapping"),
        },
        on_epoch=_named(on_epoch, "mapping"),
        validate=lambda: _mapping_validation(detector, data, z_good, z_defective, workers),
        stop=stop,
        select=config.selection.epoch,
        workers=workers,
    )
    return Fitted(tuple(result.history), result.epoch, reused=False)


def flow_identity(config: Config, data: TrainingData) -> dict[str, Any]:
    """All that a trained flow depends on; two runs with the same identity share it."""
    seen = [data.train.keys[row] for row in data.rows_NV.flatten().tolist()]
    identity: dict[str, Any] = {
        "features": data.train.space_key,
        "images": digest_of(seen),
        "flow": config.flow.model_dump(mode="json"),
        "train": _how(config, "flow"),
        "seed": config.seed,
    }
    if config.selection.epoch == "best":
        # Validation images pick the epoch, by the scores that the scoring section allows.
        units = (*units_of(data.good_samples), *units_of(data.defective_samples))
        identity["validation"] = digest_of([*data.good.keys, "|", *data.defective.keys, "|", *units])
        identity["validate_every"] = config.train.validate_every
        identity["scoring"] = _flow_scoring(config).model_dump(mode="json")
        identity["selection"] = SELECTION_VERSION
    return identity


def _flow_scoring(config: Config) -> ScoringConfig:
    """How the flow alone is judged: weights of parts that it does not have would say nothing."""
    return config.scoring.model_copy(update={"weights": "auto"})


def latents(
    detector: Detector, table: FeatureTable, flow_key: str, store: FeatureStore, workers: Workers = ALONE
) -> FeatureTable:
    """Latents z = TNF(y) of every row, stored under the flow's key and computed only where it is missing."""
    space = store.space(
        SpaceSpec("latents", {"flow": flow_key, "shape": list(table.shape), "dtype": "float16"})
    )
    with space.lock() if workers.rank == 0 else nullcontext():
        missing = workers.from_first(lambda: set(space.missing(table.keys)))
        rows = [row for row, key in enumerate(table.keys) if key in missing]
        own = share_of(len(rows), workers)
        device = device_of(detector.config.train.device)
        for start in own[::64]:
            chunk = rows[start : min(start + 64, own.stop)]
            y_BCHW = table.gather(chunk).to(device, torch.float32)
            with torch.inference_mode(), autocast(detector.config.train.precision, device):
                z_BCHW, _ = detector.flow(y_BCHW)
            space.append([table.keys[row] for row in chunk], z_BCHW.float().cpu())
        workers.barrier()
    return space.table(table.keys)


def maps_of(
    detector: Detector, y: FeatureTable, z: FeatureTable | None = None, workers: Workers = ALONE
) -> Tensor:
    """Score parts of every row, (N, 3, H, W)."""
    detector.flow.eval()
    if detector.mapping is not None:
        detector.mapping.eval()
    parts = [detector.parts(y.gather(c), None if z is None else z.gather(c)) for c in _chunks(y, workers)]
    return concatenated(torch.cat(parts) if parts else torch.zeros(0, 3, *y.shape[1:]), workers)


def embeddings_of(
    detector: Detector, y: FeatureTable, z: FeatureTable, workers: Workers = ALONE
) -> dict[str, Tensor]:
    """:meth:`Detector.embeddings` of every row, (N, C) by the name of the space."""
    parts = [detector.embeddings(y.gather(chunk), z.gather(chunk)) for chunk in _chunks(y, workers)]
    parts = [part for some in workers.gather(parts) for part in some]
    return {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def _chunks(table: FeatureTable, workers: Workers, size: int = 32) -> list[range]:
    """This worker's share of the rows, a few at a time."""
    own = share_of(len(table), workers)
    return [own[start : start + size] for start in range(0, len(own), size)]


def choose_scorer(detector: Detector, good: UnitMaps, defective: UnitMaps) -> Selection:
    """Weights, reduction and threshold, by the method's own parts and the run's configuration."""
    return _selected(detector, detector.config.method, good, defective)


def _flow_validation(detector: Detector, data: TrainingData, workers: Workers) -> dict[str, float]:
    """How well the flow alone tells held-out good images from synthetic defects; and its likelihood.

    The likelihood of held-out images is recorded and does not choose: on few distinct parts it turns within
    two epochs, long before detection does (LOG.md).
    """
    flow, device = detector.flow, device_of(detector.config.train.device)
    total = 0.0
    for chunk in _chunks(data.good, workers):
        y_BCHW = data.good.gather(chunk)
        with torch.inference_mode(), autocast(detector.config.train.precision, device):
            z_BCHW, logdet_B = flow(y_BCHW.to(device, torch.float32))
        total += float(0.5 * z_BCHW.float().square().sum() - logdet_B.float().sum())
    config = detector.config.model_copy(update={"scoring": _flow_scoring(detector.config)})
    alone = replace(detector, config=config, mapping=None)
    good, defective = (maps_of(alone, table, workers=workers) for table in (data.good, data.defective))
    loss = sum(workers.gather(total)) / (len(data.good) * math.prod(data.good.shape))
    return {**_judged(alone, "nf", data, good, defective, workers), "validation_loss": loss}


def _mapping_validation(
    detector: Detector,
    data: TrainingData,
    z_good: FeatureTable,
    z_defective: FeatureTable,
    workers: Workers,
) -> dict[str, float]:
    """How well the best fusion tells held-out good images from their synthetic defects."""
    good = maps_of(detector, data.good, z_good, workers)
    defective = maps_of(detector, data.defective, z_defective, workers)
    return _judged(detector, detector.config.method, data, good, defective, workers)


def _judged(
    detector: Detector,
    method: str,
    data: TrainingData,
    good_NPHW: Tensor,
    defective_NPHW: Tensor,
    workers: Workers,
) -> dict[str, float]:
    """The AUROC as the epoch's objective, and its standard error as what two epochs may differ by."""
    good = UnitMaps(good_NPHW, units_of(data.good_samples))
    defective = UnitMaps(defective_NPHW, units_of(data.defective_samples))
    auroc = workers.from_first(lambda: _selected(detector, method, good, defective).auroc)
    error = auroc_error(auroc, len(good_NPHW), len(defective_NPHW))
    return {"objective": auroc, "tolerance": error, "validation_auroc": auroc}


def _selected(detector: Detector, method: str, good: UnitMaps, defective: UnitMaps) -> Selection:
    config, its = detector.config, method_named(method)
    return select_scorer(
        good,
        defective,
        config.scoring,
        parts=its.parts,
        paper_weights=its.paper_weights,
        false_reject_rate=config.selection.false_reject_rate,
    )


def _how(config: Config, stage: str) -> dict[str, Any]:
    """The training settings that change a stage's weights."""
    section = getattr(config.train, stage).model_dump(mode="json")
    return {**section, "precision": config.train.precision, "select": config.selection.epoch}


def _named(on_epoch: OnEpoch | None, stage: str) -> Callable[[int, Mapping[str, float]], None] | None:
    if on_epoch is None:
        return None
    return lambda epoch, metrics: on_epoch(stage, epoch, metrics)


def _save(flow: Flow, folder: Path, meta: Mapping[str, Any]) -> None:
    write_tensors(folder / "flow.safetensors", flow.state_dict())
    # Written last: a flow is in the store once its description is.
    write_json(folder / "flow.json", meta)


def _load(flow: Flow, folder: Path) -> Mapping[str, Any] | None:
    """Take a stored flow; None where there is none, or where it is damaged and has to be trained again."""
    if not (folder / "flow.json").exists():
        return None
    try:
        meta: Mapping[str, Any] = read_json(folder / "flow.json")
        flow.load_state_dict(read_tensors(folder / "flow.safetensors"))
    except (NfbmrError, RuntimeError) as error:
        log.warning("a stored flow is damaged and is trained again: %s", error)
        return None
    return meta


@contextmanager
def _only_one(folder: Path, stop: StopRequest | None) -> Iterator[None]:
    """Hold the folder's lock; the kernel lets go of it when the process dies."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as handle:
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    log.info("stage one: another process trains this flow; waiting for it")
                    told = True
            if stop is not None and stop.requested:
                raise Interrupted(
                    "stopped while waiting for a flow that another process trains",
                    where=folder,
                    fix="run the same command again",
                )
            time.sleep(0.5)
        yield
