"""A content-addressed store of maps: computed once, read by every later run, without a copy.

A *space* holds rows that were all made the same way: its :class:`SpaceSpec` says which. A row's key says what
it was made of. Nothing here knows of backbones: a flow's latents are a space like any other::

    <root>/spaces/<key of the spec>/space.json     what the rows are
                                    *.arrow        shards: see nfbmr.features.shards
                                    builder.lock   held while rows are computed: none is computed twice
                                    use.lock       held (shared) by whoever has the space open: never pruned

Shards appear whole or not at all, so any number of processes may read and append at once, a killed process
loses at most the rows it had not yet written, and the same row in two shards is harmless.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nfbmr.addresses import ObjectPath, folder_here, store_address
from nfbmr.errors import OutputError, StoreError
from nfbmr.features.space import Space, SpaceSpec, Writer
from nfbmr.features.stage_files import FLOWS, STAGES, StageFiles
from nfbmr.locks import never

if TYPE_CHECKING:
    from nfbmr.features.mirror import Mirror

__all__ = ["FeatureStore", "Space", "SpaceSpec", "Writer", "open_store"]


class FeatureStore:
    """What all runs share: a folder, or an address such as ``s3://bucket/prefix``.

    An address is worked on through this machine's cache, which is an ordinary store; see
    :mod:`nfbmr.features.mirror`.

    Args:
        store: The folder is made when something is first written.

    Attributes:
        root: The folder, or that of the cache.

    Raises:
        StoreError: The object store cannot be used.
    """

    def __init__(self, store: Path | str) -> None:
        address = store_address(store)
        self.root = folder_here(address)
        self._mirror: Mirror | None = None
        if isinstance(address, ObjectPath):
            from nfbmr.features.backends import StoreBackend
            from nfbmr.features.mirror import Mirror

            self._mirror = Mirror(StoreBackend(address), self.root)

    def folder(self, spec: SpaceSpec) -> Path:
        """Where a spec's rows are."""
        return self.root / "spaces" / spec.key

    def exists(self, spec: SpaceSpec) -> bool:
        """Whether there is a space of this spec, filled or not."""
        about = self.folder(spec) / "space.json"
        return about.exists() or bool(self._mirror and self._mirror.has(about))

    def space(self, spec: SpaceSpec) -> Space:
        """Open a space; it is made if there is none.

        Raises:
            OutputError: It cannot be made here.
            StoreError: The folder holds something else.
        """
        return Space(self.folder(spec), spec, self._mirror)

    def stage_place(self, key: str) -> str:
        """Where below the root a fitted stage belongs: ``stages/<key>``, or where stores had it before.

        Args:
            key: Of all that the stage depends on.
        """
        new, old = f"{STAGES}/{key}", f"{FLOWS}/{key}"
        if (self.root / new).exists():
            return new
        sums = self.root / old / StageFiles.of(old).sums
        return old if sums.parent.exists() or (self._mirror and self._mirror.has(sums)) else new

    @contextmanager
    def claim_stage(self, folder: Path, give_up: Callable[[], bool] = never) -> Iterator[bool]:
        """Hold the right to fit a stage among the machines that share an object store.

        Args:
            folder: Of the stage; on this machine its lock is held already.
            give_up: Read while another machine has it.

        Returns:
            Whether the stage may have come meanwhile: another machine may have fitted it.

        Raises:
            Interrupted: `give_up` said so.
        """
        if self._mirror is None:
            yield False
            return
        with self._mirror.claim(folder, give_up):
            self.fetch_stage(folder)
            yield True

    def fetch_stage(self, folder: Path) -> None:
        """Bring a stage that another machine has fitted, where the store is on an object store.

        Args:
            folder: ``<root>/stages/<key>``; its ``stage.safetensors`` and then ``stage.json`` appear.
        """
        if self._mirror is not None:
            self._mirror.exchange_stage(folder)

    def publish_stage(self, folder: Path) -> None:
        """Let other machines have a stage that is fitted, where the store is on an object store."""
        if self._mirror is not None:
            self._mirror.push_stage(folder)


def open_store(store: Path | str) -> FeatureStore:
    """The store of a configuration, found fit for use: what is wrong with it is said before work begins.

    Raises:
        StoreError: It is a file, or an object store that cannot be used.
        OutputError: It cannot be made or written.
    """
    root = folder_here(Path(store))
    try:
        if root.exists() and not root.is_dir():
            raise StoreError(
                "the store is a file, not a folder", where=root, fix="name another folder (--store)"
            )
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        raise OutputError(
            f"the store cannot be written ({error.strerror or error})",
            where=root,
            fix="name another folder (--store), or free some space",
        ) from error
    return FeatureStore(store)
