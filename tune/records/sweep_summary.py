"""What is kept of a sweep, typed: its ``summary.json``.

How it is read and written is :mod:`nfbmr.evaluation.summary`; ``docs/schemas/`` holds it as JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from nfbmr.evaluation.intervals import Estimate
from nfbmr.evaluation.summary import DatasetFacts, Interval, Part, Summary, Text
from nfbmr.text import chosen_with

_NAMED = 8
"""Trials that a sentence names; of more the first ones."""


class TrialCounts(Part):
    """Trials: how many were asked for, and how those that were begun ended."""

    asked: int
    finished: int
    pruned: int
    failed: int
    unfinished: int


class TrialPoint(Part):
    """A trial.

    Attributes:
        number: Its number.
        params: What was searched, by dotted key.
        values: Its objectives.
    """

    number: int
    params: dict[Text, Any]
    values: dict[Text, float]


class ChosenTrial(TrialPoint):
    """The trial that was chosen, and scored on the test set; what comes of that is None before it is.

    Attributes:
        run_id: Identifier of its run.
        run_dir: Folder of its run.
        validation: Its metrics on validation images.
        test: Its metrics on test images.
        leak: See :class:`nfbmr.evaluation.summary.RunSummary`, as for all that follow.
    """

    run_id: Text
    run_dir: Text
    validation: dict[Text, Interval] | None = None
    test: dict[Text, Interval] | None = None
    leak: Text | None = None
    report: Text | None = None
    dataset: DatasetFacts | None = None
    split: Text | None = None
    test_peeked: bool | None = None
    known_defects: dict[Text, int] | None = None

    def auroc(self, side: Literal["validation", "test"]) -> Estimate | None:
        """The image AUROC of a side; None where it is undefined or was not measured."""
        estimate = ((self.validation if side == "validation" else self.test) or {}).get("image_auroc")
        return estimate if estimate is not None and estimate.defined else None


class TrustFacts(Part):
    """How far the choice can be trusted.

    Attributes:
        finished: Trials that were compared.
        within_error: How many of them cannot be told from the best.
        trials: Numbers of those; the best comes first.
        error: What the standard error is of; see :class:`tune.search.trust.Trust`.
        sentence: What it means.
        best: The trial with the best objective.
        chosen: The one that was chosen.
        why: Why, in a sentence.
    """

    finished: int
    within_error: int
    trials: tuple[int, ...]
    error: Literal["paired", "interval"] | None
    sentence: Text
    best: int
    chosen: int
    why: Text | None = None


class ImportanceFacts(Part):
    """Whether trials suffice to say what the objective depended on, and what is missing where they do not."""

    finished: int
    needed: int
    missing: Text | None = None


class Shared(Part):
    """Trials that found features, or the flow, in the store."""

    features: int
    flows: int


class SavedSeconds(Part):
    """Seconds that trials did not need, as the store had their features, or stages of any kind."""

    features: float
    stages: float


class SweepSummary(Summary):
    """What a sweep found.

    Attributes:
        name: Name of the sweep.
        folder: Its folder.
        method: That it began from.
        objective: Names of the objectives.
        sampler: What suggested the trials.
        trials: How many, by how they ended.
        best: The chosen trial: the model to take.
        highest: The trial with the best first objective, often the same.
        trust: Which of the two was chosen and why; None where the objective is another than the AUROC alone.
        importance: Whether it can be said what the objective depended on.
        pareto: Trials that no other beats in every objective; empty for one objective.
        hits: Trials that found features, or the flow, in the store.
        saved_seconds: What trials did not need, as the store had it.
        repeats: Trials that were not run, as an earlier one had their settings: its number by theirs.
        errors: Why trials failed, by number.
        seconds: That the last driver took.
        table: The table of trials.
        resume: The command that goes on.
        files: Tables and results by kind.
    """

    WHAT: ClassVar[str] = "summary of a sweep"
    AGAIN: ClassVar[str] = "write it anew: nfbmr sweep --resume"
    FORMAT: ClassVar[int] = 2

    format: int = Field(2, description="number of this format; 1 called the seconds of stages those of flows")
    name: Text
    folder: Text
    method: Text
    objective: tuple[Text, ...]
    sampler: Text
    trials: TrialCounts
    best: ChosenTrial | None = None
    highest: TrialPoint | None = None
    trust: TrustFacts | None = None
    importance: ImportanceFacts
    pareto: tuple[TrialPoint, ...] = ()
    hits: Shared
    saved_seconds: SavedSeconds
    repeats: dict[Text, int] = Field(default_factory=dict)
    errors: dict[Text, Text] = Field(default_factory=dict)
    seconds: float
    table: Text
    resume: Text
    files: dict[Text, Text] = Field(default_factory=dict)

    @classmethod
    def upgraded(cls, values: Mapping[str, Any], written: int) -> Mapping[str, Any]:
        """See :meth:`nfbmr.evaluation.summary.Summary.upgraded`."""
        saved = values.get("saved_seconds")
        if written < 2 and isinstance(saved, Mapping):
            saved = {"stages" if name == "flows" else name: seconds for name, seconds in saved.items()}
            return {**values, "saved_seconds": saved}
        return values

    @property
    def notes(self) -> list[str]:
        """Sentences on how far the result can be trusted, and on what too few trials do not show."""
        trust, known = self.trust, (self.best.known_defects if self.best else None) or {}
        notes = (
            *((trust.sentence, trust.why) if trust else ()),
            self.repeated,
            chosen_with(known),
            self.importance.missing,
        )
        return [note for note in notes if note]

    @property
    def repeated(self) -> str | None:
        """Which trials repeated an earlier one, in a sentence; None where none did."""
        if not self.repeats:
            return None
        named = [f"{name} is {first:04d}" for name, first in self.repeats.items()]
        listed = ", ".join(named[:_NAMED]) + (", ..." if len(named) > _NAMED else "")
        return (
            f"{len(named)} of {self.trials.asked} trials repeated an earlier point, took its result and were "
            f"not run ({listed})."
        )

    @property
    def failures(self) -> str | None:
        """Which trials failed and why the first did, in a sentence; None where none did."""
        if not self.errors:
            return None
        names, first = list(self.errors), next(iter(self.errors.values())).splitlines()[0]
        listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        return f"{len(names)} of {self.trials.asked} trials failed ({listed}), the first with: {first}"

    @property
    def labels(self) -> dict[str, str]:
        """How far the choice can be trusted, as tags to find it by."""
        known = (self.best.known_defects if self.best else None) or {}
        labels = {}
        if self.trust:
            labels["nfbmr.within_error"] = f"{self.trust.within_error} of {self.trust.finished}"
        if known:
            labels["nfbmr.known_defects"] = str(sum(known.values()))
        return labels
