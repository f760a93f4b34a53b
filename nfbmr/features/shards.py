"""One shard: an Arrow file of keys and maps, written whole or not at all, mapped into memory to be read.

A shard's name says when it was written, how many rows and bytes it has and what their SHA-256 is::

    18a3f0c2b5d3e1f7-64-29491698-5f0e...c1.arrow

so that a truncated file is noticed on opening, and any flipped bit by :func:`verify_shard`.
Maps lie as H W C: what is read is channels_last without a copy.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nfbmr.errors import CorruptShardError, StoreError
from nfbmr.paths import atomic

_SUFFIX = ".arrow"
_MAX_ROWS = 64
_MAX_BYTES = 32 << 20
MEND = "run `nfbmr features verify --repair`: it removes the shard, and only its rows are computed again"
"""What to do about a damaged shard, for messages."""

# Arrow has no bfloat16: it is kept as uint16, bit for bit.
_AS_INTEGERS = {torch.bfloat16: torch.uint16}


@dataclass(frozen=True)
class Shard:
    """A shard, mapped into memory.

    Attributes:
        keys: Of its rows.
        rows_NHWC: Views of the file. Writing to them changes neither the file nor another process.
    """

    keys: tuple[str, ...]
    rows_NHWC: Tensor


@dataclass(frozen=True, order=True)
class ShardName:
    """What a shard's file name says."""

    written: str
    rows: int
    size: int
    sha: str

    @classmethod
    def of(cls, path: Path) -> ShardName | None:
        """Read a file's name; None if it is not a shard."""
        if not cls.is_one(path.name):
            return None
        written, rows, size, sha = path.name.removesuffix(_SUFFIX).split("-")
        return cls(written, int(rows), int(size), sha)

    @staticmethod
    def is_one(name: str) -> bool:
        """Whether a file's name is that of a shard."""
        parts = name.removesuffix(_SUFFIX).split("-")
        return name.endswith(_SUFFIX) and len(parts) == 4 and (parts[1] + parts[2]).isdecimal()


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a space, oldest first."""
    try:
        # As text: of thousands of paths the making and comparing would take longer than the reading.
        names = sorted(entry.name for entry in os.scandir(folder) if ShardName.is_one(entry.name))
        return [folder / name for name in names]
    except FileNotFoundError:
        return []


def rows_per_shard(row_bytes: int) -> int:
    """How many rows a full shard has."""
    return max(1, min(_MAX_ROWS, _MAX_BYTES // max(1, row_bytes)))


def to_stored(rows_NCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows as (N, H, W, C) in the stored type; what is too large for it becomes its largest value.

    Example:
        >>> to_stored(torch.full((1, 1, 1, 1), 1e6), torch.float16).item()
        65504.0
    """
    limit = torch.finfo(dtype).max
    rows = rows_NCHW.detach().cpu()
    if rows.dtype != dtype:
        # Clamped after the cast: the limit of one type is not a number of every other.
        rows = rows.to(dtype).clamp(-limit, limit)
    return rows.permute(0, 2, 3, 1).contiguous()


def write_shard(folder: Path, keys: Sequence[str], rows_NHWC: Tensor) -> Path:
    """Write rows to a new shard.

    Args:
        folder: Of the space.
        keys: One a row.
        rows_NHWC: In the stored type, laid out in memory in any way.

    Raises:
        OutputError: The disk is full or the folder cannot be written; nothing half-written remains.
    """
    import pyarrow as pa

    integers = _AS_INTEGERS.get(rows_NHWC.dtype)
    # The axes' order is stated. Arrow's own conversion takes it from the strides: an axis of one element may
    # have any stride and still count as contiguous, and rows would come back with their axes exchanged.
    flat = rows_NHWC.contiguous().flatten()
    values = pa.array((flat.view(integers) if integers else flat).numpy())
    row_HWC = pa.fixed_shape_tensor(values.type, rows_NHWC.shape[1:])
    maps = pa.ExtensionArray.from_storage(
        row_HWC, pa.FixedSizeListArray.from_arrays(values, type=row_HWC.storage_type)
    )
    batch = pa.record_batch([pa.array(list(keys), pa.string()), maps], names=["key", "map_HWC"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content = sink.getvalue()
    sha = hashlib.sha256(content).hexdigest()[:32]
    path = folder / f"{time.time_ns():016x}-{len(keys)}-{content.size}-{sha}.arrow"
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(content)
    return path


def open_shard(path: Path, dtype: torch.dtype) -> Shard:
    """Map a shard into memory.

    Raises:
        CorruptShardError: It is not as long as its name says, or not readable as Arrow.
        FileNotFoundError: It was removed meanwhile.
    """
    import pyarrow as pa

    name = ShardName.of(path)
    size = path.stat().st_size
    if name is None or size != name.size:
        raise CorruptShardError(
            f"shard of {size} bytes instead of {name.size if name else '?'}", where=path, fix=MEND
        )
    # A private mapping: zero-copy, and a stray write in this process never reaches the file.
    raw = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    try:
        with pa.ipc.open_file(pa.BufferReader(pa.py_buffer(raw.numpy()))) as reader:
            batch = reader.get_batch(0)
        batch.column("key").validate(full=True)  # a damaged offset must not be followed
        keys = tuple(batch.column("key").to_pylist())
        maps = batch.column("map_HWC")
        offset = maps.storage.flatten().buffers()[1].address - raw.data_ptr()
        shape = (len(keys), *maps.type.shape)
        flat = raw[offset : offset + torch.Size(shape).numel() * dtype.itemsize].view(dtype)
        return Shard(keys, flat.view(shape))
    except (pa.ArrowException, RuntimeError, AttributeError, KeyError, OSError, UnicodeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise CorruptShardError(f"unreadable shard ({reason})", where=path, fix=MEND) from error


def verify_shard(path: Path) -> bool:
    """Whether a shard's bytes are those that were written."""
    name = ShardName.of(path)
    try:
        with path.open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"cannot be read ({error.strerror})", where=path, fix="check the disk") from error
    return name is not None and sha.startswith(name.sha)
