"""The files of a store, in a folder or in an object store: what looking after it and sharing it need."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path

from nfbmr.errors import CheckpointError, OutputError
from nfbmr.features.files import File, Files
from nfbmr.features.shards import MEND, ShardName
from nfbmr.features.stage_files import StageFiles, are_as_written
from nfbmr.locks import is_locked, lock_open_file, open_lock_file
from nfbmr.paths import read_json
from nfbmr.tensors import read_tensors

_FORMAT = 1
_REMOVED = ".removed"


class StoreBackend(Files):
    """A store's files, by their names below its root.

    Args:
        store: Its folder or address.

    Raises:
        StoreError: The address cannot be used, the bucket is missing, access is refused, or the server cannot
            be reached.
    """

    def __init__(self, store: Path | str) -> None:
        super().__init__(store)
        self.check()

    def mark(self) -> None:
        """Write down that this is a store, which also shows that it can be written."""
        if self.read("store.json") is None:
            self.write("store.json", json.dumps({"format": _FORMAT}).encode())

    def files(self, folder: str = "") -> dict[str, File]:
        """See :meth:`Files.files`; hidden folders, which are on their way out, are left alone."""
        return {name: file for name, file in super().files(folder).items() if not name.startswith(".")}

    def is_whole(self, name: str) -> bool:
        """Whether a shard's bytes are those that its name tells of."""
        shard = ShardName.of(Path(name))
        return shard is not None and self.checksum(name).startswith(shard.sha)

    def stage_sums(self, folder: str) -> dict[str, str] | None:
        """SHA-256 of a fitted stage's files, by their names; None where they have not been sent whole."""
        content = self.read(f"{folder}/{StageFiles.of(folder).sums}")
        if content is None:
            return None
        lines = (line.partition("  ") for line in content.decode(errors="replace").splitlines())
        return {file: sha for sha, _, file in lines}

    def is_whole_stage(self, folder: str) -> bool:
        """Whether a fitted stage has the bytes that were sent or written, and can be read."""
        weights, about, _ = StageFiles.of(folder)
        if self.in_object_store:
            sums = self.stage_sums(folder) or {}
            return all(sums.get(file) == self.checksum(f"{folder}/{file}") for file in (weights, about))
        path, described = self.root / folder / weights, self.root / folder / about
        try:
            whole = bool(read_tensors(path))
            return whole and (not described.exists() or are_as_written(path, read_json(described)))
        except CheckpointError:
            return False

    def is_held(self, lock: str) -> bool:
        """Whether a process holds this lock; none reaches from one machine to another."""
        return not self.in_object_store and is_locked(self.root / lock)

    def remove(self, folder: str, lock: str, dry_run: bool) -> bool:
        """Remove a folder; False if a process holds its lock.

        Raises:
            OutputError: It cannot be removed.
        """
        if not self.in_object_store:
            return _remove_unheld(self.root / folder, lock, dry_run)
        if not dry_run:
            self.discard_folder(folder)
        return True

    def discard(self, name: str) -> None:
        """Remove a file; with any file of a stage its checksums go, by which it is known to be there."""
        folder, _, file = name.rpartition("/")
        stage = StageFiles.of(folder)
        for each in {file, stage.sums} if file in stage else {file}:
            super().discard(f"{folder}/{each}")


def _remove_unheld(path: Path, lock: str, dry_run: bool) -> bool:
    """Remove a folder that no process holds the lock of.

    By the system's own calls: pyarrow removes file by file and knows no locks, so that another process could
    open half of a space.
    """
    if not path.exists():
        return True  # another process has just removed it
    handle = open_lock_file(path / lock)
    try:
        lock_open_file(handle, wait=False)
        if not dry_run:
            for leftover in path.parent.glob(f".*{_REMOVED}"):  # of a prune that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            bin_ = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_REMOVED}")
            path.rename(bin_)  # gone under its name at once
            shutil.rmtree(bin_)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OutputError(f"cannot be removed ({error.strerror})", where=path, fix=MEND) from error
    finally:
        os.close(handle)
    return True
