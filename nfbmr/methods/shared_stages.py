"""Fitted stages in the store: ``<store>/flows/<key>/flow.safetensors``, and ``flow.json``, which says all."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from nfbmr.errors import Interrupted, NfbmrError
from nfbmr.features.store import FeatureStore
from nfbmr.locks import file_lock
from nfbmr.paths import read_json, write_json
from nfbmr.stopping import StopRequest
from nfbmr.tensors import read_tensors, write_tensors
from nfbmr.training.stages import Stage

log = logging.getLogger(__name__)


def save_stage(stage: Stage, folder: Path, meta: Mapping[str, Any]) -> None:
    """Write a fitted stage into its folder of the store."""
    write_tensors(folder / "flow.safetensors", stage.module.state_dict())
    # Written last: a flow is in the store once its description is.
    write_json(folder / "flow.json", meta)


def load_stage(stage: Stage, folder: Path) -> Mapping[str, Any] | None:
    """Take a stored flow; None where there is none, or where it is damaged and has to be trained again."""
    if not (folder / "flow.json").exists():
        return None
    try:
        meta: Mapping[str, Any] = read_json(folder / "flow.json")
        stage.module.load_state_dict(read_tensors(folder / "flow.safetensors"))
    except (NfbmrError, RuntimeError) as error:
        log.warning("a stored flow is damaged and is trained again: %s", error)
        return None
    return meta


@contextmanager
def stage_lock(folder: Path, stop: StopRequest | None) -> Iterator[None]:
    """Hold the folder's lock; the kernel lets go of it when the process dies."""
    lock = file_lock(
        folder / "lock",
        held=lambda: Interrupted(
            "stopped while waiting for a flow that another process trains",
            where=folder,
            fix="run the same command again",
        ),
        give_up=lambda: stop is not None and stop.requested,
        on_wait=lambda: log.info("stage one: another process trains this flow; waiting for it"),
    )
    with lock:
        yield


def claimed(
    stage: Stage, folder: Path, store: FeatureStore, held: ExitStack, stop: StopRequest | None
) -> Mapping[str, Any] | None:
    """Claim the training of a flow among the machines that share a store; :func:`stage_lock` is held already.

    Args:
        stage: Takes the flow, where there is one.
        folder: Folder of the flow in the store.
        store: Which.
        held: Takes over the claim, until the flow is trained and sent.
        stop: Read while another machine trains it.

    Returns:
        What that machine has trained meanwhile; None where it is to be trained here.
    """
    claim = store.claim_flow(folder, lambda: stop is not None and stop.requested)
    return load_stage(stage, folder) if held.enter_context(claim) else None
