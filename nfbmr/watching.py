"""Score a folder's images as they come, and append each result to a table that is also the memory.

A file is scored once it has looked the same twice and can be decoded. One that cannot is taken for half
written for :data:`PATIENCE` looks more, and is then reported. A file is known by its name, size and time of
change: what is written anew under an old name is a new image. Whoever begins again on the same table goes on
where it ended; a last line that was cut off by a crash is written anew.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from nfbmr.data.masks import pictures_below
from nfbmr.errors import DataError, ImageError, NfbmrError, OutputError
from nfbmr.locks import always, file_lock
from nfbmr.paths import write_text
from nfbmr.prediction import Prediction, Predictor, Scored, draw_prediction
from nfbmr.prediction_table import flat_row, full_row
from nfbmr.stopping import StopRequest
from nfbmr.text import as_text, visible

log = logging.getLogger(__name__)

PATIENCE = 30
"""Looks at an unchanged file that cannot be decoded, before it is taken for broken, not half written."""


class Stamp(NamedTuple):
    """What tells a file from the one that had its name before."""

    path: str
    size: int
    modified_ns: int


class ResultTable:
    """Rows of results, appended one by one: ``.csv`` or ``.jsonl``.

    Args:
        path: The file; rows that it has stay.
        components: Names of the model's score components.
        model: The model's digest, which is kept beside the table: rows of two models are never mixed.

    Raises:
        OutputError: It is another table's: of another model, or of ``nfbmr predict`` without ``--watch``.
    """

    def __init__(self, path: Path, components: Sequence[str], model: str) -> None:
        self._path, self._components = path, tuple(components)
        self._csv = path.suffix == ".csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: set[Stamp] = set()
        self._read()
        of_model = path.with_name(f"{path.name}.model")
        if of_model.exists() and of_model.read_text(encoding="utf-8") != model:
            raise self._foreign()
        write_text(of_model, model)

    def append(self, prediction: Prediction, stamp: Stamp) -> None:
        """Write a row, and have it on the disk before anything else is done."""
        row = {
            **full_row(prediction, self._components),
            "bytes": stamp.size,
            "modified_ns": stamp.modified_ns,
        }
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._line(row))
            file.flush()
            os.fsync(file.fileno())
        self.done.add(stamp)

    def _line(self, row: Mapping[str, Any]) -> str:
        if not self._csv:
            return json.dumps(row, ensure_ascii=False) + "\n"
        flat = flat_row(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(flat), lineterminator="\n")
        if not self._path.exists() or not self._path.stat().st_size:
            writer.writeheader()
        writer.writerow(flat)
        return text.getvalue()

    def _read(self) -> None:
        """Learn what is done; a line without its end was never finished."""
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self._path, len(whole))
        rows: list[dict[str, Any]]
        try:
            text = whole.decode("utf-8")
            if self._csv:
                rows = list(csv.DictReader(io.StringIO(text, newline="")))
            else:  # not splitlines: a file's name may hold other characters that end a line
                rows = [json.loads(line) for line in text.split("\n") if line]
            self.done = {Stamp(row["path"], int(row["bytes"]), int(row["modified_ns"])) for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise self._foreign() from error
        wanted = {f"{component}_max" for component in self._components}
        if rows and {name for name in rows[0] if name.endswith("_max")} != wanted:
            raise self._foreign()

    def _foreign(self) -> OutputError:
        return OutputError(
            "not the results of this model's watching",
            where=self._path,
            fix="choose another folder with --out",
        )


@dataclass
class _Waiting:
    """A file that is not scored yet: how it looked, and for how many looks it has looked so."""

    stamp: Stamp
    looks: int = 0


@dataclass
class Watcher:
    """Looks at a folder again and again.

    Args:
        predictor: The model.
        folder: What is watched, at any depth; masks are left out.
        table: Where results go.
        out: What is drawn below it is no image to be scored.
        threshold: Instead of the model's.
        heatmaps: Folder of heat maps; None for none.
        masks: Folder of predicted masks; None for none.
    """

    predictor: Predictor
    folder: Path
    table: ResultTable
    out: Path
    threshold: float | None = None
    heatmaps: Path | None = None
    masks: Path | None = None
    _waiting: dict[Path, _Waiting] = field(default_factory=dict)

    def look(self, stop: StopRequest) -> Iterator[Prediction]:
        """Score what is ready; each result is in the table when it is given.

        Raises:
            DataError: The folder is gone or cannot be read.
        """
        ready = self._ready()
        files = list(ready)
        for file, (prediction, scored) in zip(
            files, self.predictor(files, threshold=self.threshold), strict=True
        ):
            waiting = ready[file]
            if _stamp(file) != waiting.stamp:  # it went on being written, or is gone
                self._waiting.pop(file, None)
            elif prediction.error is None or waiting.looks > PATIENCE:
                drawn = self._drawn(prediction, scored)
                self.table.append(drawn, waiting.stamp)
                self._waiting.pop(file, None)
                yield drawn
            if stop.requested:
                return

    def _ready(self) -> dict[Path, _Waiting]:
        """Files that look as they did at the last look."""
        if not self.folder.is_dir():
            raise DataError("no such folder", where=self.folder, fix="check the path")
        drawn, now = [(self.out / name).resolve() for name in ("heatmaps", "masks")], {}
        for file in pictures_below(self.folder)[0]:
            ours = any(file.resolve().is_relative_to(folder) for folder in drawn)
            stamp = None if ours else _stamp(file)
            if stamp is not None and stamp not in self.table.done:
                before = self._waiting.get(file)
                same = before is not None and before.stamp == stamp
                now[file] = _Waiting(stamp, before.looks + 1 if same and before is not None else 0)
        self._waiting = now
        return {file: waiting for file, waiting in now.items() if waiting.looks}

    def _drawn(self, prediction: Prediction, scored: Scored) -> Prediction:
        if prediction.path is None:
            return prediction
        try:
            drawn, mask = draw_prediction(
                self.predictor, prediction.path, scored, len(self.table.done), self.heatmaps, self.masks
            )
        except ImageError:
            return prediction  # taken away since it was scored
        return replace(prediction, heatmap=drawn, mask=mask)


def watch(watcher: Watcher, stop: StopRequest, *, seconds: float = 1.0) -> Iterator[Prediction]:
    """Look until a stop is asked for; results as they come."""
    while not stop.requested:
        for prediction in watcher.look(stop):
            words = prediction.error
            if words is None:
                words = f"{prediction.score:.4g}, {'rejected' if prediction.rejected else 'passed'}"
            log.info("%s: %s", visible(prediction.path), words)
            yield prediction
        stop.wait(seconds)


@contextmanager
def only_watcher(out: Path) -> Iterator[None]:
    """Keep two processes from one table.

    Raises:
        OutputError: Another one has it.
    """

    def held() -> NfbmrError:
        return OutputError(
            "another process appends to this folder", where=out, fix="end it, or choose another with --out"
        )

    with file_lock(out / ".watch.lock", held=held, give_up=always):
        yield


def _stamp(file: Path) -> Stamp | None:
    try:
        status = file.stat()
    except OSError:  # taken away meanwhile
        return None
    return Stamp(as_text(file), status.st_size, status.st_mtime_ns)
