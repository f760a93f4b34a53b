"""The training loop of a stage: resumable at any step, bit for bit on one machine.

With several workers the same loop runs in each of them, on its share of every batch.
Epochs and steps count from 0 in checkpoints and from 1 in everything that people read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nfbmr.config import StageConfig, TrainConfig
from nfbmr.devices import autocast, autocast_dtype, device_of
from nfbmr.errors import CheckpointError, Interrupted
from nfbmr.progress import ticking
from nfbmr.stopping import StopRequest
from nfbmr.training import checkpoints
from nfbmr.training.epoch_selection import BestEpoch, ValidationResult
from nfbmr.training.optimiser import Optimiser, learning_rate
from nfbmr.training.stages import Stage
from nfbmr.training.watch import LossMonitor, Tally, diverged
from nfbmr.workers import SINGLE_PROCESS, ProcessGroup

log = logging.getLogger(__name__)

_Metrics = dict[str, float]
_LAST = "last"
CHECKPOINT_SHARE = 0.05
"""Checkpoints between epochs take no larger share of the time than this."""


class BatchSource(Protocol):
    """What the loop asks of :class:`nfbmr.training.batches.Batches`."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """The epoch's batches from number ``start`` on."""
        ...

    def share(self, step: int) -> tuple[int, int]:
        """Images of batch number ``step`` that are this worker's, and in all."""
        ...

    def preload(self, device: torch.device | str = "cpu") -> object:
        """Prepare to give batches on that device."""
        ...


@dataclass(frozen=True)
class StageResult:
    """How a stage went; the weights are in its module.

    Attributes:
        history: Metrics of each epoch, in order: ``epoch`` (from 1), ``loss``, ``lr``, ``seconds``, and
            those of the validation where there was one.
        epoch: The epoch that the weights are of, from 1.
        resumed_from: Epochs that were already done when this call began; None for a fresh start.
    """

    history: tuple[_Metrics, ...]
    epoch: int
    resumed_from: int | None


@dataclass
class _State:
    """Where training stands; with the tensors, all that a checkpoint holds."""

    epoch: int = 0
    step: int = 0
    finished: bool = False
    seconds: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    best: dict[str, Any] | None = None
    tally: Tally = field(default_factory=Tally)
    history: list[_Metrics] = field(default_factory=list)


def train_stage(
    stage: Stage,
    batches: BatchSource,
    config: StageConfig,
    train: TrainConfig,
    *,
    seed: int,
    folder: Path,
    identity: Mapping[str, Any] | None = None,
    on_epoch: Callable[[int, Mapping[str, float]], None] | None = None,
    validate: Callable[[], ValidationResult] | None = None,
    stop: StopRequest | None = None,
    select: Literal["best", "last"] = "best",
    workers: ProcessGroup = SINGLE_PROCESS,
) -> StageResult:
    """Train a stage, or go on with it where its checkpoint stands; a finished one is only loaded.

    Args:
        stage: What to train. Its module is moved to the device and left there, in evaluation mode.
        batches: What to train it on.
        config: How long, how fast.
        train: Arithmetic, device, and how often to checkpoint and to validate.
        seed: Seed of anything random in the stage. The caller's random state is left alone.
        folder: Folder of this stage's checkpoints.
        identity: What else the weights depend on; a checkpoint of another identity is refused.
        on_epoch: Told of each epoch, from 1, with its metrics.
        validate: Judges the weights as they are. Called every ``train.validate_every`` epochs and after the
            last, in evaluation mode and without gradients.
        stop: Looked at after each step.
        select: Keep the weights of the epoch that validates best (the last, without ``validate``), or the
            last; see :class:`~nfbmr.training.epoch_selection.BestEpoch`.
        workers: Who takes part, each with its share of `batches`. All call this with the same arguments, all
            call ``on_epoch`` and ``validate``, and all end with the same weights; rank 0 alone reads and
            writes checkpoints, in which nothing depends on how many they were.

    Raises:
        Interrupted: A stop was asked for; a checkpoint is written.
        DivergenceError: The loss is not finite or ran away; the last good checkpoint is left.
        CheckpointError: The folder's checkpoints are damaged or of another configuration.
        OutputError: The disk is full; the last good checkpoint is left.
    """
    device = device_of(train.device)
    identity = {
        "stage": stage.name,
        "seed": seed,
        "select": select,
        "train": config.model_dump(mode="json"),
    } | dict(identity or {})
    training = _Training(stage, batches, config, train, device, folder, identity, select, workers)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        resumed_from = training.resume()
        if not training.state.finished:
            training.run(on_epoch, validate, stop)
    stage.module.eval()
    state = training.state
    return StageResult(tuple(state.history), training.chosen_epoch, resumed_from)


