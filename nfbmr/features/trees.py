"""The files of a store, wherever it is: what looking after it needs of a folder, or of an object store."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class File(NamedTuple):
    """A file of a store."""

    size: int
    written: float


class Tree(Protocol):
    """The files of a store, by their names below its root."""

    def files(self, folder: str) -> dict[str, File]:
        """Every file below a folder, by its name below that folder."""

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""

    def is_whole(self, name: str) -> bool:
        """Whether a shard's bytes are those that its name tells of."""

    def is_whole_flow(self, folder: str) -> bool:
        """Whether a trained flow can be read."""

    def is_held(self, lock: str) -> bool:
        """Whether a process holds this lock."""

    def remove(self, folder: str, lock: str, dry_run: bool) -> bool:
        """Remove a folder; False if a process holds its lock."""

    def discard(self, name: str) -> None:
        """Remove a file."""
