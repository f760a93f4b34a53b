"""What a comparison of a sweep's three records found; see :mod:`tune.verify`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Difference:
    """One thing in which two records differ.

    Attributes:
        run: Key of the trial or cell; the plan's name for the parent.
        between: The two records: ``folder and Optuna``, ``folder and MLflow``.
        kind: As of a :class:`mlflow_server.tracking.server_comparison.Gap`, or ``state``, ``value``,
            ``folder``, ``journal``.
        what: For people.
        count: How many things of the kind differ.
        mended: None where it was only looked at.
    """

    run: str
    between: str
    kind: str
    what: str
    count: int = 1
    mended: bool | None = None

    def line(self) -> str:
        """For people."""
        end = {None: "", True: " [mended]", False: " [not mended]"}[self.mended]
        return f"{self.run}: {self.what} ({self.between}){end}"


@dataclass
class Verification:
    """What was compared, and what came of it.

    Attributes:
        folder: Folder of the sweep or ablation.
        uri: Address of the tracking server, without a password; empty where the runs were meant for none.
        runs: How many were compared, the parent among them.
        writing: How many more are being written right now, and were not compared with MLflow.
        states: States of the trials, by what the folder says now.
        differences: What differed, each with whether it was mended.
        problem: Why the server could not be asked, or not for all of it; empty where it could.
    """

    folder: Path
    uri: str = ""
    runs: int = 0
    writing: int = 0
    states: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    problem: str = ""

    @property
    def agreed(self) -> bool:
        """Whether all records agree now."""
        return not self.problem and all(difference.mended for difference in self.differences)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "folder": str(self.folder),
            "uri": self.uri,
            "agreed": self.agreed,
            "runs": self.runs,
            "writing": self.writing,
            "states": dict(self.states),
            "problem": self.problem,
            "differences": [vars(difference) for difference in self.differences],
        }

    def text(self) -> str:
        """For people."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        lines = [f"{self.folder}: {self.runs} runs compared ({states or 'no trials'})"]
        lines += [f"  {difference.line()}" for difference in self.differences]
        if self.writing:
            lines.append(f"  {self.writing} more are being written: look again when they have ended")
        if self.problem:
            lines.append(f"  MLflow was not compared to the end: {self.problem}")
        if not self.uri:
            lines.append("  these runs were meant for no tracking server; --uri compares with one")
        if self.agreed:
            lines.append("  all records agree" + (" now" if self.differences else ""))
        return "\n".join(lines)
