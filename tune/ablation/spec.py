"""What an ablation varies: rows of settings, from a named table or a YAML file.

::

    title: What each part of NF-BMR adds
    metric: image_auroc            # the default; or metrics: [image_auroc, pixel_aupro], the main one first
    reference: n=2                 # every row is compared with it; the first row by default
    settings: {train.flow.epochs: 30}   # of all rows; the command line has the last word on these
    rows:                          # name -> what this row sets
      n=1: {mapping.residual_blocks: 1}
      n=2: {mapping.residual_blocks: 2}
      NF alone: {method: nf}
      DifferNet: {method: differnet, as_published: differnet-published}   # with --as-published
    grid: {flow.blocks: [2, 4]}    # the product of its lists; with rows, each row with each of them
    over: flow.blocks              # rows that differ in this key alone are drawn as a line over its values
    quoted: [CutPaste]             # rows that are not run: published numbers stand alone
    dataset: mvtec                 # what published numbers were measured on: the table says what lacks
    like: paper-table5             # begin with another named table, key by key
    published:                     # numbers to compare with, in the metric's unit or in percent
      source: Zhang et al. 2024, Table 5
      protocol: MVTec AD, 15 categories
      values:
        n=1: 97.4                                   # of the main metric, over all
        n=2: {value: 98.7, source: "Table 1"}
        NF alone: {image_f1: 91.4, image_auroc: {all: 94.2, carpet: 92.9}}   # by metric, by category

Reading collects every mistake and raises once, with line numbers and the nearest right names.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from nfbmr import yaml_text
from nfbmr.errors import ConfigError
from nfbmr.fields import did_you_mean
from nfbmr.text import count, visible
from tune.ablation.spec_parser import Reader
from tune.tables.rows import METRICS, AblationSpec, Published, Reports, Row

__all__ = [
    "METRICS",
    "AblationSpec",
    "Published",
    "Reports",
    "Row",
    "load_spec",
    "named_tables",
    "parse_spec",
    "read_spec",
]

_FILE_SUFFIXES = (".yaml", ".yml", ".json")


def named_tables() -> tuple[str, ...]:
    """Names of the tables that come with the package.

    Example:
        >>> named_tables()[-2:]
        ('paper-table4', 'paper-table5')
    """
    folder = resources.files("tune.ablation") / "named"
    return tuple(sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".yaml")))


def load_spec(table: str) -> AblationSpec:
    """A named table, or one in a YAML file.

    Raises:
        ConfigError: There is no such table or file, or it holds mistakes: all of them in one message.

    Example:
        >>> [row.name for row in load_spec("paper-table5").rows]
        ['n=1', 'n=2', 'n=3', 'NF + B-PFM', 'NF alone']
    """
    if table in named_tables():
        return parse_spec(_text_of(table), table, table)
    path = Path(table)
    if not path.is_file() and path.suffix.lower() not in _FILE_SUFFIXES:
        hint = did_you_mean(table, named_tables()).removeprefix("; ")
        names = ", ".join(named_tables())
        raise ConfigError(
            "neither a table nor a file", where=table, fix=hint or f"tables are {names}; or give a YAML file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"the table cannot be read ({reason})", where=path, fix="check the path") from error
    return parse_spec(text, path.stem, str(path))


def parse_spec(text: str, name: str, file: str) -> AblationSpec:
    """A table from YAML text.

    Args:
        text: As at the head of this module.
        name: Name of the table.
        file: What error messages call it.

    Raises:
        ConfigError: What is wrong with it, all at once.

    Example:
        >>> spec = parse_spec("grid: {flow.blocks: [2, 4], seed_: [1]}", "blocks", "blocks.yaml")
        Traceback (most recent call last):
        nfbmr.errors.ConfigError: 1 mistake in the table...
        >>> spec = parse_spec("grid: {flow.blocks: [2, 4], flow.hidden: [8]}", "a", "a.yaml")
        >>> [row.name for row in spec.rows], spec.reference
        (['blocks=2 hidden=8', 'blocks=4 hidden=8'], 'blocks=2 hidden=8')
    """
    try:
        document = yaml_text.parse(text)
    except yaml_text.YamlError as error:
        raise ConfigError(f"not a YAML file ({error})", where=file, fix="see docs/ablations.md") from error
    value = document.value
    if isinstance(value, Mapping) and "like" in value:
        value = _inherited(value, file)
    return read_spec(value, name, file, document.lines)


def read_spec(value: Any, name: str, file: str, lines: Mapping[str, int] | None = None) -> AblationSpec:
    """A table from plain values; arguments as for :func:`parse_spec`."""
    reader = Reader(file, lines or {})
    spec = reader.read(value, name)
    if reader.problems or spec is None:
        listed = "".join(f"\n  - {problem}" for problem in reader.problems)
        raise ConfigError(
            f"{count(len(reader.problems), 'mistake')} in the table {visible(file)}:{listed}",
            fix="mend the table; docs/ablations.md says what it may hold",
        )
    return spec


def _text_of(table: str) -> str:
    return (resources.files("tune.ablation") / "named" / f"{table}.yaml").read_text(encoding="utf-8")


def _inherited(value: Mapping[str, Any], file: str) -> dict[str, Any]:
    """A table's keys above those of the named table that it is like."""
    other = str(value["like"])
    if other not in named_tables():
        raise ConfigError(
            f"no such table {visible(other)}{did_you_mean(other, named_tables())}",
            where=f"{file}: like",
            fix=f"tables are {', '.join(named_tables())}",
        )
    below = dict(yaml_text.parse(_text_of(other)).value)
    if "like" in below:
        below = _inherited(below, other)
    return {**below, **{key: setting for key, setting in value.items() if key != "like"}}
