"""What a store holds, and making room: listing and pruning spaces."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfbmr.errors import OutputError, StoreError
from nfbmr.features.shards import ShardName
from nfbmr.features.store import shard_paths, try_lock

log = logging.getLogger(__name__)

_REMOVED = ".removed"


@dataclass(frozen=True)
class SpaceInfo:
    """A space as `nfbmr features list` shows it."""

    key: str
    kind: str
    fields: Mapping[str, Any]
    rows: int
    shards: int
    size: int
    created: float
    used: float
    folder: Path

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "key": self.key, "kind": self.kind, "fields": dict(self.fields), "rows": self.rows,
            "shards": self.shards, "bytes": self.size, "created": self.created, "used": self.used,
        }  # fmt: skip


def list_spaces(root: Path | str) -> tuple[SpaceInfo, ...]:
    """What a store holds, the most recently used first; names only are read, so it is quick."""
    infos = []
    for path in (Path(root) / "spaces").glob("[!.]*/space.json"):
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            used = (path.parent / "use.lock").stat().st_mtime
        except (OSError, ValueError):
            log.warning("not a space: %s", path.parent)
            continue
        names = [name for shard in shard_paths(path.parent) if (name := ShardName.of(shard))]
        rows, size = sum(name.rows for name in names), sum(name.size for name in names)
        infos.append(
            SpaceInfo(
                about["key"],
                about["kind"],
                about["fields"],
                rows,
                len(names),
                size,
                about["created"],
                used,
                path.parent,
            )
        )
    return tuple(sorted(infos, key=lambda info: info.used, reverse=True))


@dataclass(frozen=True)
class Pruned:
    """What :func:`prune` removed (or would remove), and what it left because a process has it open."""

    removed: tuple[SpaceInfo, ...]
    held: tuple[SpaceInfo, ...]


def prune(
    root: Path | str,
    *,
    keep: int | None = None,
    older_than_days: float | None = None,
    spaces: Sequence[str] = (),
    dry_run: bool = False,
) -> Pruned:
    """Remove spaces that nobody has open.

    Args:
        root: The store.
        keep: Remove all but this many, the most recently used ones staying.
        older_than_days: Remove those not used for this long.
        spaces: Remove these keys (or unambiguous beginnings of keys).
        dry_run: Only say what would be removed.

    Raises:
        StoreError: A key names no space, or several.
    """
    infos = list_spaces(root)
    chosen = {_one(infos, key).key for key in spaces}
    if keep is not None:
        chosen |= {info.key for info in infos[keep:]}
    if older_than_days is not None:
        oldest = time.time() - older_than_days * 86400
        chosen |= {info.key for info in infos if info.used < oldest}
    if not dry_run:
        for leftover in (Path(root) / "spaces").glob(f".*{_REMOVED}"):  # of a prune that was killed
            shutil.rmtree(leftover, ignore_errors=True)
    removed: list[SpaceInfo] = []
    held: list[SpaceInfo] = []
    for info in infos:
        if info.key in chosen:
            (removed if _remove_space(info.folder, dry_run) else held).append(info)
    return Pruned(tuple(removed), tuple(held))


def _one(infos: Sequence[SpaceInfo], key: str) -> SpaceInfo:
    found = [info for info in infos if info.key.startswith(key)]
    if len(found) != 1:
        raise StoreError(
            "no such space" if not found else f"{len(found)} spaces begin with this key",
            where=key,
            fix="nfbmr features list shows the keys",
        )
    return found[0]


def _remove_space(folder: Path, dry_run: bool) -> bool:
    """False if a process has it open."""
    try:
        handle = os.open(folder / "use.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True  # another process has just removed it
    try:
        if not try_lock(handle):
            return False
        if not dry_run:
            # Gone under its name at once, so that nobody can open half of it.
            bin_ = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{_REMOVED}")
            folder.rename(bin_)
            shutil.rmtree(bin_)
    except OSError as error:
        raise OutputError(f"cannot be removed ({error.strerror})", where=folder) from error
    finally:
        os.close(handle)
    return True
