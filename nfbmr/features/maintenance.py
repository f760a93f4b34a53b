"""What a store holds, whether it is sound, and making room: for spaces and for fitted stages.

All of it works on a :class:`~nfbmr.features.backends.StoreBackend`, in a folder or in an object store.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from nfbmr.errors import StoreError
from nfbmr.features.backends import StoreBackend
from nfbmr.features.files import File
from nfbmr.features.shards import ShardName
from nfbmr.features.stage_files import FLOWS, STAGES, StageFiles

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpaceInfo:
    """A space as `nfbmr features list` shows it.

    Attributes:
        shards: Names of its shards.
        used: When it was last opened; on an object store, when something was last added.
    """

    key: str
    kind: str
    fields: Mapping[str, Any]
    rows: int
    shards: tuple[str, ...]
    size: int
    created: float
    used: float

    lock = "use.lock"

    @property
    def folder(self) -> str:
        """Below the store's root."""
        return f"spaces/{self.key}"

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "key": self.key, "kind": self.kind, "fields": dict(self.fields), "rows": self.rows,
            "shards": len(self.shards), "bytes": self.size, "created": self.created, "used": self.used,
        }  # fmt: skip


@dataclass(frozen=True)
class StageInfo:
    """A fitted stage, or one that is or was being trained.

    Attributes:
        folder: Below the store's root.
        state: Whether it is finished, a process trains it now, or training was left off.
        identity: All that it depends on; empty until it is finished.
        seen: What made the features that it was trained on, where their space is in the store.
        epoch: The epoch that was kept.
        used: When its latents, or its own files, were last used.
    """

    key: str
    folder: str
    state: Literal["trained", "in training", "unfinished"]
    identity: Mapping[str, Any]
    seen: Mapping[str, Any]
    epoch: int | None
    size: int
    created: float
    used: float

    lock = "lock"

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "key": self.key, "state": self.state, "identity": dict(self.identity), "seen": dict(self.seen),
            "epoch": self.epoch, "bytes": self.size, "created": self.created, "used": self.used,
        }  # fmt: skip


_Info = TypeVar("_Info", SpaceInfo, StageInfo)


# ------------------------------------------------------------------------------------------------ listing


def list_spaces(store: Path | str | StoreBackend) -> tuple[SpaceInfo, ...]:
    """The spaces of a store, the most recently used first; names only are read, so it is quick."""
    backend = _backend(store)
    infos = []
    for key, files in _by_key(backend.files("spaces")).items():
        about = _json(backend, f"spaces/{key}/space.json")
        if about is None:
            log.warning("not a space: %s", key)
            continue
        names = {file: name for file in files if (name := ShardName.of(Path(file)))}
        infos.append(
            SpaceInfo(
                key=key,
                kind=about["kind"],
                fields=about["fields"],
                rows=sum(name.rows for name in names.values()),
                shards=tuple(sorted(names)),
                size=sum(name.size for name in names.values()),
                created=about["created"],
                used=files["use.lock"].written if "use.lock" in files else _newest(files),
            )
        )
    return _latest_first(infos)


def list_stages(
    store: Path | str | StoreBackend, spaces: Sequence[SpaceInfo] | None = None
) -> tuple[StageInfo, ...]:
    """The fitted stages of a store, and those begun, the most recently used first.

    Args:
        store: Its folder or address.
        spaces: What :func:`list_spaces` said of it, where that is known already.
    """
    backend = _backend(store)
    spaces = list_spaces(backend) if spaces is None else spaces
    # A space's fields decide its key: latents call their stage as they always did.
    latents = {str(info.fields.get("flow")): info.used for info in reversed(spaces) if info.kind == "latents"}
    made_by = {info.key: info.fields for info in spaces}
    infos = []
    for place in (STAGES, FLOWS):
        for key, files in _by_key(backend.files(place)).items():
            folder = f"{place}/{key}"
            about = _json(backend, f"{folder}/{StageFiles.of(folder).about}")
            held = backend.is_held(f"{folder}/{StageInfo.lock}")
            identity = {} if about is None else about.get("identity", {})
            begun = "in training" if held else "unfinished"
            infos.append(
                StageInfo(
                    key=key,
                    folder=folder,
                    state="trained" if about is not None else begun,  # type: ignore[arg-type]
                    identity=identity,
                    seen=made_by.get(identity.get("features", ""), {}),
                    epoch=None if about is None else about.get("epoch"),
                    size=sum(file.size for file in files.values()),
                    created=min(file.written for file in files.values()),
                    used=max(_newest(files), latents.get(key, 0.0)),
                )
            )
    return _latest_first(infos)


# ---------------------------------------------------------------------------------------------- verifying


@dataclass(frozen=True)
class Verified:
    """What reading every byte of a store found; damaged files by their names below its root."""

    shards: int
    rows: int
    stages: int
    damaged: tuple[str, ...]


