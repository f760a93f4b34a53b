"""One space of a store: rows that were all made the same way. See :mod:`nfbmr.features.store`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nfbmr.errors import Interrupted, OutputError, StoreError
from nfbmr.features.shards import (
    Shard,
    open_shard,
    rows_per_shard,
    shard_paths,
    to_stored,
    write_shard,
)
from nfbmr.features.table import FeatureTable, ShardTable
from nfbmr.locks import file_lock, lock_open_file, never, open_lock_file
from nfbmr.paths import write_json
from nfbmr.text import count

if TYPE_CHECKING:
    from nfbmr.features.mirror import Mirror

log = logging.getLogger(__name__)

_FORMAT = 1
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_STALE_SECONDS = 3600


@dataclass(frozen=True)
class SpaceSpec:
    """All that decides what a row is, but the picture itself.

    Attributes:
        kind: ``"features"``, ``"latents"``, ...
        fields: JSON values; ``dtype`` is the stored type (float16 if not given, bfloat16, float32).

    Example:
        >>> SpaceSpec("features", {"tap": "blocks.5"}).key == SpaceSpec("features", {"tap": "blocks.4"}).key
        False
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """SHA-256 over the kind, every field and the store's format: 24 hexadecimal digits."""
        content = json.dumps([_FORMAT, self.kind, dict(self.fields)], sort_keys=True, allow_nan=False)
        return hashlib.sha256(content.encode()).hexdigest()[:24]

    @property
    def dtype(self) -> torch.dtype:
        """The type rows are stored in."""
        return _DTYPES[self.fields.get("dtype", "float16")]


