"""What is known of a model, kept with it: the evaluation that it passed, and images to try it on.

::

    summary.json      the run's summary; of a run that ended before its test set, what it knew then
    scores.parquet    a row an image of validation and test: who it is, its score
    split.json        who trained, validated and tested
    contents.json     a fingerprint of every image's bytes, by name
    references/       a few test images, and references.json, which says how they were scored

Whoever decides on a model later has all of it, whatever became of the run and its images.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nfbmr.data.images import file_digest
from nfbmr.data.samples import GOOD
from nfbmr.errors import CheckpointError, ImageError, OutputError
from nfbmr.evaluation.evaluation import Scores
from nfbmr.evaluation.summary import RunSummary
from nfbmr.paths import RunPaths, read_json, write_json

_REFERENCES = 6
REFERENCE_BYTES = 8_000_000
"""Reference images together; large cameras' images are few."""


@dataclass(frozen=True)
class Reference:
    """An image that travels with the model, and the score that the run's evaluation gave it."""

    file: Path
    name: str
    defect: str
    score: float


@dataclass(frozen=True)
class Side:
    """The images of validation or test, as the run scored them.

    Attributes:
        scores: Names, kinds of defect, scores, and groups where the split keeps them together.
        paths: Where the images were.
        threshold: The model's.
    """

    scores: Scores
    paths: tuple[Path, ...]
    threshold: float

    @property
    def good(self) -> Side:
        """The good images alone."""
        return self.take([row for row, defect in enumerate(self.scores.defects) if defect == GOOD])

    def take(self, rows: Sequence[int]) -> Side:
        """Some of the images."""
        return Side(self.scores.take(rows), tuple(self.paths[row] for row in rows), self.threshold)


@dataclass(frozen=True)
class Evidence:
    """A folder of it.

    Attributes:
        folder: As :func:`gather` made it.
        summary: The run's.
    """

    folder: Path
    summary: RunSummary

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        """Read a folder back.

        Raises:
            OutputError: There is no evidence in it.
        """
        return cls(folder, RunSummary.read(folder / "summary.json"))

    @property
    def evaluated(self) -> bool:
        """Whether the run went on to its test set."""
        return self.summary.tested

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """Images that travel with the model; none where they could not be read when it was packed."""
        file = self.folder / "references" / "references.json"
        rows = read_json(file) if file.exists() else []
        return tuple(Reference(file.parent / row.pop("file"), **row) for row in rows)

    @cached_property
    def split(self) -> Mapping[str, Any]:
        """Who is on which side."""
        return dict(read_json(self.folder / "split.json"))

    @cached_property
    def contents(self) -> Mapping[str, str]:
        """Fingerprint of each image's bytes by its name; empty for runs of earlier versions."""
        file = self.folder / "contents.json"
        return dict(read_json(file)) if file.exists() else {}

    def learned(self) -> frozenset[str]:
        """Fingerprints of all images that the model was trained or validated on, known defects among them."""
        from nfbmr.finalize import learned_digests

        return learned_digests(self.split, self.contents)

    def side(self, name: str) -> Side:
        """The scored images of ``validation`` or ``test``.

        Raises:
            OutputError: The run kept no scores.
        """
        import numpy as np

        rows = [row for row in self._rows if row["side"] == name]
        scores = Scores(
            tuple(row["name"] for row in rows),
            tuple(row["defect"] for row in rows),
            np.asarray([row["score"] for row in rows], dtype=np.float64),
            tuple(row["group"] for row in rows) if self.split["grouped"] else None,
        )
        paths = tuple(Path(os.fsdecode(row["path"])) for row in rows)
        return Side(scores, paths, self.summary.threshold)

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        try:
            rows: list[dict[str, Any]] = pq.read_table(self.folder / "scores.parquet").to_pylist()
        except (OSError, ValueError) as error:
            raise OutputError(
                "the model's run kept no scores, or they are damaged",
                where=self.folder,
                fix="finish the run, test set included, and register it again",
            ) from error
        return rows


def gather(run: Path, folder: Path) -> Evidence:
    """Collect what a run knows of its model.

    Args:
        run: The run's folder.
        folder: Where to; made.

    Raises:
        CheckpointError: The run has no model yet.
        OutputError: The folder cannot be written.
    """
    paths = RunPaths(run)
    summary = paths.summary if paths.summary.exists() else paths.fitted
    if not summary.exists():
        raise CheckpointError(
            "the run has no model yet", where=run, fix=f"go on with: nfbmr train --resume {run}"
        )
    folder.mkdir(parents=True)
    shutil.copyfile(summary, folder / "summary.json")
    forget_server(folder / "summary.json")
    for file in (paths.scores, paths.split, paths.contents):
        if file.exists():
            shutil.copyfile(file, folder / file.name)
    evidence = Evidence.read(folder)
    if evidence.evaluated:
        _keep_references(evidence)
    return evidence


def forget_server(file: Path) -> None:
    """Take the tracking server's address, which may hold a password, out of a configuration that is kept."""
    meta = read_json(file)
    meta["config"]["tracking"]["uri"] = None
    write_json(file, meta)


def _keep_references(evidence: Evidence) -> None:
    """Copy a few test images: the lowest score, the highest, and some between."""
    test = evidence.side("test")
    ranked = [int(row) for row in test.scores.score.argsort(kind="stable")]
    if len(ranked) > _REFERENCES:
        ranked = [ranked[round(i * (len(ranked) - 1) / (_REFERENCES - 1))] for i in range(_REFERENCES)]
    rows, left = [], REFERENCE_BYTES
    for place, row in enumerate(ranked):
        path = test.paths[row]
        if not _is_same(path, evidence.contents.get(test.scores.names[row])):
            continue
        if (size := path.stat().st_size) > left:
            continue
        left -= size
        file = evidence.folder / "references" / f"{place}{path.suffix.lower()}"
        file.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, file)
        rows.append(
            {
                "file": file.name,
                "name": test.scores.names[row],
                "defect": test.scores.defects[row],
                "score": float(test.scores.score[row]),
            }
        )
    if rows:
        write_json(evidence.folder / "references" / "references.json", rows)


def _is_same(path: Path, digest: str | None) -> bool:
    """Whether a file still holds what was scored."""
    try:
        return digest is None or file_digest(path) == digest
    except ImageError:
        return False
