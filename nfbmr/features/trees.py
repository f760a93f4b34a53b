"""The files of a store, wherever it is: what looking after it needs of a folder, or of an object store."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import NamedTuple, Protocol

from nfbmr.addresses import ObjectPath, store_address
from nfbmr.errors import CheckpointError, OutputError
from nfbmr.features.locks import is_held, open_lock, try_lock
from nfbmr.features.shards import MEND, verify_shard
from nfbmr.tensors import read_tensors

_REMOVED = ".removed"


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


def tree_of(store: Path | str) -> Tree:
    """The files of the store at a folder or an address.

    Raises:
        StoreError: The address cannot be used.
    """
    address = store_address(store)
    if isinstance(address, ObjectPath):
        from nfbmr.features.remote import ObjectStore

        return ObjectStore(address)
    return Folder(address)


class Folder:
    """A store in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def files(self, folder: str) -> dict[str, File]:
        """See :class:`Tree`; hidden folders, which are on their way out, are left alone."""
        found = {}
        for path in (self.root / folder).glob("[!.]*/**/*"):
            try:
                status = path.stat()
            except OSError:  # removed in between
                continue
            if path.is_file():
                name = path.relative_to(self.root / folder).as_posix()
                found[name] = File(status.st_size, status.st_mtime)
        return found

    def read(self, name: str) -> bytes | None:
        """See :class:`Tree`."""
        try:
            return (self.root / name).read_bytes()
        except OSError:
            return None

    def is_whole(self, name: str) -> bool:
        """See :class:`Tree`."""
        return verify_shard(self.root / name)

    def is_whole_flow(self, folder: str) -> bool:
        """See :class:`Tree`."""
        try:
            return bool(read_tensors(self.root / folder / "flow.safetensors"))
        except CheckpointError:
            return False

    def is_held(self, lock: str) -> bool:
        """See :class:`Tree`."""
        return is_held(self.root / lock)

    def remove(self, folder: str, lock: str, dry_run: bool) -> bool:
        """See :class:`Tree`."""
        path = self.root / folder
        if not path.exists():
            return True  # another process has just removed it
        handle = open_lock(path / lock)
        try:
            if not try_lock(handle):
                return False
            if not dry_run:
                for leftover in path.parent.glob(f".*{_REMOVED}"):  # of a prune that was killed
                    shutil.rmtree(leftover, ignore_errors=True)
                # Gone under its name at once, so that nobody can open half of it.
                bin_ = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_REMOVED}")
                path.rename(bin_)
                shutil.rmtree(bin_)
        except OSError as error:
            raise OutputError(f"cannot be removed ({error.strerror})", where=path) from error
        finally:
            os.close(handle)
        return True

    def discard(self, name: str) -> None:
        """See :class:`Tree`."""
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot be removed ({error.strerror})", where=self.root / name, fix=MEND
            ) from error