class _Training:
    """One stage's training: the state, and what moves it on."""

    def __init__(
        self,
        stage: Stage,
        batches: BatchSource,
        config: StageConfig,
        train: TrainConfig,
        device: torch.device,
        folder: Path,
        identity: Mapping[str, Any],
        select: str,
        workers: ProcessGroup,
    ) -> None:
        self.stage, self.batches, self.config, self.train = stage, batches, config, train
        self.device, self.folder, self.identity, self.select = device, folder, identity, select
        self.workers = workers
        self.module = stage.module.to(device)
        if device.type == "cuda":
            # On a CPU, oneDNN reorders weights anyway and fused Adam is twice as fast on contiguous ones.
            self.module = self.module.to(memory_format=torch.channels_last)
        self.optimiser = Optimiser(self.module, config, len(batches) * config.epochs, stage.rates)
        self.state = _State()
        self.best = BestEpoch()
        self.loss: Callable[..., Tensor] = stage.loss
        self._saved_at, self._saving_takes = time.monotonic(), 0.0

    @property
    def chosen_epoch(self) -> int:
        """The epoch whose weights are kept, from 1."""
        if self.select == "best" and self.best.epoch is not None:
            return self.best.epoch + 1
        return self.config.epochs

    # -- the course of training

    def run(
        self,
        on_epoch: Callable[[int, Mapping[str, float]], None] | None,
        validate: Callable[[], ValidationResult] | None,
        stop: StopRequest | None,
    ) -> None:
        """Epoch by epoch to the end."""
        self.batches.preload(self.device)
        if self.train.compile:
            self.loss = _compiled(self.stage, self.batches, self.device, self.state.precision)
        if self.workers.count > 1:
            self.loss = self.workers.wrap_ddp(_Loss(self.module, self.loss))
        state = self.state
        bar = tqdm(total=self.config.epochs, initial=state.epoch, desc=self.stage.name, disable=None)
        with ticking(bar) as progress:
            while state.epoch < self.config.epochs:
                self._epoch(stop)
                metrics = self._end_of_epoch(validate)
                progress.update()
                progress.set_postfix_str(f"loss {metrics['loss']:.4f}")
                log.debug("%s epoch %d: %s", self.stage.name, state.epoch, metrics)
                if on_epoch is not None:
                    on_epoch(state.epoch, metrics)
                rested = time.monotonic() - self._saved_at >= self._saving_takes / CHECKPOINT_SHARE
                if (
                    state.epoch < self.config.epochs
                    and rested
                    and not state.epoch % self.train.checkpoint_every
                ):
                    self.checkpoint()
        self._finish()

    def _epoch(self, stop: StopRequest | None) -> None:
        """The rest of the epoch's steps."""
        state, began = self.state, time.monotonic()
        watch = LossMonitor(self.stage.name, state.tally, self.device, self.workers)
        # One who met an error since the last step says so here, before the others average gradients with it.
        self.workers.barrier()
        self.module.train()
        for batch in self.batches.epoch(state.epoch, state.step):
            inputs = [_as_input(tensor, self.device) for tensor in batch]
            here, images = self.batches.share(state.step)
            with autocast(state.precision, self.device):
                loss = self.loss(*inputs)
            if self.workers.count > 1:
                # The mean over the workers is the mean over the batch, however unequal their shares.
                loss = loss * (here * self.workers.count / images)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step(state.epoch * len(self.batches) + state.step)
            watch.add(loss, epoch=state.epoch, step=state.step, images=images)
            state.step += 1
            if self.workers.any_rank(stop is not None and stop.requested):
                watch.read(state.epoch)
                state.seconds += time.monotonic() - began
                self.checkpoint()
                raise self._interrupted()
        watch.read(state.epoch)
        state.seconds += time.monotonic() - began

    def _end_of_epoch(self, validate: Callable[[], ValidationResult] | None) -> _Metrics:
        state = self.state
        epoch = state.epoch + 1
        metrics: _Metrics = {
            "epoch": epoch,
            "loss": state.tally.mean,
            "lr": learning_rate(self.config, epoch * len(self.batches) - 1, self.optimiser.steps),
            "seconds": state.seconds,
        }
        if validate is not None and (epoch % self.train.validate_every == 0 or epoch == self.config.epochs):
            self.module.eval()
            with torch.no_grad():
                verdict = validate()
            if "objective" in verdict.metrics:
                self.best.update(state.epoch, verdict, self.module)
                state.best = self.best.state_dict()
            metrics |= verdict.metrics
        metrics = self.workers.broadcast(lambda: metrics)
        state.history.append(metrics)
        state.epoch, state.step, state.seconds = epoch, 0, 0.0
        state.tally = Tally(first=state.tally.first)
        return metrics

    def _finish(self) -> None:
        """Keep the chosen weights, and of the checkpoints only what a finished stage needs."""
        if self.select == "best" and self.best.weights:
            self.module.load_state_dict(self.best.weights)
        self._refuse_broken_weights()
        self.state.finished = True
        if self.workers.rank == 0:
            self._save(self._weights(), previous=False)

    def _interrupted(self) -> Interrupted:
        state = self.state
        return Interrupted(
            f"stopped in stage {self.stage.name}, epoch {state.epoch + 1} of {self.config.epochs}, "
            f"after step {state.step} of {len(self.batches)}; a checkpoint is written",
            where=self.folder,
            fix="run the same command again, or nfbmr train --resume RUN: it goes on from this step",
        )

    # -- checkpoints

    def resume(self) -> int | None:
        """Take up the folder's checkpoint, if it has one."""
        precision = self.train.precision
        checkpoint = self.workers.broadcast(
            lambda: checkpoints.load(self.folder, _LAST) if checkpoints.exists(self.folder, _LAST) else None
        )
        if checkpoint is None:
            low = self.workers.broadcast(lambda: autocast_dtype(precision, self.device) is not None)
            self.state.precision = "bf16" if low else "fp32"
            return None
        tensors, meta = checkpoint
        where = self.folder / _LAST
        checkpoints.check_identity(meta["identity"], self.identity, where=where)
        values = dict(meta["state"])
        values["tally"] = Tally(**values["tally"])
        self.state = _State(**values)
        if precision != "auto":
            # An automatic choice stays what it was when training began: measured again, it might differ.
            self.state.precision = precision
        try:
            self.module.load_state_dict(_below("model", tensors))
            self.optimiser.load(_below("adam", tensors))
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint does not fit this network ({str(error).splitlines()[0]})",
                where=where,
                fix="use the configuration it was made with, or another output folder",
            ) from error
        weights = {k: v.to(self.device) for k, v in _below("best", tensors).items()}
        self.best = BestEpoch.restored(self.state.best, _below("influence", tensors), weights)
        if not self.state.finished:
            torch.set_rng_state(tensors["random/cpu"])
            if self.device.type == "cuda" and "random/cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random/cuda"], self.device)
            log.info(
                "stage %s goes on after epoch %d and %d steps",
                self.stage.name,
                self.state.epoch,
                self.state.step,
            )
        return self.state.epoch

    def checkpoint(self) -> None:
        """Write all that is needed to go on from here; rank 0 does, of what is the same everywhere."""
        if self.workers.rank:
            return
        self._refuse_broken_weights()
        began = time.monotonic()
        tensors = (
            self._weights() | _under("adam", self.optimiser.tensors()) | _under("best", self.best.weights)
        )
        tensors["random/cpu"] = torch.get_rng_state()
        tensors |= _under("influence", self.best.influences())
        if self.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.device)
        self._save(tensors)
        self._saved_at = time.monotonic()
        self._saving_takes = self._saved_at - began

    def _weights(self) -> dict[str, Tensor]:
        return _under("model", self.module.state_dict())

    def _save(self, tensors: Mapping[str, Tensor], previous: bool = True) -> None:
        meta = {"identity": self.identity, "state": asdict(self.state)}
        checkpoints.save(self.folder, _LAST, tensors, meta, previous=previous)

    def _refuse_broken_weights(self) -> None:
        """A loss can still be finite where the step after it broke the weights."""
        norm = nn.utils.get_total_norm(list(self.module.parameters()))
        if not bool(norm.isfinite()):
            raise diverged(self.stage.name, "weights are not finite", self.state.epoch, self.state.step)


