"""What goes between the process that answers HTTP and the replicas: plain, and small to import."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Job:
    """A request, its body unread.

    Attributes:
        kind: ``invocations``: JSON as MLflow takes it; ``score``: the bytes of one image file.
        body: The JSON, or the image.
        threshold: Of a ``score``, instead of the model's.
        heatmap: Of a ``score``: whether to draw one.
    """

    kind: Literal["invocations", "score"]
    body: bytes
    threshold: float | None = None
    heatmap: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it is sent.

    Attributes:
        status: Of HTTP.
        body: JSON.
    """

    status: int
    body: bytes


class Refusal(Exception):
    """A request that is answered with what was wrong with it.

    Args:
        status: Of HTTP.
        what: One sentence.
        fix: What to do about it.
        headers: That go with the answer.
    """

    def __init__(
        self, status: int, what: str, fix: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(what)
        self.status, self.what, self.fix, self.headers = status, what, fix, headers

    def reply(self) -> Reply:
        """As it is sent."""
        return Reply(self.status, json_bytes({"error": self.what, "fix": self.fix or None}))


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8, on one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
