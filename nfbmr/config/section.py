"""What every section of the configuration is: typed, frozen, closed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
)

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
"""A share, above 0 and below 1."""
PositiveInt = Annotated[int, Field(ge=1)]
"""A whole number of at least 1."""
Taps = tuple[int | str, ...]
"""Layers of a backbone: flat indices of blocks, or paths of modules."""


def distinct(value: tuple[Any, ...], field: ValidationInfo) -> tuple[Any, ...]:
    """Refuse a list that names something twice."""
    if len(set(map(str, value))) != len(value):
        raise ValueError(f"names a {str(field.field_name).removesuffix('s')} twice")
    return value


def odd_side(value: int) -> int:
    """Refuse a neighbourhood that has no middle."""
    if value % 2 == 0:
        raise ValueError("needs an odd side, so that a neighbourhood has a middle")
    return value


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
