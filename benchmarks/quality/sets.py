"""The data sets of a study: those given, and the synthetic classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nfbmr.config import DataConfig
from nfbmr.data.synthesize import CLASSES, synthesize
from nfbmr.errors import ConfigError
from nfbmr.fields import suggestion
from nfbmr.layers import set_layer

COUNTS: Mapping[str, int] = {"train": 120, "test_good": 50, "test_defective": 70}
"""Images of a synthetic class, as the demonstration set has them."""
FEW: Mapping[str, int] = {"train": 14, "test_good": 6, "test_defective": 6}
"""Images for a quick look."""


@dataclass(frozen=True)
class DataSet:
    """A set of images, and how it is split.

    Attributes:
        name: Unique in a study.
        real: False for a synthetic one: averages are over real sets.
        values: Dotted keys below ``data``.
    """

    name: str
    real: bool
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What makes it another set: all but where it lies, so that a folder may be moved."""
        return {"name": self.name, **{k: v for k, v in self.values.items() if k != "data.path"}}


def parse_set(text: str) -> DataSet:
    """``NAME=PATH``, then any keys of the section ``data`` as ``:KEY=VALUE``.

    Raises:
        ConfigError: No name, no such folder, or no such key.

    Example:
        >>> parse_set("here=.:split=random:seed=3").values["data.seed"]
        3
    """
    name, equals, rest = text.partition("=")
    path, *options = re.split(r":(?=[a-z_]+=)", rest)
    if not equals or not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(
            "not NAME=PATH", where=f"--data {text}", fix="for example --data mtd=data/mtd:split=group"
        )
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise ConfigError("no such folder", where=f"--data {text}", fix="check the path")
    for option in options:
        key = option.partition("=")[0]
        if key not in DataConfig.model_fields or key == "path":
            fix = suggestion(key, DataConfig.model_fields, f"keys are {', '.join(DataConfig.model_fields)}")
            raise ConfigError(f"no key data.{key}", where=f"--data {text}", fix=fix)
    layer = set_layer([f"data.{option}" for option in options])
    if layer.problems:
        raise ConfigError("; ".join(layer.problems), where=f"--data {text}")
    return DataSet(name, True, {"data.path": str(folder), **layer.values})


def synthetic_sets(wanted: Sequence[str], folder: Path, counts: Mapping[str, int] = COUNTS) -> list[DataSet]:
    """Make synthetic sets, each of one class; those that are there are left alone.

    Args:
        wanted: ``CLASS`` or ``CLASS=SIZE``, ``all`` or ``none``.
        folder: Where they go.
        counts: Images of each.

    Raises:
        ConfigError: There is no such class.
    """
    names = [name for text in wanted for name in (CLASSES if text == "all" else (text,)) if text != "none"]
    sets = []
    for text in dict.fromkeys(names):
        name, _, size = text.partition("=")
        if size and not size.isdigit():
            raise ConfigError("the size is no number", where=f"--synthetic {text}", fix="give CLASS=PIXELS")
        out = folder / text.replace("=", "-")
        if size:
            synthesize(out, classes=(name,), size=int(size), **counts)
        else:
            synthesize(out, classes=(name,), **counts)
        label = f"synthetic-{text.replace('=', '-')}"
        sets.append(DataSet(label, False, {"data.path": str(out.resolve()), "data.category": name}))
    return sets
