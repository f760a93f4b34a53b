"""Requests in MLflow's form: the same JSON that ``mlflow models serve`` takes, without a table in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import from_json

from cluster.serving.messages import HttpError

if TYPE_CHECKING:
    from nfbmr.inference import ScoreRequest

_FORMS = ("inputs", "instances", "dataframe_split", "dataframe_records")
_IMAGE = "image"
MAX_VALUES = 4_000_000
"""Numbers, lists and texts in one request: each takes far more memory than its letters do."""

_FIX = 'for example {"inputs": ["<base64 of an image file>"], "params": {"heatmap": true}}'


class Params(BaseModel):
    """What is asked of all images of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    threshold: FiniteFloat | None = Field(None, description="Instead of the model's own.")
    heatmap: bool | None = Field(None, description="Whether to draw one.")


class Table(BaseModel):
    """A table in parts."""

    columns: list[Any] | None = None
    data: list[list[Any]]


class Invocation(BaseModel):
    """One of MLflow's four forms, and parameters."""

    inputs: list[Any] | dict[str, list[Any]] | None = None
    instances: list[Any] | dict[str, list[Any]] | None = None
    dataframe_split: Table | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    params: Params | None = None

    def images(self) -> list[Any]:
        """The images, one by one.

        Raises:
            HttpError: It is not clear where they are.
        """
        if self.dataframe_split is not None:
            rows = self.dataframe_split.data
            names = self.dataframe_split.columns or list(range(len(rows[0]) if rows else 0))
            column = names.index(_column(names))
            return [row[column] if column < len(row) else None for row in rows]
        if self.dataframe_records is not None:
            records = self.dataframe_records
            name = _column(list(records[0]) if records else [])
            return [record.get(name) for record in records]
        listed = self.inputs if self.inputs is not None else self.instances
        if listed is None:
            raise HttpError(400, "there are no images", _FIX)
        return listed[_column(list(listed))] if isinstance(listed, dict) else listed


def questions_of(body: bytes, max_images: int) -> list[ScoreRequest]:
    """What a request asks.

    Args:
        body: JSON.
        max_images: That one request may ask about.

    Raises:
        HttpError: It is no such request.

    Example:
        >>> questions_of(b'{"inputs": ["iVBORw0K..."], "params": {"threshold": 2}}', 8)
        [ScoreRequest(item='iVBORw0K...', threshold=2.0, heatmap=False)]
    """
    from nfbmr.inference import ScoreRequest  # with torch, which whoever only listens does without

    if sum(body.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
        fix = "send image files as base64 text, which is smaller than pixels"
        raise HttpError(413, f"more than {MAX_VALUES} values", fix)
    try:
        request = Invocation.model_validate(from_json(body, allow_inf_nan=False))
    except ValidationError as error:
        raise HttpError.of(error, _FIX) from error
    except ValueError as error:
        raise HttpError(400, f"not JSON ({str(error)[:100]})", _FIX) from error
    if len(request.model_fields_set & set(_FORMS)) != 1:
        raise HttpError(400, f"one of {', '.join(_FORMS)} is meant", _FIX)
    items, params = request.images(), request.params or Params()
    if len(items) > max_images:
        raise HttpError(413, f"{len(items)} images in one request, the limit is {max_images}", "ask in parts")
    return [ScoreRequest(item, params.threshold, bool(params.heatmap)) for item in items]


def _column(names: list[Any]) -> Any:
    """Which column holds the images: the one of that name, or the only one."""
    if _IMAGE in names:
        return _IMAGE
    if len(names) != 1:
        raise HttpError(400, f"a column {_IMAGE!r} is meant, or one column", _FIX)
    return names[0]
