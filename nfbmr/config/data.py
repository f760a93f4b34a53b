"""Which images, and how they are split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails

from nfbmr.config.section import Fraction, PositiveInt, Section

FEWEST_KNOWN = 8
"""Known defects that choosing takes at least: fewer would be chance, and cost the test set what it has."""
_KnownDefects = Annotated[int, Field(ge=FEWEST_KNOWN)] | Fraction | Path


def _pattern_problem(detail: ErrorDetails) -> str:
    """What is wrong with one pattern, in words."""
    name = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return f"{name} is missing: a regular expression that fits the paths of good parts"
    if detail["type"] == "extra_forbidden":
        return f"{name} is no pattern: there are good, defect and mask"
    return str(detail["ctx"]["error"]) if detail["type"] == "value_error" else f"{name}: {detail['msg']}"


class LayoutPatterns(Section):
    """What a folder's paths are, by regular expressions (:mod:`nfbmr.data.patterns`)."""

    good: str = Field(description="fits the paths of good parts")
    defect: str | None = Field(
        None, description="fits those of defective ones; its group kind names the kind"
    )
    mask: str | None = Field(
        None, description="fits those of masks; its group stem ends their pictures' paths"
    )

    @field_validator("good", "defect", "mask")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is not a regular expression ({error})") from error
        return value


class DataConfig(Section):
    """Which images, and how they are split."""

    path: Path | None = Field(
        None,
        description="folder of images, or a manifest (CSV, JSON lines, Parquet); nothing means the synthetic "
        "demonstration set",
    )
    layout: (
        Literal[
            "auto",
            "mvtec",
            "dagm",
            "mtd",
            "folder",
            "realiad",
            "visa",
            "ksdd",
            "ksdd2",
            "ad2",
            "loco",
            "btad",
            "mpdd",
            "manifest",
            "anomalib",
        ]
        | LayoutPatterns
    ) = Field(
        "auto",
        description="how the folder is laid out, by name; or patterns of paths: {good: ..., defect: ..., "
        "mask: ...} (docs/your-folder.md)",
    )
    category: str | None = Field(
        None,
        description="which one, where the folder holds several; all: one after the other (nfbmr train)",
    )
    split: Literal["auto", "official", "legacy", "group", "random"] = Field(
        "auto",
        description="official (sets with sides, such as MVTec AD), legacy or group (MTD), random or group",
    )
    group_by: str | None = Field(
        None,
        description="regular expression on the relative path; its first group names the part photographed",
    )
    test_fraction: Fraction = Field(
        0.2, description="share of the good images (or groups) kept for the test set"
    )
    validation_fraction: Fraction = Field(
        0.2, description="share of the training images (or groups) held out"
    )
    known_defects: _KnownDefects | None = Field(
        None,
        description="real defects that choose with the synthetic ones and leave the test set: a folder of "
        "them, or so many, or that share, of the defective test images",
    )
    limit_train: PositiveInt | None = Field(None, description="train on this many images at most (few-shot)")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the split")

    @field_validator("layout", mode="before")
    @classmethod
    def _patterns(cls, value: Any) -> Any:
        """Patterns are read first, so that what is wrong with one is said, and not that it is no name."""
        if isinstance(value, Mapping):
            try:
                return LayoutPatterns.model_validate(value)
            except ValidationError as error:
                raise ValueError("; ".join(map(_pattern_problem, error.errors()))) from error
        return value

    @field_validator("known_defects", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """A number that an option brings as text is a number; whatever else is text is a folder."""
        for number in (int, float) if isinstance(value, str) else ():
            try:
                return number(value)
            except ValueError:
                continue
        return value

    @field_validator("group_by")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"not a regular expression ({error})") from error
            if groups != 1:
                raise ValueError(f"needs exactly one capturing group, has {groups}")
        return value
