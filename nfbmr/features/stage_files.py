"""Where a store has fitted stages, what their files are called, and whether they are as they were written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

STAGES, FLOWS = "stages", "flows"
"""Folders of fitted stages in a store; stores had them in the second one before, which is still used."""


class StageFiles(NamedTuple):
    """Names of a fitted stage's files: weights, what they are, and the checksums of both."""

    weights: str
    about: str
    sums: str

    @classmethod
    def of(cls, folder: PurePath | str) -> StageFiles:
        """As they are called in a stage's folder.

        Example:
            >>> StageFiles.of("stages/0a1b").weights, StageFiles.of("flows/0a1b").about
            ('stage.safetensors', 'flow.json')
        """
        stem = "flow" if PurePath(folder).parent.name == FLOWS else "stage"
        return cls(f"{stem}.safetensors", f"{stem}.json", f"{stem}.sha256")


def weights_digest(path: Path) -> str:
    """SHA-256 of a fitted stage's weights: a network with a flipped bit is a network as well."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def are_as_written(weights: Path, about: Mapping[str, Any]) -> bool:
    """Whether weights have the bytes that their description tells of, where it does: older ones do not."""
    return about.get("sha256") in (None, weights_digest(weights))
