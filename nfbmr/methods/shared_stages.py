"""Fitted stages in the store: ``stages/<key>/stage.safetensors``, and ``stage.json``, which says all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from nfbmr.errors import CheckpointError, Interrupted, NfbmrError
from nfbmr.features.stage_files import StageFiles, are_as_written, weights_digest
from nfbmr.features.store import FeatureStore
from nfbmr.locks import file_lock
from nfbmr.paths import read_json, write_json
from nfbmr.stopping import StopRequest
from nfbmr.tensors import read_tensors, write_tensors
from nfbmr.training.stages import Stage

log = logging.getLogger(__name__)


def save_stage(stage: Stage, folder: Path, meta: Mapping[str, Any]) -> None:
    """Write a fitted stage into its folder of the store."""
    weights, about, _ = StageFiles.of(folder)
    write_tensors(folder / weights, stage.module.state_dict())
    # Written last: a stage is in the store once its description is.
    write_json(folder / about, {**meta, "sha256": weights_digest(folder / weights)})


def checkpoints_of(folder: Path) -> Path:
    """Where a stage of the store is trained: who wants it goes on there, until it is finished."""
    return folder / "checkpoints"


def drop_checkpoints(folder: Path) -> None:
    """Remove what a stage's training left in the store; the stage is there, and its lock is held."""
    shutil.rmtree(checkpoints_of(folder), ignore_errors=True)  # a store that can only be read


def is_stored(folder: Path) -> bool:
    """Whether a folder of the store has a fitted stage."""
    return (folder / StageFiles.of(folder).about).exists()


def load_stage(stage: Stage, folder: Path) -> Mapping[str, Any] | None:
    """Take a stored stage; None where there is none, or where it is damaged and has to be fitted again."""
    weights, about, _ = StageFiles.of(folder)
    if not is_stored(folder):
        return None
    try:
        meta: Mapping[str, Any] = read_json(folder / about)
        if (folder / weights).exists() and not are_as_written(folder / weights, meta):
            raise CheckpointError(
                "the weights are not those that were written",
                where=folder / weights,
                fix="nothing: the stage is fitted again",
            )
        stage.module.load_state_dict(read_tensors(folder / weights))
    except (NfbmrError, RuntimeError) as error:
        log.warning("a stored stage is damaged and is fitted again: %s", error)
        return None
    return meta


@contextmanager
def stage_lock(folder: Path, stop: StopRequest | None) -> Iterator[None]:
    """Hold the folder's lock; the kernel lets go of it when the process dies.

    When it was last held is when the stage was last used, which pruning goes by.
    """
    path = folder / "lock"
    lock = file_lock(
        path,
        held=lambda: Interrupted(
            "stopped while waiting for a stage that another process fits",
            where=folder,
            fix="run the same command again",
        ),
        give_up=lambda: stop is not None and stop.requested,
        on_wait=lambda: log.info("another process fits this stage; waiting for it"),
    )
    with lock:
        with suppress(OSError):  # a store that can only be read
            os.utime(path)
        yield


def claimed(
    stage: Stage, folder: Path, store: FeatureStore, held: ExitStack, stop: StopRequest | None
) -> Mapping[str, Any] | None:
    """Claim the fitting of a stage among the machines that share a store; :func:`stage_lock` is held already.

    Args:
        stage: Takes the weights, where there are some.
        folder: Folder of the stage in the store.
        store: Which.
        held: Takes over the claim, until the stage is fitted and sent.
        stop: Read while another machine fits it.

    Returns:
        What that machine has fitted meanwhile; None where it is to be fitted here.
    """
    claim = store.claim_stage(folder, lambda: stop is not None and stop.requested)
    return load_stage(stage, folder) if held.enter_context(claim) else None
