"""Every path of a run, in one place; nobody else joins strings."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfbmr.errors import OutputError


@dataclass(frozen=True)
class RunPaths:
    """The folder of one run.

    Example:
        >>> RunPaths(Path("runs/a")).config.as_posix()
        'runs/a/config.yaml'
    """

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def identity(self) -> Path:
        """The run's name, which outlives a moved folder."""
        return self.root / "run.json"

    @property
    def split(self) -> Path:
        """Who trained, validated and tested."""
        return self.root / "split.json"

    @property
    def contents(self) -> Path:
        """Every image of the data set by name: a fingerprint of its bytes."""
        return self.root / "contents.json"

    @property
    def summary(self) -> Path:
        """What ``--json`` prints; written last, so its presence means the run is finished."""
        return self.root / "summary.json"

    @property
    def fitted(self) -> Path:
        """The summary of a run that ends before the test set is read, as a sweep's trials do."""
        return self.root / "fitted.json"

    @property
    def influence(self) -> Path:
        """What each part photographed adds to the validation AUROC, by its name: tells two runs apart."""
        return self.root / "influence.json"

    @property
    def cost(self) -> Path:
        """What using the model costs, where that was measured."""
        return self.root / "cost.json"

    @property
    def scores(self) -> Path:
        """A row per image: score, decision and score components (Parquet)."""
        return self.root / "scores.parquet"

    @property
    def maps(self) -> Path:
        """Part maps of the validation and test images (safetensors)."""
        return self.root / "maps.safetensors"

    @property
    def history(self) -> Path:
        """Losses by stage and epoch."""
        return self.root / "history.json"

    @property
    def environment(self) -> Path:
        """Versions, machine, code revision."""
        return self.root / "environment.json"

    @property
    def model(self) -> Path:
        """Folder of the finished model: all that prediction needs."""
        return self.root / "model"

    @property
    def pictures(self) -> Path:
        """Folder of the run's pictures."""
        return self.root / "pictures"

    @property
    def report(self) -> Path:
        """The single-file HTML report."""
        return self.root / "report.html"

    @property
    def journal(self) -> Path:
        """Folder of the tracking journal."""
        return self.root / "tracking"

    @property
    def lock(self) -> Path:
        """Held by the one process that works on the run, where several might: trials that are tried again."""
        return self.root / "lock"

    @property
    def ray(self) -> Path:
        """Ray Train's own files; nothing in them is needed again."""
        return self.root / "ray"

    def checkpoints(self, stage: str) -> Path:
        """Folder of a stage's checkpoints."""
        return self.root / "checkpoints" / stage


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well.

    Raises:
        OutputError: The disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write ({error.strerror or error})",
            where=path,
            fix=_mend(error),
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _mend(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space, then run the same command again: what is finished is used again"
    if error.errno is None:  # a library that gives no reason but its own words
        return "free some space or choose another folder, then run the same command again"
    return "choose a folder that can be made and written (--output, --store, --out)"


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    A file name that is not UTF-8 is written as an escape, which JSON reads back as the name it was.
    """
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all, for people to read."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str, allow_nan=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OutputError: It is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot be read ({error})", where=path, fix="is this the folder of a run?"
        ) from error


def model_folder(folder: Path) -> Path:
    """The model's folder of a run, or the folder itself, which then is a model's."""
    model = RunPaths(folder).model
    return model if model.exists() else folder
