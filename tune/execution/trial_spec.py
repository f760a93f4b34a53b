"""What is to be run and how it went: the seam between those who plan trials and those who execute them.

A planner (a study, an ablation) is a :class:`TrialSource`: it hands out :class:`TrialSpec`, hears of their
epochs and of their :class:`TrialResult`. :func:`tune.execution.execute.execute` runs them, on Ray or in this
process. Neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from nfbmr.config import Config
from nfbmr.evaluation.summary import RunSummary

State = Literal["finished", "pruned", "failed", "interrupted"]
"""How a trial ended."""


@dataclass(frozen=True)
class TrialSpec:
    """One trial: a run of its own, in its own folder.

    Attributes:
        key: Its name among the tasks: ``"0007"``, ``"n=2/bottle/seed-0"``.
        config: What to run.
        folder: The run's; whatever it holds already is not done again.
        run_id: What the run is known by everywhere, MLflow included: the same at every attempt.
        run_name: What people call it.
        parent_id: ``run_id`` of the sweep or ablation.
        test: Whether the test set is scored at the end; a sweep's trials never do.
        tags: Labels of its MLflow run.
    """

    key: str
    config: Config
    folder: Path
    run_id: str
    run_name: str
    parent_id: str
    test: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Epochs of all stages together: the last step that :meth:`TrialSource.report` hears of."""
        from nfbmr.methods.registry import epochs_of

        return epochs_of(self.config)

    def as_json(self) -> dict[str, Any]:
        """Plain values, which :meth:`from_json` reads back on another machine."""
        return {
            "key": self.key,
            "config": self.config.model_dump(mode="json"),
            "folder": str(self.folder),
            "run_id": self.run_id,
            "run_name": self.run_name,
            "parent_id": self.parent_id,
            "test": self.test,
            "tags": dict(self.tags),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialSpec:
        """What :meth:`as_json` gave."""
        return cls(
            **{
                **values,
                "config": Config.model_validate(values["config"]),
                "folder": Path(values["folder"]),
            }
        )


@dataclass(frozen=True)
class TrialResult:
    """How a task ended.

    Attributes:
        key: Key of the task.
        state: ``interrupted`` can be gone on with; ``failed`` is not tried again.
        summary: The run's, where it finished.
        error: What was wrong, for people, where it failed.
        seconds: From its start to its end, of the last attempt.
        cost: What its model costs to use, where that was measured: ``parameters``, ``latency_ms``.
        copy_of: Key of the earlier task that it repeats, where it was not run at all.
    """

    key: str
    state: State
    summary: RunSummary | None = None
    error: str | None = None
    seconds: float = 0.0
    cost: Mapping[str, float] = field(default_factory=dict)
    copy_of: str | None = None

    def numbers(self) -> dict[str, float]:
        """Every number of the result, by the names that objectives have.

        Metrics are called ``validation/image_auroc``, the others have dots: ``timings.flow``,
        ``cost.latency_ms``.
        """
        cost = {f"cost.{name}": float(value) for name, value in self.cost.items()}
        return cost if self.summary is None else self.summary.numbers() | cost

    def as_json(self) -> dict[str, Any]:
        """Plain values, which :meth:`from_json` reads back in another process."""
        return {**vars(self), "summary": None if self.summary is None else self.summary.as_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialResult:
        """What :meth:`as_json` gave."""
        summary = values["summary"]
        return cls(**{**values, "summary": None if summary is None else RunSummary.from_json(summary)})


class TrialSource(Protocol):
    """Somebody who plans trials. All three are called from one thread."""

    def next(self) -> TrialSpec | None:
        """The next trial to run; None: there is nothing more to hand out."""
        ...

    def report(self, key: str, step: int, metrics: Mapping[str, float]) -> bool:
        """An epoch ended.

        Args:
            key: Key of the task.
            step: Epochs of all stages so far, from 1.
            metrics: Metrics of the epoch; ``objective`` where it was validated.

        Returns:
            Whether to prune the trial.
        """
        ...

    def done(self, outcome: TrialResult) -> None:
        """A task ended, for good or interrupted."""
        ...