class _Loss(nn.Module):
    """A stage's loss as a module, which is what gradients are averaged for."""

    def __init__(self, module: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, *batch: Tensor) -> Tensor:
        """The mean loss of a batch."""
        return self.loss(*batch)


def _as_input(tensor: Tensor, device: torch.device) -> Tensor:
    """A stored batch as a network takes it: float32, channels_last, on the device."""
    return tensor.to(device, torch.float32, non_blocking=True).contiguous(memory_format=torch.channels_last)


def _compiled(
    stage: Stage, batches: BatchSource, device: torch.device, precision: Literal["fp32", "bf16"]
) -> Callable[..., Tensor]:
    """The stage's loss, compiled; as it is where this machine cannot compile."""
    compiled: Callable[..., Tensor] = torch.compile(stage.loss)
    inputs = [_as_input(tensor, device) for tensor in next(iter(batches.epoch(0)))]
    try:
        with autocast(precision, device):
            compiled(*inputs).backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # the compiler's own errors have no common root
        reason = str(error).strip().splitlines() or [type(error).__name__]
        log.warning("cannot compile stage %s (%s); going on without", stage.name, reason[0])
        compiled = stage.loss
    stage.module.zero_grad(set_to_none=True)
    return compiled


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{key}": tensor for key, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}/"): t for key, t in tensors.items() if key.startswith(f"{prefix}/")}
