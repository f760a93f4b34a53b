"""A version with its files at hand, and two of them scored on the same images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlflow_server.packaging.evidence import Evidence, Side
from mlflow_server.packaging.exported_files import EXPORTS
from mlflow_server.registry.registry import Registry, Version
from nfbmr.data.images import file_digest
from nfbmr.data.samples import Sample
from nfbmr.errors import ImageError, RegistryError
from nfbmr.evaluation.evaluation import Scores
from nfbmr.evaluation.intervals import Estimate, Statistic, bootstrap, difference
from nfbmr.evaluation.metrics import image_metric, point

if TYPE_CHECKING:
    from nfbmr.prediction import Scored

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackedModel:
    """A packed model on this machine.

    Attributes:
        label: What it is called in sentences.
        folder: As :func:`mlflow_server.packaging.packing.pack` made it.
    """

    label: str
    folder: Path

    @classmethod
    def of(cls, registry: Registry, version: Version, folder: Path) -> PackedModel:
        """Fetch a version into a folder of its own inside `folder`.

        Raises:
            RegistryError: It cannot be fetched, or was not registered by nfbmr.
        """
        place = registry.download(version, folder / f"version-{version.number}")
        if not (place / "artifacts" / "evidence" / "summary.json").exists():
            raise RegistryError(
                "not a model of nfbmr's: no evaluation is kept with it",
                where=str(version),
                fix="register the run with nfbmr models register",
            )
        return cls(f"version {version.number}", place)

    @property
    def model(self) -> Path:
        """Folder of the networks and the scorer."""
        return self.folder / "artifacts" / "model"

    @cached_property
    def evidence(self) -> Evidence:
        """What is known of it."""
        return Evidence.read(self.folder / "artifacts" / "evidence")

    def size_bytes(self) -> int:
        """Of all its files but what was exported of it, which is the same model once more."""
        exported = self.folder / EXPORTS
        files = (file for file in self.folder.rglob("*") if file.is_file())
        return sum(file.stat().st_size for file in files if exported not in file.parents)

    def outcomes(self, files: Sequence[Path]) -> tuple[list[Scored], float]:
        """What the model says of images, in this process; and its threshold."""
        from nfbmr.devices import limit_threads
        from nfbmr.methods.detector import Detector
        from nfbmr.prediction import Predictor

        limit_threads()
        predictor = Predictor(Detector.load(self.model))
        return list(predictor.score(files)), predictor.limit()


@dataclass(frozen=True)
class PairedScores:
    """Two models' scores of the same images, row by row.

    Attributes:
        how: Where the scores come from, in a sentence.
        recorded: Whether they are those of both evaluations, rather than made for this comparison.
        first: The challenger's scores.
        second: The champion's.
        thresholds: Thresholds of both.
    """

    how: str
    recorded: bool
    first: Scores
    second: Scores
    thresholds: tuple[float, float]

    def metrics(self, name: str) -> tuple[Statistic, Statistic]:
        """A metric of both, as functions of the images' weights."""
        return _metric(name, self.first, self.thresholds[0]), _metric(name, self.second, self.thresholds[1])

    def values(self, name: str) -> tuple[float, float]:
        """A metric of both."""
        first, second = self.metrics(name)
        return point(first, len(self.first)), point(second, len(self.second))

    def difference(self, name: str, *, confidence: float, resamples: int, seed: int = 0) -> Estimate:
        """A metric of the challenger less the champion's, with its paired interval."""
        return bootstrap(
            difference(*self.metrics(name)),
            len(self.first),
            groups=self.first.groups,
            strata=self.first.labels.tolist(),
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )


def same_data(first: Evidence, second: Evidence) -> bool:
    """Whether both were evaluated on the same images, split in the same way."""
    of_first, of_second = (
        (evidence.summary.split, evidence.summary.split_digest, evidence.summary.dataset.digest)
        for evidence in (first, second)
    )
    return of_first == of_second


def recorded(first: PackedModel, second: PackedModel) -> PairedScores | None:
    """Both as they were evaluated; None where that was not on the same images."""
    a, b = first.evidence, second.evidence
    if not (a.evaluated and b.evaluated and same_data(a, b)):
        return None
    side_a, side_b = a.side("test"), b.side("test")
    place = {name: row for row, name in enumerate(side_b.scores.names)}
    shared = [row for row, name in enumerate(side_a.scores.names) if name in place]
    side_b = side_b.take([place[side_a.scores.names[row]] for row in shared])
    side_a = side_a.take(shared)
    return PairedScores(
        f"as evaluated, on the same {len(shared)} test images",
        True,
        side_a.scores,
        side_b.scores,
        (side_a.threshold, side_b.threshold),
    )


def evaluate_again(
    first: PackedModel, second: PackedModel, samples: Sequence[Sample] | None = None
) -> PairedScores:
    """Both scored now, on images that neither has learned from.

    Args:
        first: The challenger.
        second: The champion.
        samples: The images; by default the challenger's test images, where they still are.

    Raises:
        RegistryError: There are no such images here.
    """
    given = samples is not None
    chosen = list(samples) if samples is not None else _test_images(first)
    learned = first.evidence.learned() | second.evidence.learned()
    if not (first.evidence.contents and second.evidence.contents):
        raise RegistryError(
            "it is not known which images these models have learned from",
            where=f"{first.label}, {second.label}",
            fix="train and register them again with this version of nfbmr",
        )
    fresh = [s for s in chosen if (digest := _digest(s.path)) is not None and digest not in learned]
    if not fresh:
        raise RegistryError(
            "there are no images here that neither model has learned from",
            where="the images given" if given else f"the test images of {first.label}",
            fix="give some with their kinds of defect: --data FOLDER",
        )
    log.info("evaluating %s and %s again, on %d images", first.label, second.label, len(fresh))
    scored = [packed.outcomes([sample.path for sample in fresh]) for packed in (first, second)]
    rows = [
        row for row in range(len(fresh)) if all(outcomes[row].score is not None for outcomes, _ in scored)
    ]
    comparable = [fresh[row] for row in rows]
    sides = [_scores(comparable, [outcomes[row].score for row in rows]) for outcomes, _ in scored]
    left_out = len(chosen) - len(comparable)
    note = f"; {left_out} were learned from or cannot be read" if left_out else ""
    return PairedScores(
        f"both evaluated again on {len(comparable)} images{note}",
        False,
        sides[0],
        sides[1],
        (scored[0][1], scored[1][1]),
    )


def _metric(name: str, scores: Scores, threshold: float) -> Statistic:
    return image_metric(name, scores.score, scores.score > threshold, scores.labels)


def _scores(samples: Sequence[Sample], values: Sequence[float | None]) -> Scores:
    score_N: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    groups = tuple(sample.group for sample in samples)
    return Scores(
        tuple(sample.name for sample in samples),
        tuple(sample.defect for sample in samples),
        score_N,
        groups if any(groups) else None,
    )


def _test_images(packed: PackedModel) -> list[Sample]:
    """The images of a recorded evaluation that still are what they were."""
    evidence = packed.evidence
    if not evidence.evaluated:
        return []
    side: Side = evidence.side("test")
    groups = side.scores.groups or (None,) * len(side.paths)
    rows = zip(side.paths, side.scores.names, side.scores.defects, groups, strict=True)
    return [
        Sample(path, name, defect, (), group)
        for path, name, defect, group in rows
        if _digest(path) == evidence.contents.get(name)
    ]


def _digest(path: Path) -> str | None:
    try:
        return file_digest(path)
    except ImageError:
        return None
