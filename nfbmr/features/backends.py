"""Where a store can be: a folder, or an object store."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from nfbmr.addresses import ObjectPath, store_address
from nfbmr.errors import CheckpointError, OutputError
from nfbmr.features.remote import ObjectStore
from nfbmr.features.shards import MEND, verify_shard
from nfbmr.features.trees import File, Tree
from nfbmr.locks import is_locked, lock_open_file, open_lock_file
from nfbmr.tensors import read_tensors

_REMOVED = ".removed"


def tree_of(store: Path | str) -> Tree:
    """The files of the store at a folder or an address.

    Raises:
        StoreError: The address cannot be used.
    """
    address = store_address(store)
    if isinstance(address, ObjectPath):
        return ObjectStore(address)
    return Folder(address)


class Folder:
    """A store in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def files(self, folder: str) -> dict[str, File]:
        """See :class:`Tree`; hidden folders, which are on their way out, are left alone."""
        files = {}
        for path in (self.root / folder).glob("[!.]*/**/*"):
            try:
                status = path.stat()
            except OSError:  # removed in between
                continue
            if path.is_file():
                name = path.relative_to(self.root / folder).as_posix()
                files[name] = File(status.st_size, status.st_mtime)
        return files

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
        return is_locked(self.root / lock)

    def remove(self, folder: str, lock: str, dry_run: bool) -> bool:
        """See :class:`Tree`."""
        path = self.root / folder
        if not path.exists():
            return True  # another process has just removed it
        handle = open_lock_file(path / lock)
        try:
            lock_open_file(handle, wait=False)
            if not dry_run:
                for leftover in path.parent.glob(f".*{_REMOVED}"):  # of a prune that was killed
                    shutil.rmtree(leftover, ignore_errors=True)
                # Gone under its name at once, so that nobody can open half of it.
                bin_ = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_REMOVED}")
                path.rename(bin_)
                shutil.rmtree(bin_)
        except BlockingIOError:
            return False
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
