"""Fitting a method's stages on stored features, each shared one once.

A fitted stage that says so is content-addressed: its key covers the features it saw, its configuration, how
it was trained and the seed. A run, a trial or an ablation row that differs only in what comes after finds it
and trains nothing. Two runs that want the same one at once: one trains, the other waits for it.

All functions that are given `workers` are called by all of them, and give all the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nfbmr.config import Config, DetailStageConfig, ScoringConfig
from nfbmr.data.samples import Sample, digest_of, units_of
from nfbmr.devices import autocast
from nfbmr.features.store import FeatureStore
from nfbmr.features.table import FeatureTable, ViewedFeatures
from nfbmr.methods.detector import Detector
from nfbmr.methods.forward import chunks_of, latents, maps_of
from nfbmr.methods.networks import AnomalyModel
from nfbmr.methods.shared_stages import (
    checkpoints_of,
    claimed,
    drop_checkpoints,
    is_stored,
    load_stage,
    save_stage,
    stage_lock,
)
from nfbmr.results import defective_maps
from nfbmr.scoring.normalisation import UnitMaps
from nfbmr.scoring.ranking import auroc_influence
from nfbmr.scoring.selection import Selection, check_scoring, select_scorer
from nfbmr.stopping import StopRequest
from nfbmr.training.batches import Batches
from nfbmr.training.epoch_selection import ValidationResult
from nfbmr.training.loop import train_stage
from nfbmr.training.stages import Stage
from nfbmr.workers import SINGLE_PROCESS, ProcessGroup, broadcast_weights

log = logging.getLogger(__name__)

SELECTION_VERSION = 6
"""Raised when another epoch would be chosen from the same validation set: then no stored stage is found."""

OnEpoch = Callable[[str, int, Mapping[str, float]], None]
"""Told of each epoch: the stage, the epoch (from 1) and its metrics."""


@dataclass(frozen=True)
class TrainingData:
    """Stored features of the images that may be learned from.

    Attributes:
        train: The training images and their views.
        good: The good validation images.
        defective: Their synthetic defects, then known ones.
        good_samples: The images of `good`.
        defective_samples: The images of `defective`.
    """

    train: ViewedFeatures
    good: ViewedFeatures
    defective: ViewedFeatures
    good_samples: tuple[Sample, ...]
    defective_samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Fitted:
    """A stage's outcome: where its weights come from, and how it got there.

    Attributes:
        history: Metrics of each epoch.
        epoch: The one that was kept, from 1; 0 for a stage that is not trained.
        reused: Whether it came from the store.
    """

    history: tuple[Mapping[str, float], ...]
    epoch: int
    reused: bool = False

    @property
    def seconds(self) -> float:
        """What its epochs took, whenever that was."""
        return sum(metrics.get("seconds", 0.0) for metrics in self.history)


@dataclass(frozen=True)
class Latents:
    """What the first stage made of the features, stored."""

    train: FeatureTable
    good: FeatureTable
    defective: FeatureTable


class Fitting:
    """Fits a detector's stages in place, one after the other.

    Args:
        detector: What is fitted; moved to its device.
        data: Features to learn from and to validate on.
        store: Where shared stages and latents are kept.
        folder_of: Where a stage's checkpoints go that is not shared.
        stop: Set by a signal: the stage then checkpoints and raises.
        on_epoch: Told of each epoch, also of those of a stage that the store had.
        workers: Who takes part.
        trial: Whether it is one of a search: what hardly another trial asks for is not kept in the store.

    Raises:
        ConfigError: The scoring section asks for what the method does not have.
    """

    def __init__(
        self,
        detector: Detector,
        data: TrainingData,
        store: FeatureStore,
        folder_of: Callable[[str], Path],
        *,
        stop: StopRequest | None = None,
        on_epoch: OnEpoch | None = None,
        workers: ProcessGroup = SINGLE_PROCESS,
        trial: bool = False,
    ) -> None:
        check_scoring(detector.config.scoring, detector.networks.components)
        self.detector, self.data, self.store = detector.to(detector.device), data, store
        self.workers = workers
        self.key = ""
        self.latents: Latents | None = None
        self._folder_of, self._stop, self._on_epoch, self._trial = folder_of, stop, on_epoch, trial

    def fit(self, stage: Stage) -> Fitted:
        """Fit a stage, or take it from the store; those before it are fitted."""
        identity = self.identity(stage)
        if stage.cacheable and not (stage.trial_specific and self._trial):
            fitted = self._fit_once(stage, identity)
        else:
            fitted = self._train(stage, identity, self._folder_of(stage.name))
        if stage is self.detector.networks.stages[0]:
            self.key = digest_of([json.dumps(identity, sort_keys=True)])
        if self.detector.networks.caches_latents and self.latents is None:
            sides = (self.data.train, self.data.good, self.data.defective)
            self.latents = Latents(
                *(latents(self.detector, side, self.key, self.store, self.workers) for side in sides)
            )
        return fitted

    def identity(self, stage: Stage) -> dict[str, Any]:
        """All that a fitted stage depends on; two runs with the same identity may share it."""
        config, data = self.detector.config, self.data
        train: dict[str, Any] = {}
        if stage.trained:  # the settings that change its weights
            train = config.train.stage(stage.name).model_dump(mode="json")
            train |= {"precision": config.train.precision, "select": config.selection.epoch}
        identity: dict[str, Any] = {
            "stage": stage.name,
            **stage.settings,
            "features": data.train.select(stage.tables).features.space_key,
            "images": digest_of(data.train.keys),
            "train": train,
            "seed": config.seed,
        }
        if self.key and stage.reads_latents:
            identity["after"] = self.key
        if stage.trained and stage.validated and config.selection.epoch == "best":
            # Validation images pick the epoch, by the scores that the scoring section allows.
            units = (*units_of(data.good_samples), *units_of(data.defective_samples))
            identity["validation"] = digest_of([*data.good.keys, "|", *data.defective.keys, "|", *units])
            identity["validate_every"] = config.train.validate_every
            identity["scoring"] = self._scoring(stage).model_dump(mode="json")
            identity["selection"] = SELECTION_VERSION
        return identity

    def _scoring(self, stage: Stage) -> ScoringConfig:
        """How a stage is judged: the weights are of the last one's components, and say nothing of others'."""
        scoring, networks = self.detector.config.scoring, self.detector.networks
        if stage.components != networks.components or len(stage.components) == 1:
            return scoring.model_copy(update={"weights": "auto"})
        return scoring

    def _fit_once(self, stage: Stage, identity: Mapping[str, Any]) -> Fitted:
        """Find a stage in the store, or fit it and keep it there; rank 0 holds the lock, and looks.

        What trials share is trained in its folder of the store, where whoever wants it goes on, and nothing
        of that is kept beside a finished stage; what is the run's own has its checkpoints in the run's
        folder, and a run that has begun it goes on there.
        """
        key = digest_of([json.dumps(identity, sort_keys=True)])
        # One process looks, for all: each machine may have something else in its cache.
        folder = self.store.root / self.workers.broadcast(lambda: self.store.stage_place(key))
        with ExitStack() as held:
            if self.workers.rank == 0:
                held.enter_context(stage_lock(folder, self._stop))
                self.store.fetch_stage(folder)
            checkpoints = self._folder_of(stage.name) if stage.trial_specific else checkpoints_of(folder)
            begun = self.workers.broadcast(lambda: stage.trial_specific and checkpoints.exists())
            meta = None if begun else self.workers.broadcast(lambda: load_stage(stage, folder))
            if meta is None and not begun:
                meta = self.workers.broadcast(lambda: claimed(stage, folder, self.store, held, self._stop))
            if meta is not None:
                if self.workers.rank == 0:
                    drop_checkpoints(folder)
                broadcast_weights(stage.module, self.workers)
                log.info("stage %s is in the store as %s; nothing to train", stage.name, key)
                if self._on_epoch is not None:
                    for metrics in meta["history"]:
                        self._on_epoch(stage.name, int(metrics["epoch"]), metrics)
                return Fitted(tuple(meta["history"]), meta["epoch"], reused=True)
            fitted = self._train(stage, identity, checkpoints)
            if self.workers.rank == 0 and not (begun and is_stored(folder)):
                meta = {"identity": identity, "history": list(fitted.history), "epoch": fitted.epoch}
                save_stage(stage, folder, meta)
                self.store.publish_stage(folder)
                drop_checkpoints(folder)
            return fitted

    def _train(self, stage: Stage, identity: Mapping[str, Any], folder: Path) -> Fitted:
        """Measure what is measured, and train what is trained."""
        config, train = self.detector.config, self.data.train.select(stage.tables)
        if self.workers.rank == 0:
            stage.prepare(train, self._stop)
        broadcast_weights(stage.module, self.workers)
        if not stage.trained:
            return Fitted((), 0)
        section = config.train.stage(stage.name)
        given = self.latents is not None and stage.reads_latents
        tables = (*train.features.tables, *((cast(Latents, self.latents).train,) if given else ()))
        positions = section.positions if isinstance(section, DetailStageConfig) else None
        batches = Batches(
            tables, train.rows_NV, section.batch, config.seed, positions=positions, workers=self.workers
        )
        if isinstance(section, DetailStageConfig):  # as many epochs as its least number of steps takes
            epochs = max(section.epochs, -(-section.steps // len(batches)))
            section = section.model_copy(update={"epochs": epochs})
        report = self._on_epoch
        result = train_stage(
            stage,
            batches,
            section,
            config.train,
            seed=config.seed,
            folder=folder,
            identity=identity,
            on_epoch=None if report is None else partial(report, stage.name),
            validate=(lambda: self._validation(stage)) if stage.validated else None,
            stop=self._stop,
            select=config.selection.epoch,
            workers=self.workers,
        )
        return Fitted(tuple(result.history), result.epoch)

    def _validation(self, stage: Stage) -> ValidationResult:
        """How well the stage tells held-out good images from synthetic defects; and its loss on good ones.

        The loss on held-out images decides between epochs that the AUROC cannot tell apart: on few distinct
        parts it turns within a few epochs, where the flow begins to learn them by heart (LOG.md).
        """
        data, detector, workers = self.data, self.detector, self.workers
        z_good, z_defective = (
            (None, None) if self.latents is None else (self.latents.good, self.latents.defective)
        )
        good = maps_of(detector, data.good, z_good, workers, stage=stage)
        defective = maps_of(detector, data.defective, z_defective, workers, stage=stage)
        verdict = self._judged(stage, good, defective)
        loss = self._validation_loss(stage, z_good)
        return replace(verdict, metrics={**verdict.metrics, "validation_loss": loss})

    def _validation_loss(self, stage: Stage, z: FeatureTable | None) -> float:
        total, device = 0.0, self.detector.device
        good = self.data.good.select(stage.tables)
        for chunk in chunks_of(good, self.workers):
            rows = good.rows_of(chunk)
            batch = (*good.features.gather(rows), *(() if z is None else (z.gather(rows),)))
            with torch.inference_mode(), autocast(self.detector.config.train.precision, device):
                loss = stage.loss(*(tensor.to(device, torch.float32) for tensor in batch))
            total += float(loss) * len(chunk)
        return sum(self.workers.all_gather(total)) / len(self.data.good)

    def _judged(self, stage: Stage, good_NPHW: Tensor, defective_NPHW: Tensor) -> ValidationResult:
        """The AUROC as the epoch's objective, and what each part photographed adds to it."""
        good = UnitMaps(good_NPHW, units_of(self.data.good_samples))
        defective = defective_maps(defective_NPHW, self.data.defective_samples)
        scoring = self._scoring(stage)

        def judge() -> ValidationResult:
            chosen = choose_scorer(self.detector.config, stage, good, defective, scoring)
            influence_U = auroc_influence(
                chosen.good_N, chosen.defective_M, good.units, defective.units, defective.weights
            )
            return ValidationResult(
                {"objective": chosen.auroc, "validation_auroc": chosen.auroc}, influence_U
            )

        return self.workers.broadcast(judge)


def choose_scorer(
    config: Config,
    judge: Stage | AnomalyModel,
    good: UnitMaps,
    defective: UnitMaps,
    scoring: ScoringConfig | None = None,
) -> Selection:
    """Weights, reduction and threshold of the score components of a method or of a stage, on validation data.

    Args:
        config: The run's.
        judge: Whose components.
        good: Held-out good images.
        defective: Their synthetic defects, and known ones.
        scoring: What is fixed; by default as in `config`.
    """
    return select_scorer(
        good,
        defective,
        scoring or config.scoring,
        components=judge.components,
        published=judge.paper_weights,
        false_reject_rate=config.selection.false_reject_rate,
        levels=judge.levels if isinstance(judge, AnomalyModel) else (),
        map_weights=judge.map_weights if isinstance(judge, AnomalyModel) else (),
        pixel_false_reject_rate=config.selection.pixel_false_reject_rate,
    )
