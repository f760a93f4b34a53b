"""Where a store has fitted stages, and what their files are called."""

from __future__ import annotations

from pathlib import PurePath
from typing import NamedTuple

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
