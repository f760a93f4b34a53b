"""What a job takes along: the code of this project, the files its command names, and nothing else.

``ray job submit --working-dir .`` sends the whole folder, at most 100 MB of it. Here the packages are
gathered by name, so data, stores, runs, caches, ``.git`` and ``.venv`` stay where they are, and so does
whatever else lies about. They are measured all the same, so that a person can see what is not sent.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nfbmr.text import size_of

PACKAGES = ("nfbmr", "tune", "cluster", "mlflow_server")
"""Packages of this project that travel with a job."""
LIMIT = 100 * 10**6
"""Bytes that Ray is ready to keep for a job."""

_MOST_ENTRIES = 20_000
_NOT_CODE = ("__pycache__", "deploy")  # what clusters are made of, and their passwords


@dataclass(frozen=True)
class LeftOut:
    """Something beside the code that is not sent.

    Attributes:
        name: Relative to the folder it lies in.
        size: In bytes.
        counted: Whether that is all of it; folders of very many files are not counted to the end.
    """

    name: str
    size: int
    counted: bool = True

    def __str__(self) -> str:
        return f"{self.name} {'' if self.counted else 'over '}{size_of(self.size)}"


@dataclass(frozen=True)
class Upload:
    """Files by the name they will have in the job's working directory."""

    files: Mapping[str, Path]
    left_out: tuple[LeftOut, ...] = field(default=())

    @property
    def size(self) -> int:
        """In bytes, before Ray packs them."""
        return sum(path.stat().st_size for path in self.files.values())

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A folder that holds copies of the files, for as long as the block runs."""
        with tempfile.TemporaryDirectory(prefix="nfbmr-job-") as folder:
            for name, path in self.files.items():
                copy = Path(folder) / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            yield Path(folder)

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "files": len(self.files),
            "bytes": self.size,
            "left_out": [{"name": each.name, "bytes": each.size} for each in self.left_out],
        }


def gather(extra: Mapping[str, Path] | None = None, *, root: Path | None = None) -> Upload:
    """What to send.

    Args:
        extra: Further files, by the name they are to have.
        root: The folder that holds the packages; the one they were imported from, where it is not given.
    """
    root = root or Path(__file__).resolve().parents[2]
    files = {
        path.relative_to(root).as_posix(): path for package in PACKAGES for path in _code(root / package)
    }
    return Upload({**files, **(extra or {})}, tuple(_beside(root)))


def _code(package: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(package):
        folders[:] = sorted(name for name in folders if name not in _NOT_CODE and not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith((".pyc", ".so")):
                yield Path(folder, name)


def _beside(root: Path) -> Iterator[LeftOut]:
    """What lies beside the code in a checkout; an installed package has only strangers beside it."""
    if not (root / "pyproject.toml").exists():
        return
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name in PACKAGES:
            continue
        size, counted = _size(entry.path) if entry.is_dir(follow_symlinks=False) else (_bytes(entry), True)
        yield LeftOut(entry.name, size, counted)


def _size(folder: str) -> tuple[int, bool]:
    total, seen, waiting = 0, 0, [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                total += _bytes(entry)
        seen += len(entries)
        if seen > _MOST_ENTRIES:
            return total, False
    return total, True


def _bytes(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