def verify(store: Path | str | StoreBackend, *, spaces: Sequence[str] = (), repair: bool = False) -> Verified:
    """Read every byte of a store: shards against their checksums, stages as far as their format tells.

    What another process removes meanwhile is not damaged, and does not count.

    Args:
        store: Its folder or address.
        spaces: Keys (or unambiguous beginnings of keys) of spaces: these alone are read, and no stages.
        repair: Remove what is damaged: only that is then computed again.

    Raises:
        StoreError: Something damaged cannot be removed; a key names no space, or several.
    """
    backend = _backend(store)
    every = list_spaces(backend)
    chosen = {_one(every, key, "space").key for key in spaces}
    stages = [] if chosen else [info for info in list_stages(backend, every) if info.state == "trained"]
    asked = [info for info in every if info.key in chosen] if chosen else every
    shards = [f"{info.folder}/{name}" for info in asked for name in info.shards]
    broken = [name for name in shards if not backend.is_whole(name)]
    whole = set(shards).difference(broken)
    damaged = [name for name in broken if backend.exists(name)]
    rows = sum(name.rows for path in whole if (name := ShardName.of(Path(path))))
    broken = [info.folder for info in stages if not backend.is_whole_stage(info.folder)]
    bad = [folder for folder in broken if backend.exists(f"{folder}/{StageFiles.of(folder).about}")]
    checked = len(whole) + len(damaged), len(stages) - len(broken) + len(bad)
    damaged += [f"{folder}/{StageFiles.of(folder).weights}" for folder in bad]
    if repair:
        # A stage's description goes first: without it the stage is not in the store.
        for file in [*(f"{folder}/{StageFiles.of(folder).about}" for folder in bad), *damaged]:
            backend.discard(file)
    return Verified(checked[0], rows, checked[1], tuple(damaged))


# ------------------------------------------------------------------------------------------------ pruning


@dataclass(frozen=True)
class Pruned(Generic[_Info]):
    """What was removed (or would be), and what was left because a process uses it."""

    removed: tuple[_Info, ...]
    held: tuple[_Info, ...]


def prune(
    store: Path | str | StoreBackend,
    *,
    keep: int | None = None,
    older_than_days: float | None = None,
    spaces: Sequence[str] = (),
    dry_run: bool = False,
) -> Pruned[SpaceInfo]:
    """Remove spaces that nobody has open.

    Args:
        store: Its folder or address. On an object store nobody is seen to have a space open; a machine that
            does has its shards in its cache.
        keep: Remove all but this many, the most recently used ones staying.
        older_than_days: Remove those not used for this long.
        spaces: Remove these keys (or unambiguous beginnings of keys).
        dry_run: Only say what would be removed.

    Raises:
        StoreError: A key names no space, or several.
    """
    backend = _backend(store)
    return _pruned(backend, list_spaces(backend), keep, older_than_days, spaces, dry_run, what="space")


def prune_stages(
    store: Path | str | StoreBackend,
    *,
    keep: int | None = None,
    older_than_days: float | None = None,
    stages: Sequence[str] = (),
    dry_run: bool = False,
) -> Pruned[StageInfo]:
    """Remove stages that nobody trains at the moment; arguments as for :func:`prune`."""
    backend = _backend(store)
    return _pruned(backend, list_stages(backend), keep, older_than_days, stages, dry_run, what="stage")


def _pruned(
    backend: StoreBackend,
    infos: Sequence[_Info],
    keep: int | None,
    older_than_days: float | None,
    keys: Sequence[str],
    dry_run: bool,
    *,
    what: str,
) -> Pruned[_Info]:
    chosen = {_one(infos, key, what).key for key in keys}
    if keep is not None:
        chosen |= {info.key for info in infos[keep:]}
    if older_than_days is not None:
        oldest = time.time() - older_than_days * 86400
        chosen |= {info.key for info in infos if info.used < oldest}
    removed: list[_Info] = []
    held: list[_Info] = []
    for info in infos:
        if info.key in chosen:
            gone = backend.remove(info.folder, info.lock, dry_run)
            (removed if gone else held).append(info)
    return Pruned(tuple(removed), tuple(held))


def _one(infos: Sequence[_Info], key: str, what: str) -> _Info:
    matching = [info for info in infos if info.key.startswith(key)]
    if len({info.key for info in matching}) != 1:
        raise StoreError(
            f"no such {what}" if not matching else f"{len(matching)} {what}s begin with this key",
            where=key,
            fix="nfbmr features list shows the keys",
        )
    return matching[0]


def _backend(store: Path | str | StoreBackend) -> StoreBackend:
    return store if isinstance(store, StoreBackend) else StoreBackend(store)


def _by_key(files: Mapping[str, File]) -> dict[str, dict[str, File]]:
    """Files below `spaces/` or `stages/`, by the folder that they are in."""
    folders: dict[str, dict[str, File]] = defaultdict(dict)
    for name, file in files.items():
        key, slash, below = name.partition("/")
        if slash:
            folders[key][below] = file
    return folders


def _newest(files: Mapping[str, File]) -> float:
    return max(file.written for file in files.values())


def _json(backend: StoreBackend, name: str) -> Any:
    """A description; None where there is none that can be read."""
    try:
        value = json.loads(backend.read(name) or b"")
    except ValueError:
        return None
    except StoreError:  # another user's, say; an object store that fails is no answer
        if backend.in_object_store:
            raise
        return None
    return value if isinstance(value, dict) else None


def _latest_first(infos: Sequence[_Info]) -> tuple[_Info, ...]:
    return tuple(sorted(infos, key=lambda info: info.used, reverse=True))
