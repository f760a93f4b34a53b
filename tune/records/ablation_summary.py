"""What is kept of ablations and comparisons, typed: their ``summary.json``.

How they are read and written is :mod:`nfbmr.evaluation.summary`; ``docs/schemas/`` holds them as JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from nfbmr.evaluation.intervals import Estimate
from nfbmr.evaluation.summary import Part, Summary, Text


class DifferenceFacts(Part):
    """A row less the reference, paired.

    Attributes:
        value: The difference; None where it is undefined, as its ends.
        low: Lower end of the interval.
        high: Upper end.
        verdict: ``better``, ``worse``, ``tie`` or ``unknown``.
        same_images: Whether both were scored on the same images.
    """

    value: float | None
    low: float | None
    high: float | None
    verdict: Literal["better", "worse", "tie", "unknown"]
    same_images: bool = True

    @property
    def estimate(self) -> Estimate:
        """The difference and its interval."""
        return Estimate.from_json({"value": self.value, "low": self.low, "high": self.high})


class EntryFacts(Part):
    """A row's metric.

    Attributes:
        value: The mean over seeds and categories; None where it is undefined, as its ends.
        low: Lower end of the interval.
        high: Upper end.
        seeds: Number of seeds that it is the mean of.
        by_seed: The value of each.
        sd_seeds: Standard deviation between them; None for fewer than two.
        missing_cells: Cells that should be in it and are not.
        difference: To the reference; None for the reference itself.
    """

    value: float | None
    low: float | None
    high: float | None
    seeds: int
    by_seed: tuple[float, ...] = ()
    sd_seeds: float | None = None
    missing_cells: int = 0
    difference: DifferenceFacts | None = None

    @property
    def estimate(self) -> Estimate:
        """The mean and its interval."""
        return Estimate.from_json({"value": self.value, "low": self.low, "high": self.high})


class PublishedFacts(Part):
    """A number that somebody else reported."""

    value: float
    source: Text = ""
    protocol: Text = ""


class RowFacts(Part):
    """A row's numbers.

    Attributes:
        metrics: Over all categories, by metric.
        parts: Entries of the main metric, by category, group of categories or kind of defect.
        published: What somebody else reported of the main metric over all.
        all_published: The same by metric, then by category; ``all`` is the mean.
        test_peeked: Whether its choices were made on the test set.
    """

    metrics: dict[Text, EntryFacts]
    parts: dict[Text, EntryFacts]
    published: PublishedFacts | None = None
    all_published: dict[Text, dict[Text, float]] = Field(default_factory=dict)
    test_peeked: bool = False


class AblationRow(RowFacts):
    """A row of an ablation, with what it sets by dotted key."""

    settings: dict[Text, Any]


class CellFacts(Part):
    """Cells: how many there are, and why some have no result."""

    asked: int
    missing: dict[Text, Text] = Field(default_factory=dict)


class FlowFacts(Part):
    """Flows that were trained, and those that the store had."""

    trained: int
    reused: int


class SavedSeconds(Part):
    """Seconds of training that cells did not need, as the store had their stages, of whatever kind."""

    stages: float


class TableSummary(Summary):
    """What ablations and comparisons have in common.

    Attributes:
        name: Name of the ablation.
        ablation_dir: Its folder.
        table: Name of the table.
        title: What the rows are about.
        about: What the numbers are of.
        metric: The main one.
        metrics: All of the main table.
        reference: The row that the others are compared with.
        seeds: The seeds.
        split_seeds: Whether all seeds share one split (``same``) or each has its own (``vary``).
        categories: Empty where the data set has none.
        cells: Cells and what is missing.
        flows: Flows trained and reused.
        saved_seconds: What cells did not need, as the store had it.
        seconds: That cells took, together.
        notes: Sentences below the table.
        files: Tables and results, by kind.
        pictures: Files of pictures.
        config: What every row begins from.
    """

    FORMAT: ClassVar[int] = 2

    format: int = Field(2, description="number of this format; 1 called the seconds of stages those of flows")
    name: Text
    ablation_dir: Text
    table: Text
    title: Text
    about: Text
    metric: Text
    metrics: tuple[Text, ...]
    reference: Text
    seeds: tuple[int, ...]
    split_seeds: Literal["same", "vary"]
    categories: tuple[Text, ...]
    cells: CellFacts
    flows: FlowFacts
    saved_seconds: SavedSeconds
    seconds: float
    notes: tuple[Text, ...]
    files: dict[Text, Text]
    pictures: tuple[Text, ...]
    config: dict[Text, Any]

    @classmethod
    def upgraded(cls, values: Mapping[str, Any], written: int) -> Mapping[str, Any]:
        """See :meth:`nfbmr.evaluation.summary.Summary.upgraded`."""
        flows = values.get("flows")
        if written < 2 and isinstance(flows, Mapping):
            return {**values, "saved_seconds": {"stages": flows.get("saved_seconds")}}
        return values


class AblationSummary(TableSummary):
    """What an ablation came to.

    Attributes:
        by: What numbers are broken down by: ``category`` or ``kind``.
        rows: By name.
        quoted: Rows that were not run: published numbers by metric, then by category.
    """

    WHAT: ClassVar[str] = "summary of an ablation"
    AGAIN: ClassVar[str] = "write it anew: nfbmr ablate --resume"

    by: Literal["category", "kind"]
    rows: dict[Text, AblationRow]
    quoted: dict[Text, dict[Text, dict[Text, float]]] = Field(default_factory=dict)


class TimingFacts(Part):
    """Milliseconds an image: the median of calls, the range of eight tenths of them, and how many calls."""

    value: float
    low: float
    high: float
    calls: int


class CostFacts(Part):
    """What a model costs to use; see :class:`nfbmr.benchmark.Cost`.

    Attributes:
        ms_one: Milliseconds an image, one image a call; with ``_low`` and ``_high``.
        ms_batched: Milliseconds an image among `batch` of them.
        one: The same as `ms_one`, with its number of calls.
        batched: The same as `ms_batched`.
        reading: Milliseconds of that from an image's file to features.
        machine: The machine that it was measured on.
        others: Cores that other processes kept busy meanwhile.
    """

    ms_one: float
    ms_one_low: float
    ms_one_high: float
    ms_batched: float
    batch: int
    parameters: int
    backbone_parameters: int
    model_bytes: int
    backbone_bytes: int
    one: TimingFacts
    batched: TimingFacts
    reading: TimingFacts
    views: int
    machine: dict[Text, Any] = Field(default_factory=dict)
    others: float = 0.0


class ComparedRow(Part):
    """A method that was compared.

    Attributes:
        settings: What it sets, by dotted key.
        splits: Its numbers by split.
        cost: What it costs to use; None where that was not measured.
        fitting_seconds: Seconds that fitting took, on stored features.
        training_seconds: Seconds from images to a model, with nothing in the store.
        front: Splits on which no other method is both faster and better.
    """

    settings: dict[Text, Any]
    splits: dict[Text, RowFacts]
    cost: CostFacts | None = None
    fitting_seconds: float | None = None
    training_seconds: float | None = None
    front: tuple[Text, ...] = ()


class ComparisonSummary(TableSummary):
    """What a comparison of methods came to.

    Attributes:
        machine: Where times were measured.
        splits: On each of which every method was run.
        rows: By name, the best first.
    """

    WHAT: ClassVar[str] = "summary of a comparison"
    AGAIN: ClassVar[str] = "write it anew: nfbmr compare --resume"

    machine: Text
    splits: tuple[Text, ...]
    rows: dict[Text, ComparedRow]
