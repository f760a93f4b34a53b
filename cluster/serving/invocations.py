"""Requests in MLflow's form: the same JSON that ``mlflow models serve`` takes, without a table in between."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from cluster.serving.messages import Refusal
from nfbmr.answering import Question

FORMS = ("inputs", "instances", "dataframe_split", "dataframe_records")
IMAGE = "image"
MAX_VALUES = 4_000_000
"""Numbers, lists and texts in one request: each takes far more memory than its letters do."""

_EXAMPLE = '{"inputs": ["<base64 of an image file>"], "params": {"heatmap": true}}'


def questions_of(body: bytes, max_images: int) -> list[Question]:
    """What a request asks.

    Args:
        body: JSON.
        max_images: That one request may ask about.

    Raises:
        Refusal: It is no such request.

    Example:
        >>> questions_of(b'{"inputs": ["iVBORw0K..."], "params": {"threshold": 2}}', 8)
        [Question(item='iVBORw0K...', threshold=2.0, heatmap=False)]
    """
    asked = _parsed(body)
    forms = [form for form in FORMS if isinstance(asked, dict) and form in asked]
    if not isinstance(asked, dict) or len(forms) != 1:
        raise Refusal(400, f"one of {', '.join(FORMS)} is meant", f"for example {_EXAMPLE}")
    items = _items(forms[0], asked[forms[0]])
    if len(items) > max_images:
        raise Refusal(413, f"{len(items)} images in one request, the limit is {max_images}", "ask in parts")
    threshold, heatmap = _params(asked.get("params"))
    return [Question(item, threshold, heatmap) for item in items]


def _parsed(body: bytes) -> Any:
    if sum(body.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
        raise Refusal(
            413,
            f"more than {MAX_VALUES} values",
            "send image files as base64 text, which is smaller than pixels",
        )
    try:
        return json.loads(body, parse_constant=_no_number)
    except RecursionError as error:
        raise Refusal(400, "the JSON is nested too deeply", f"for example {_EXAMPLE}") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
        raise Refusal(400, f"not JSON ({str(error)[:100]})", f"for example {_EXAMPLE}") from error


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


def _items(form: str, value: Any) -> list[Any]:
    """The images, one by one."""
    if form == "dataframe_split":
        names = value.get("columns") if isinstance(value, dict) else None
        rows = value.get("data") if isinstance(value, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise Refusal(400, "a table in parts has columns and data", f"for example {_EXAMPLE}")
        column = _column(names if isinstance(names, list) else range(len(rows[0]) if rows else 0))
        return [row[column] if column < len(row) else None for row in rows]
    if form == "dataframe_records":
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise Refusal(400, "records are a list of objects", f"for example {_EXAMPLE}")
        names = list(value[0]) if value else []
        return [row.get(names[_column(names)]) for row in value]
    if isinstance(value, dict):
        names = list(value)
        found = value[names[_column(names)]]
        value = found
    if not isinstance(value, list):
        raise Refusal(400, f"{form} is a list of images", f"for example {_EXAMPLE}")
    return value


def _column(names: Any) -> int:
    """Which column holds the images: the one of that name, or the only one."""
    if IMAGE in names:
        return list(names).index(IMAGE)
    if len(names) > 1:
        raise Refusal(400, f"a column {IMAGE!r} is meant, or one column", f"for example {_EXAMPLE}")
    if not names:
        raise Refusal(400, "there are no images", f"for example {_EXAMPLE}")
    return 0


def _params(params: Any) -> tuple[float | None, bool]:
    if params is None:
        return None, False
    if not isinstance(params, Mapping) or not set(params) <= {"threshold", "heatmap"}:
        raise Refusal(400, "params takes threshold and heatmap", f"for example {_EXAMPLE}")
    threshold, heatmap = params.get("threshold"), params.get("heatmap") or False
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | None):
        raise Refusal(400, "threshold is no number", "leave it out for the model's own")
    if not isinstance(heatmap, bool):
        raise Refusal(400, "heatmap is neither true nor false", "leave it out for none")
    try:
        limit = None if threshold is None else float(threshold)
    except OverflowError:
        limit = math.inf
    if limit is not None and not math.isfinite(limit):
        raise Refusal(400, "threshold is no finite number", "leave it out for the model's own")
    return limit, heatmap
