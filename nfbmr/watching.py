"""Score a folder's images as they come, and append each result to a table that is also the memory.

A file is scored once it has looked the same twice and can be decoded. One that cannot is taken for half
written for :data:`PATIENCE` looks more, and is then reported. A file is known by its name, size and time of
change: what is written anew under an old name is a new image. Whoever begins again on the same table goes on
where it ended; a last line that was cut off by a crash is written anew.

A video has a row for each frame. Rows do not tell whether a frame was the last, so finished videos stand in a
list beside the table; another one goes on after its last row.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from nfbmr.data.files import is_video, videos_below
from nfbmr.data.masks import pictures_below
from nfbmr.data.sources import Source
from nfbmr.data.video import Every, Frame
from nfbmr.errors import DataError, ImageError, MissingPackageError, NfbmrError, OutputError, require_package
from nfbmr.locks import always, file_lock
from nfbmr.paths import write_text
from nfbmr.prediction import Prediction, Predictor, Scored, draw_prediction, frame_name
from nfbmr.prediction_table import flat_row, full_row
from nfbmr.stopping import StopRequest
from nfbmr.text import as_text, visible

log = logging.getLogger(__name__)

PATIENCE = 30
"""Looks at an unchanged file that cannot be decoded, before it is taken for broken, not half written."""
VIDEO_PATIENCE = 10
"""Looks at an unchanged video before it is read: half of one can be decoded, and cameras write in bursts."""
TURN = 1.0
"""Seconds for which videos are read before new images have their turn."""


class Stamp(NamedTuple):
    """What tells a file from the one that had its name before."""

    path: str
    size: int
    modified_ns: int


class ResultTable:
    """Rows of results, appended one by one: ``.csv`` or ``.jsonl``.

    Attributes:
        done: Files that need no more rows.
        last_frame: Number of the last frame of videos that are begun and not done.
        rows: How many there are.

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
        self.last_frame: dict[Stamp, int] = {}
        self.rows = 0
        self._finished = path.with_name(f"{path.name}.videos")
        self._read()
        of_model = path.with_name(f"{path.name}.model")
        if of_model.exists() and of_model.read_text(encoding="utf-8") != model:
            raise self._foreign()
        write_text(of_model, model)

    def append(self, prediction: Prediction, stamp: Stamp) -> None:
        """Write a row, and have it on the disk before anything else is done."""
        row = full_row(prediction, self._components, frames=True)
        row |= {"bytes": stamp.size, "modified_ns": stamp.modified_ns}
        _append(self._path, self._line(row))
        self._note(stamp, prediction.frame)

    def finish(self, stamp: Stamp) -> None:
        """Note that a video has no more frames."""
        _append(self._finished, json.dumps(stamp) + "\n")
        self._end(stamp)

    def _note(self, stamp: Stamp, frame: int | None) -> None:
        self.rows += 1
        if frame is None:  # an image, or what is wrong with a video, which ends it
            self._end(stamp)
        else:
            self.last_frame[stamp] = max(frame, self.last_frame.get(stamp, -1))

    def _end(self, stamp: Stamp) -> None:
        self.done.add(stamp)
        self.last_frame.pop(stamp, None)

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
        """Learn what is done."""
        content = _whole_lines(self._path)
        rows: list[dict[str, Any]]
        try:
            text = content.decode("utf-8")
            if self._csv:
                rows = list(csv.DictReader(io.StringIO(text, newline="")))
            else:  # not splitlines: a file's name may hold other characters that end a line
                rows = [json.loads(line) for line in text.split("\n") if line]
            for row in rows:
                frame = row.get("frame")
                stamp = Stamp(row["path"], int(row["bytes"]), int(row["modified_ns"]))
                self._note(stamp, None if frame in (None, "") else int(frame))
        except (ValueError, KeyError, TypeError) as error:
            raise self._foreign() from error
        wanted = {f"{component}_max" for component in self._components}
        if rows and {name for name in rows[0] if name.endswith("_max")} != wanted:
            raise self._foreign()
        if self._csv and rows and "frame" not in rows[0]:
            self._widen(rows)
        for line in _whole_lines(self._finished).decode("utf-8").split("\n"):
            if line and (stamp := Stamp(*json.loads(line))) in self.last_frame:
                self._end(stamp)

    def _widen(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Give a table that was begun before videos were watched the columns that frames have."""
        names = list(rows[0])
        place = names.index("mask") + 1
        names[place:place] = ["frame", "seconds"]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._path, text.getvalue())

    def _foreign(self) -> OutputError:
        return OutputError(
            "not the results of this model's watching",
            where=self._path,
            fix="choose another folder with --out",
        )


def _append(path: Path, line: str) -> None:
    """Have a line on the disk."""
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> bytes:
    """A file's lines, none where there is no file; one without its end was never finished, and is cut off."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return whole


@dataclass
class _Waiting:
    """A file that is not scored yet: how it looked, and for how many looks it has looked so."""

    stamp: Stamp
    looks: int = 0


class _Open(NamedTuple):
    """A video that is being read, across several looks."""

    stamp: Stamp
    frames: Iterator[tuple[Frame, Prediction, Scored]]


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
        every: Which frames of a video; None for all.
    """

    predictor: Predictor
    folder: Path
    table: ResultTable
    out: Path
    threshold: float | None = None
    heatmaps: Path | None = None
    masks: Path | None = None
    every: Every | None = None
    _waiting: dict[Path, _Waiting] = field(default_factory=dict)
    _open: _Open | None = None
    _left_out: set[Stamp] = field(default_factory=set)

    @property
    def busy(self) -> bool:
        """Whether a video is half read: the next look goes on with it."""
        return self._open is not None

    def look(self, stop: StopRequest) -> Iterator[Prediction]:
        """Score what is ready, of videos for :data:`TURN`; a result that is given is in the table.

        Raises:
            DataError: The folder is gone or cannot be read.
        """
        ready = self._ready()
        yield from self._images(
            {file: waiting for file, waiting in ready.items() if not is_video(file)}, stop
        )
        videos = {file: waiting for file, waiting in ready.items() if is_video(file)}
        if not stop.requested and self._readable(videos):
            yield from self._videos(videos, stop)

    def _images(self, ready: Mapping[Path, _Waiting], stop: StopRequest) -> Iterator[Prediction]:
        files = list(ready)
        for file, (prediction, scored) in zip(
            files, self.predictor(files, threshold=self.threshold), strict=True
        ):
            waiting = ready[file]
            if _stamp(file) != waiting.stamp:  # it went on being written, or is gone
                self._waiting.pop(file, None)
            elif prediction.error is None or waiting.looks > PATIENCE:
                yield self._append(file, prediction, scored, waiting.stamp)
                self._waiting.pop(file, None)
            if stop.requested:
                return

    def _videos(self, ready: Mapping[Path, _Waiting], stop: StopRequest) -> Iterator[Prediction]:
        """Frames of one video after the other, the one that is half read first."""
        until = time.monotonic() + TURN
        half_read = None if self._open is None else self._open.stamp
        if all(waiting.stamp != half_read for waiting in ready.values()):
            self._open = None  # it was taken away, or is written on
        for file, waiting in sorted(ready.items(), key=lambda item: item[1].stamp != half_read):
            if self._open is None or self._open.stamp != waiting.stamp:
                last = self.table.last_frame.get(waiting.stamp, -1)
                frames = self.predictor.frames(file, self.every, threshold=self.threshold, after=last)
                self._open = _Open(waiting.stamp, frames)
            for frame, prediction, scored in self._open.frames:
                if _stamp(file) != waiting.stamp:
                    self._waiting.pop(file, None)
                    break
                begun = waiting.stamp in self.table.last_frame
                if prediction.error is not None and not begun and waiting.looks <= PATIENCE:
                    break
                yield self._append(frame.image, prediction, scored, waiting.stamp)
                if stop.requested or time.monotonic() > until:
                    return
            else:
                if waiting.stamp not in self.table.done:
                    self.table.finish(waiting.stamp)
            self._open = None

    def _readable(self, videos: Mapping[Path, _Waiting]) -> bool:
        """Whether videos can be read here; each that cannot is named, once."""
        try:
            require_package("av")
        except MissingPackageError as missing:
            for file, waiting in videos.items():
                if waiting.stamp not in self._left_out:
                    self._left_out.add(waiting.stamp)
                    log.warning("%s: left out, %s (%s)", visible(file), missing.what, missing.fix)
            return False
        return True

    def _ready(self) -> dict[Path, _Waiting]:
        """Files that look as they did at the last look, videos for longer."""
        if not self.folder.is_dir():
            raise DataError("no such folder", where=self.folder, fix="check the path")
        drawn, now = [(self.out / name).resolve() for name in ("heatmaps", "masks")], {}
        for file in (*pictures_below(self.folder)[0], *sorted(videos_below(self.folder))):
            ours = any(file.resolve().is_relative_to(folder) for folder in drawn)
            stamp = None if ours else _stamp(file)
            if stamp is not None and stamp not in self.table.done:
                before = self._waiting.get(file)
                same = before is not None and before.stamp == stamp
                now[file] = _Waiting(stamp, before.looks + 1 if same and before is not None else 0)
        self._waiting = now
        return {
            file: waiting
            for file, waiting in now.items()
            if waiting.looks >= (VIDEO_PATIENCE if is_video(file) else 1)
        }

    def _append(
        self, source: Source | ImageError, prediction: Prediction, scored: Scored, stamp: Stamp
    ) -> Prediction:
        """A prediction with its pictures, which is in the table now."""
        try:
            name = frame_name(prediction)
            drawn, mask = draw_prediction(
                self.predictor, source, scored, self.table.rows, self.heatmaps, self.masks, name
            )
            prediction = replace(prediction, heatmap=drawn, mask=mask)
        except ImageError:
            pass  # taken away since it was scored
        self.table.append(prediction, stamp)
        return prediction


def watch(watcher: Watcher, stop: StopRequest, *, seconds: float = 1.0) -> Iterator[Prediction]:
    """Look until a stop is asked for; results as they come."""
    while not stop.requested:
        for prediction in watcher.look(stop):
            words = prediction.error
            if words is None:
                words = f"{prediction.score:.4g}, {'rejected' if prediction.rejected else 'passed'}"
            frame = "" if prediction.frame is None else f", frame {prediction.frame}"
            log.info("%s%s: %s", visible(prediction.path), frame, words)
            yield prediction
        if not watcher.busy:
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
