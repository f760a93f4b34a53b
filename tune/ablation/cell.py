"""One run of an ablation."""

from __future__ import annotations

from dataclasses import dataclass

from tune.execution.trial_spec import TrialSpec


@dataclass(frozen=True)
class Cell:
    """A row, on a category, with a seed: one run.

    Attributes:
        row: Name of the row.
        category: None where the data set has none.
        seed: Seed of the weights.
        task: The run.
        family: Equal for cells that want the same flow; the first of them trains it.
        split: Its split, where there are several; None where all cells have the configuration's.
    """

    row: str
    category: str | None
    seed: int
    task: TrialSpec
    family: str
    split: str | None = None