class Space:
    """Rows of one kind. Open spaces are never pruned; :meth:`close` or forgetting the object lets go."""

    def __init__(self, folder: Path, spec: SpaceSpec, mirror: Mirror | None = None) -> None:
        self.folder = folder
        self.spec = spec
        self._mirror = mirror
        self.dtype = spec.dtype
        self._handle = _open_shared(folder, spec)
        self._close = weakref.finalize(self, os.close, self._handle)
        self._shards: dict[str, Shard] = {}
        self._rows: dict[str, Tensor] = {}
        if mirror is not None and shard_paths(folder):
            mirror.push(folder)  # what could not be sent the last time

    def close(self) -> None:
        """Let go of the space; it may then be pruned. Tables made of it stay readable."""
        self._close()

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of a row; None while there is none."""
        if not self._shards:
            self.refresh()
        for row_HWC in self._rows.values():
            height, width, channels = row_HWC.shape
            return channels, height, width
        return None

    def refresh(self) -> None:
        """Take up what other processes have written.

        Raises:
            CorruptShardError: A shard is damaged.
        """
        for path in shard_paths(self.folder):
            if path.name in self._shards:
                continue
            try:
                shard = open_shard(path, self.dtype)
            except FileNotFoundError:  # mended by another process in between
                continue
            self._shards[path.name] = shard
            for key, row_HWC in zip(shard.keys, shard.rows_NHWC.unbind(), strict=True):
                self._rows.setdefault(key, row_HWC)

    def missing(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Keys of which there is no row yet, each once, in their order.

        Raises:
            CorruptShardError: A shard is damaged.
        """
        self.refresh()
        lacking = tuple(key for key in dict.fromkeys(keys) if key not in self._rows)
        if lacking and self._mirror is not None and self._mirror.pull(self.folder):
            self.refresh()
            lacking = tuple(key for key in lacking if key not in self._rows)
        return lacking

    def append(self, keys: Sequence[str], rows_NCHW: Tensor) -> None:
        """Write rows; when this returns they are on disk. Needs no lock, and a repeated key does no harm.

        Args:
            keys: One a row.
            rows_NCHW: Any floating type; values beyond the stored type's range become its largest.

        Raises:
            OutputError: The disk is full or cannot be written; nothing half-written remains.
            StoreError: The rows have another shape than those already here.
        """
        if len(keys) != len(rows_NCHW):
            raise StoreError(
                f"{count(len(keys), 'key')} for {count(len(rows_NCHW), 'row')}", where=self.folder
            )
        shape = self.shape
        if shape is not None and tuple(rows_NCHW.shape[1:]) != shape:
            raise StoreError(
                f"rows of shape {tuple(rows_NCHW.shape[1:])} in a space of {shape}",
                where=self.folder,
                fix="what decides the shape must be a field of the spec",
            )
        step = rows_per_shard(rows_NCHW[0].numel() * self.dtype.itemsize) if len(keys) else 1
        for start in range(0, len(keys), step):
            part = slice(start, start + step)
            path = write_shard(self.folder, keys[part], to_stored(rows_NCHW[part], self.dtype))
            if self._mirror is not None:
                self._mirror.push(self.folder, [path])

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Collects rows to full shards; what is left is written at the end, also when the block fails."""
        writer = Writer(self)
        try:
            yield writer
        except OutputError:
            raise
        except BaseException:
            writer.flush()
            raise
        else:
            writer.flush()

    def table(self, keys: Sequence[str]) -> FeatureTable:
        """Rows of these keys, in this order, mapped into memory.

        Raises:
            CorruptShardError: A shard is damaged.
            StoreError: Some rows are not there.
        """
        missing = self.missing(keys)
        shape = self.shape
        if missing or shape is None:
            raise StoreError(
                f"the store lacks {len(missing)} of {count(len(keys), 'row')}",
                where=self.folder,
                fix="run `nfbmr features build`, or train again: only what is missing is computed",
            )
        return ShardTable(
            keys, [self._rows[key] for key in keys], shape, self.dtype, self.spec.key, owner=self
        )

    @contextmanager
    def lock(self, stop: Callable[[], bool] | None = None) -> Iterator[None]:
        """Hold the right to compute rows of this space; others wait, on other machines too.

        Freed by the system if the process dies, and a minute later for other machines.

        Ask :meth:`missing` again inside: while waiting, another process may have written what was missing.

        Args:
            stop: Read while waiting; True gives up.

        Raises:
            Interrupted: `stop` said so.
        """
        with file_lock(
            self.folder / "builder.lock",
            held=lambda: Interrupted("stopped while another process fills the same space", where=self.folder),
            give_up=stop or never,
            on_wait=lambda: log.info("another process is filling this space; waiting for it"),
        ):
            _remove_leftovers(self.folder)
            with nullcontext() if self._mirror is None else self._mirror.claim(self.folder, stop or never):
                yield


class Writer:
    """Rows on their way into a space: at most one shard's worth is held."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._keys: list[str] = []
        self._parts: list[Tensor] = []

    def add(self, keys: Sequence[str], rows_NCHW: Tensor) -> None:
        """Take rows; whenever a shard is full it is written."""
        if not len(keys):
            return
        limit = rows_per_shard(rows_NCHW[0].numel() * self._space.dtype.itemsize)
        for key, row in zip(keys, to_stored(rows_NCHW, self._space.dtype), strict=True):
            self._keys.append(key)
            self._parts.append(row)
            if len(self._keys) >= limit:
                self.flush()

    def flush(self) -> None:
        """Write what is held."""
        keys, parts = self._keys, self._parts
        self._keys, self._parts = [], []
        if keys:
            self._space.append(keys, torch.stack(parts).permute(0, 3, 1, 2))


# --- files and locks --------------------------------------------------------------------------------------


def _open_shared(folder: Path, spec: SpaceSpec) -> int:
    """Make the space if need be and hold its use.lock; a space removed in between is made anew."""
    lock = folder / "use.lock"
    while True:
        if not (folder / "space.json").exists():
            about = {"format": _FORMAT, "key": spec.key, "kind": spec.kind, "fields": dict(spec.fields)}
            write_json(folder / "space.json", {**about, "created": time.time()})
        handle = open_lock_file(lock)
        lock_open_file(handle, shared=True)
        try:
            current = lock.stat().st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            current = False
        if current and (folder / "space.json").exists():
            with suppress(OSError):  # a store that can only be read
                os.utime(lock)
            return handle
        os.close(handle)


def _remove_leftovers(folder: Path) -> None:
    """Temporary files of processes that were killed."""
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
        except OSError:
            continue
