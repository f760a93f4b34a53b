"""Tensors on disk: safetensors, whole or not at all, and never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nfbmr.errors import CheckpointError
from nfbmr.paths import atomic


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors.

    Raises:
        OutputError: The disk is full or cannot be written; what was there before still is.
    """
    with atomic(path) as temporary:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:  # how a full disk comes out of the library
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"tensors cannot be read ({error})", where=path, fix="copy the file again, or train again"
        ) from error
