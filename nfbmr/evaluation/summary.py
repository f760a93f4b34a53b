"""What is kept of a finished run, typed: :class:`RunSummary`, and what summaries of any kind have in common.

Whoever writes or reads a ``summary.json`` does it through :meth:`Summary.write` and :meth:`Summary.read`; all
others have the object. ``docs/schemas/`` holds what is in the files, as JSON Schema.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema

from nfbmr.config import Config
from nfbmr.errors import OutputError
from nfbmr.evaluation.intervals import UNDEFINED, Estimate
from nfbmr.nesting import flatten
from nfbmr.paths import read_json, write_json


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    raise ValueError("should be text")


def _as_estimate(value: Any) -> Estimate:
    if isinstance(value, Estimate):
        return value
    if isinstance(value, Mapping):
        return Estimate.from_json(value)
    raise ValueError("should hold value, low and high")


_NUMBER = {"type": ["number", "null"]}

Text = Annotated[str, PlainValidator(_as_text), WithJsonSchema({"type": "string"})]
"""A string that may come from a file name: pydantic's own refuses bytes of it that are no text."""

Interval = Annotated[
    Estimate,
    PlainValidator(_as_estimate),
    WithJsonSchema(
        {
            "type": "object",
            "description": "A number and the ends of its interval; null where undefined.",
            "properties": {"value": _NUMBER, "low": _NUMBER, "high": _NUMBER},
            "required": ["value", "low", "high"],
        }
    ),
]
"""An :class:`Estimate`, in files as ``{"value": ..., "low": ..., "high": ...}``."""


