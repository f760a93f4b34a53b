"""Checkpoints: tensors as safetensors, all else as JSON, each pair whole or absent; never a pickle.

A checkpoint named ``last`` is ``last.json`` and the tensor file it names. The JSON is renamed into place
after the tensors are on disk, and holds their checksum, so it never speaks of tensors that are not there.
The one before is kept as ``last.previous.json`` with its own tensors, for the day the newest is found
damaged.
"""

from __future__ import annotations

import json
import logging
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nfbmr.errors import CheckpointError
from nfbmr.paths import atomic

log = logging.getLogger(__name__)

_Tensors = dict[str, Tensor]


def save(
    folder: Path, name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], *, previous: bool = True
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        folder: Made where it is missing. One process at a time may write to it.
        name: The checkpoint's name in it.
        tensors: On any device, in any layout.
        meta: Anything that JSON can hold.
        previous: Whether the checkpoint of that name so far is kept beside it.

    Raises:
        OutputError: The disk is full or read-only. What was there before still is.
    """
    tensor_file = folder / f"{name}-{uuid.uuid4().hex[:8]}.safetensors"
    with atomic(tensor_file) as temporary:
        try:
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        checksum = _checksum(temporary)
    document = {"tensors": tensor_file.name, "crc32": checksum, "meta": dict(meta)}
    newest, before = _documents(folder, name)
    try:
        with atomic(newest) as temporary:
            temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
            if newest.exists():
                newest.replace(before)
    except BaseException:
        tensor_file.unlink(missing_ok=True)
        raise
    if not previous:
        before.unlink(missing_ok=True)
    _sweep(folder, name)


def load(folder: Path, name: str) -> tuple[_Tensors, dict[str, Any]]:
    """Read the newest checkpoint of a name that is whole.

    Returns:
        Its tensors, on the CPU, and its meta data.

    Raises:
        CheckpointError: There is none, or all are damaged.
    """
    damage: list[str] = []
    for path in _documents(folder, name):
        if not path.exists():
            continue
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            tensor_file = path.parent / document["tensors"]
            if _checksum(tensor_file) != document["crc32"]:
                raise ValueError(f"{tensor_file.name} does not have the bytes that were written")
            checkpoint = load_file(tensor_file), document["meta"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            damage.append(f"{path.name}: {error}")
            continue
        if damage:
            log.warning("damaged checkpoint (%s); going on from the one before it", "; ".join(damage))
        return checkpoint
    what = f"the checkpoint is damaged ({'; '.join(damage)})" if damage else "there is no checkpoint"
    raise CheckpointError(
        what, where=folder / name, fix="delete the folder to train this stage from its start"
    )


def exists(folder: Path, name: str) -> bool:
    """Whether there is a checkpoint of that name, whole or not."""
    return any(path.exists() for path in _documents(folder, name))


def check_identity(stored: Mapping[str, Any], wanted: Mapping[str, Any], *, where: Path) -> None:
    """Refuse a checkpoint of another configuration.

    Raises:
        CheckpointError: Names every field that differs, with both values.
    """
    found_flat, wanted_flat = _flat(stored), _flat(json.loads(json.dumps(wanted, default=str)))
    differing = [
        f"{key} was {found_flat.get(key, 'absent')}, is {wanted_flat.get(key, 'absent')}"
        for key in sorted(found_flat.keys() | wanted_flat.keys())
        if found_flat.get(key, "absent") != wanted_flat.get(key, "absent")
    ]
    if differing:
        raise CheckpointError(
            f"the checkpoint is of another configuration ({'; '.join(differing)})",
            where=where,
            fix="use the configuration it was made with, or another output folder",
        )


def _documents(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.json", folder / f"{name}.previous.json"


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            value = zlib.crc32(chunk, value)
    return value


def _sweep(folder: Path, name: str) -> None:
    """Remove tensors that no document names, and what a killed writer left half written."""
    named: set[str] = set()
    for path in _documents(folder, name):
        try:
            named.add(json.loads(path.read_text(encoding="utf-8"))["tensors"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    for path in [*folder.glob(f"{name}-*.safetensors"), *folder.glob(f".{name}-*.safetensors.*.tmp")]:
        if path.name not in named:
            path.unlink(missing_ok=True)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat
