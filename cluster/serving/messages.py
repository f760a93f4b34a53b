"""What goes between the process that answers HTTP and the replicas: plain, and small to import."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError


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
    """An answer as it is sent: the status of HTTP, and JSON."""

    status: int
    body: bytes


class HttpError(Exception):
    """A request that is answered with what was wrong with it.

    Args:
        status: Of HTTP.
        what: One sentence.
        fix: What to do about it.
        headers: That go with the answer.
    """

    def __init__(
        self, status: int, what: str, fix: str = "", headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(what)
        self.status, self.what, self.fix, self.headers = status, what, fix, headers

    @classmethod
    def of(cls, error: ValidationError, fix: str) -> HttpError:
        """What pydantic found first."""
        return cls(400, first_problem(error.errors()), fix)

    def reply(self) -> Reply:
        """As it is sent."""
        return Reply(self.status, json_bytes({"error": self.what, "fix": self.fix or None}))


def first_problem(errors: Any) -> str:
    """The first of pydantic's problems as a sentence: where, and what."""
    places = [str(place) for place in errors[0]["loc"] if place not in ("query", "body")]
    return f"{'.'.join(places) or 'the request'}: {errors[0]['msg'].lower()}"


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8, on one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
