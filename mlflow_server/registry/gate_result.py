"""What a gate says of a version: what was measured, the limit, and one sentence why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MARKS = {True: "passed", False: "REFUSED", None: "off"}
"""What people are told of a verdict."""


@dataclass(frozen=True)
class GateResult:
    """One gate's verdict.

    Attributes:
        gate: Its name.
        passed: None where the gate is turned off.
        measured: The number, or the word, that decided.
        limit: What it was held to.
        sentence: Why, for people.
        details: More numbers.
    """

    gate: str
    passed: bool | None
    measured: float | str | None
    limit: float | str | None
    sentence: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**self.brief(), "sentence": self.sentence, "details": dict(self.details)}

    def brief(self) -> dict[str, Any]:
        """For the history."""
        return {"gate": self.gate, "passed": self.passed, "measured": self.measured, "limit": self.limit}


def refused(findings: Sequence[GateResult]) -> tuple[GateResult, ...]:
    """Gates that were not passed; one that is off is not among them."""
    return tuple(finding for finding in findings if finding.passed is False)