class Part(BaseModel):
    """A frozen piece of a summary; keys that this version does not know are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)

    def as_json(self) -> dict[str, Any]:
        """Plain values: what stands in a file, and what ``--json`` prints."""
        return {name: _plain(getattr(self, name)) for name in type(self).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, Part | Estimate):
        return value.as_json()
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, PurePath) else value


class Summary(Part):
    """A summary as a whole: what :file:`summary.json` holds.

    Attributes:
        format: Number of the format. Files of the versions before there was one have none, and are read.
    """

    FORMAT: ClassVar[int] = 1
    WHAT: ClassVar[str] = "summary"
    AGAIN: ClassVar[str] = "run it again with this version"

    format: int = Field(1, description="number of this format; keys may be added without another one")

    @classmethod
    def from_json(cls, values: Any, where: str | Path | None = None) -> Self:
        """What :meth:`as_json` gave, in this version or an earlier one.

        Args:
            values: Plain values.
            where: What they were read from, for messages.

        Raises:
            OutputError: They are of a later format, or no such summary.
        """
        written = values.get("format", 0) if isinstance(values, Mapping) else 0
        if isinstance(written, int) and written > cls.FORMAT:
            raise OutputError(
                f"the {cls.WHAT} has format {written}, and this version reads up to {cls.FORMAT}",
                where=where,
                fix="read it with the version of nfbmr that wrote it, or a later one",
            )
        try:
            current = cls.upgraded({**values}, written)
            return cls.model_validate({**current, "format": cls.FORMAT})
        except (ValidationError, TypeError) as error:
            raise OutputError(
                f"not a {cls.WHAT} that this version can read ({_first_problem(error)})",
                where=where,
                fix=f"restore the file; or, where an earlier version wrote it, {cls.AGAIN}",
            ) from error

    @classmethod
    def upgraded(cls, values: Mapping[str, Any], written: int) -> Mapping[str, Any]:
        """Values of an earlier format, under the names of this one.

        Args:
            values: Plain values as they were written, by name.
            written: The number of their format; 0 where there was none yet.
        """
        return values

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            OutputError: It is missing, no JSON, of a later format, or no such summary.
        """
        return cls.from_json(read_json(path), path)

    def write(self, path: Path) -> None:
        """Write a file, whole or not at all.

        Raises:
            OutputError: The disk is full or the folder cannot be written.
        """
        write_json(path, self.as_json())

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema of the file."""
        return cls.model_json_schema(mode="serialization")


def _first_problem(error: ValidationError | TypeError) -> str:
    if not isinstance(error, ValidationError):
        return "it holds no keys"
    problem = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg'].lower()}"


class DatasetFacts(Part):
    """The data set of a run.

    Attributes:
        name: What it is called.
        layout: How its folders were read.
        source: Its folder.
        digest: A fingerprint of every image's name, kind and bytes.
        counts: Good and defective images by side: ``train``, ``validation``, ``test``.
        notices: What a person should know of how it was read.
    """

    name: Text
    layout: Text = ""
    source: Text = ""
    digest: Text = ""
    counts: dict[Text, dict[Text, int]] = Field(default_factory=dict)
    notices: tuple[Text, ...] = ()


class Candidate(Part):
    """A scoring that could have been chosen, and the AUROC that it reaches."""

    weights: tuple[float, ...] = ()
    reduction: Text = ""
    auroc: float | None = None


class SelectionFacts(Part):
    """What was chosen on validation data.

    Attributes:
        on: The side that chose: ``validation``, or ``test`` for a peeked run.
        auroc: Image AUROC of the choice there.
        parts: Names of the score's components.
        weights: One a component.
        normalise: What components are divided by first.
        reduction: How a map becomes a score.
        levels: Levels of a pyramid, each with its ``name``, ``auroc`` and ``share``.
        false_reject_rate: Share of good parts that the threshold was set to reject.
        false_reject_interval: Between which shares of new good parts are rejected, with a confidence of 95 %,
            as a threshold from few images is not exact; None where the test set chose it, and in summaries of
            older versions.
        pixel_false_reject_rate: The same of good parts with any region; None without pixel maps.
        epochs: The epoch kept, by stage.
        candidates: What it was chosen from, the best first.
    """

    on: Text
    auroc: float | None
    parts: tuple[Text, ...] = ()
    weights: tuple[float, ...]
    normalise: Text = ""
    reduction: Text
    levels: tuple[dict[str, Any], ...] = ()
    false_reject_rate: float
    false_reject_interval: tuple[float, float] | None = None
    pixel_false_reject_rate: float | None = None
    epochs: dict[Text, int] = Field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()


class GpuMemory(Part):
    """Bytes of GPU memory that a run took at most, and what its GPU has."""

    peak_bytes: int
    total_bytes: int


class RunSummary(Summary):
    """A run's results, and what they depend on.

    A run that ends before its test set is read, as a sweep's trials do, has validation metrics alone.

    Attributes:
        run_id: Its name.
        run_dir: Its folder.
        method: What was trained.
        dataset: On what.
        split: Name of the split.
        split_digest: Fingerprint of who is on which side.
        seed: Seed of weights, batches and synthetic defects.
        test_peeked: Whether a choice was made on the test set.
        known_defects: Real defects that had a say in what was chosen, by kind.
        metrics: Estimates by side (``validation``, ``test``), then by name; those of one kind of defect are
            called ``image_auroc/crack``.
        notes: Sentences that go with the numbers.
        threshold: Scores above it are rejected.
        pixel_threshold: Positions above it are marked; None without pixel maps.
        selection: What was chosen, and from what.
        reused: By stage, whether it came from the store.
        saved_seconds: Seconds of training that this saved, by stage.
        parameters: Trained numbers, by stage.
        timings: Seconds, by phase.
        gpu_memory: None without a GPU.
        config: The whole configuration, as it was resolved.
        environment: Versions, machine, code revision.
        leak: What the audit of the split found, in a sentence; None where it found nothing.
        doubt: What the audit is not sure of.
        kinds: Test images by kind of defect.
        unreadable: What was wrong with test images that were left out, by name.
        report: The HTML report.
        pictures: Folder of pictures.
    """

    WHAT: ClassVar[str] = "summary of a run"
    AGAIN: ClassVar[str] = "train again with this version"

    run_id: Text
    run_dir: Text
    method: Text
    dataset: DatasetFacts
    split: Text
    split_digest: Text = ""
    seed: int
    test_peeked: bool
    known_defects: dict[Text, int] = Field(default_factory=dict)
    metrics: dict[Text, dict[Text, Interval]]
    notes: tuple[Text, ...] = ()
    threshold: float
    pixel_threshold: float | None = None
    selection: SelectionFacts
    reused: dict[Text, bool] = Field(default_factory=dict)
    saved_seconds: dict[Text, float] = Field(default_factory=dict)
    parameters: dict[Text, int] = Field(default_factory=dict)
    timings: dict[Text, float]
    gpu_memory: GpuMemory | None = None
    config: dict[Text, Any]
    environment: dict[Text, Any] = Field(default_factory=dict)
    leak: Text | None = None
    doubt: Text | None = None
    kinds: dict[Text, int] = Field(default_factory=dict)
    unreadable: dict[Text, Text] = Field(default_factory=dict)
    report: Text = ""
    pictures: Text = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values; what comes of the test set is left out where that was not read."""
        values = super().as_json()
        return values if self.tested else {k: v for k, v in values.items() if k not in _OF_TEST}

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema of the file."""
        schema = super().json_schema()
        schema["required"] = [key for key in schema["required"] if key not in _OF_TEST]
        return schema

    @property
    def tested(self) -> bool:
        """Whether the run went on to its test set."""
        return "test" in self.metrics

    def estimate(self, side: str, name: str = "image_auroc") -> Estimate:
        """A metric of a side; undefined where it was not measured."""
        return self.metrics.get(side, {}).get(name, UNDEFINED)

    @property
    def total_parameters(self) -> int:
        """Trained numbers of all stages together."""
        return sum(self.parameters.values())

    @property
    def total_saved_seconds(self) -> float:
        """Seconds of training that the store saved, over all stages."""
        return sum(self.saved_seconds.values())

    @property
    def total_seconds(self) -> float:
        """Seconds that the run took, over all phases."""
        return sum(self.timings.values())

    @property
    def configuration(self) -> Config:
        """The configuration, typed.

        Raises:
            OutputError: It is an earlier version's, and has keys or values that there are no more.
        """
        try:
            return Config.model_validate(self.config)
        except ValidationError as error:
            raise OutputError(
                f"the configuration of the run is none that this version knows ({_first_problem(error)})",
                where=self.run_dir,
                fix=self.AGAIN,
            ) from error

    @property
    def confidence(self) -> float:
        """Of the intervals."""
        return self.configuration.evaluation.confidence

    @property
    def fitting_seconds(self) -> float:
        """Seconds that the stages take; one that the store had counts as it did when it was fitted."""
        return sum(self.timings.get(stage, 0.0) for stage in self.parameters) + self.total_saved_seconds

    @property
    def training_views(self) -> int:
        """Views that were read to be fitted: training images in all their views, validation, its defects."""
        config, counts = self.configuration, self.dataset.counts
        views = len(config.features.views) + config.features.rotations
        train = sum(counts["train"].values()) * views
        validation = sum(counts["validation"].values()) * (1 + config.selection.per_image)
        return int(train + validation * config.features.test_rotations)

    def numbers(self) -> dict[str, float]:
        """Every number: metrics as ``validation/image_auroc``, the others with dots (``timings.flow``)."""
        values = self.as_json()
        metrics = {
            f"{side}/{name}": estimate.value
            for side, estimates in self.metrics.items()
            for name, estimate in estimates.items()
        }
        rest = flatten({name: value for name, value in values.items() if name not in ("metrics", "format")})
        return {
            name: float(value)
            for name, value in (metrics | rest).items()
            if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
        }


_OF_TEST = ("leak", "doubt", "kinds", "unreadable", "report", "pictures")
