"""A manifest: a row an image, as CSV, JSON lines or Parquet. It says what is what; nothing is guessed.

========  ============================================================================================
column    says
========  ============================================================================================
path      the image; relative to the manifest's folder, or absolute. The one column that must be there
kind      kind of defect, or a word for good; ``ignore`` leaves the row out
label     good or defective in any of their words, or 0 and 1; may stand for `kind`, or beside it
mask      masks, with ``|`` between several (a list in JSON lines and Parquet); empty for none
split     train, validation or test, for all rows or for none
group     the part photographed, for all rows or for none
category  which of several data sets
name      the image's name in every result; the path as it is written by default
========  ============================================================================================

``nfbmr data manifest`` writes one of whatever a folder was understood to be. Training on it gives what the
folder gives: names are the same, so splits and digests are.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nfbmr.data.category import category_named
from nfbmr.data.files import is_file
from nfbmr.data.manifest_rows import BETWEEN, COLUMNS, SUFFIXES, read_rows, write_rows
from nfbmr.data.names import SIDES, joined, means_defective, means_good
from nfbmr.data.samples import GOOD, Dataset, Sample, Unused
from nfbmr.errors import DataError, OutputError
from nfbmr.text import count, visible

_IGNORED = "ignore"
_SHOWN = 5


def read_manifest(file: Path, category: str | None = None) -> Dataset:
    """Read a manifest.

    Args:
        file: It; its ending says the format.
        category: Which one, needed where its rows name several.

    Raises:
        DataError: It cannot be read, lacks a column, names files that do not exist or twice, says nothing of
            what an image shows, or holds no good image to learn from.
    """
    rows = read_rows(file)
    known = _categories(rows)
    name, chosen = file.stem, None
    if known and (len(known) > 1 or category is not None):
        chosen = category_named(category, known, file)
        rows = [(line, row) for line, row in rows if row.get("category") == chosen]
        name = f"{name}/{chosen}"
    elif category is not None:
        raise DataError(
            f"no row names a category, but {category!r} was asked for",
            where=file,
            fix="leave the category out, or add a column category",
        )
    samples, unused = _samples(rows, file)
    _check(samples, file)
    ordered = tuple(sorted(samples, key=lambda s: s.name))
    return Dataset(name, "manifest", file, ordered, tuple(sorted(unused, key=lambda u: u.path)), chosen)


def manifest_categories(file: Path) -> tuple[str, ...]:
    """Categories that a manifest's rows name; none where they name one alone or none.

    Raises:
        DataError: It cannot be read.
    """
    known = _categories(read_rows(file))
    return known if len(known) > 1 else ()


def write_manifest(datasets: Sequence[Dataset], file: Path) -> Path:
    """Write what was understood, image by image; files that are not used are rows with the kind `ignore`.

    Args:
        datasets: One, or the categories of one place.
        file: Where to; its ending says the format. Paths are relative to its folder where they lie below it.

    Raises:
        OutputError: The file is there already, cannot be written, or has no manifest's ending.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise OutputError("no ending of a manifest", where=file, fix=f"use one of {', '.join(SUFFIXES)}")
    if file.exists():
        raise OutputError(
            "there is a file already, which somebody may have corrected",
            where=file,
            fix="give another with --out, or remove it",
        )
    rows = [row for dataset in datasets for row in _written(dataset, file.resolve().parent)]
    write_rows(rows, file)
    return file


# -- rows to samples


def _samples(rows: Iterable[tuple[int, dict[str, Any]]], file: Path) -> tuple[list[Sample], list[Unused]]:
    samples: list[Sample] = []
    unused: list[Unused] = []
    problems: list[str] = []
    for line, row in rows:
        try:
            path = _file(row.get("path"), file)
            kind = _kind_of(row)
            masks = tuple(_file(mask, file) for mask in _listed(row.get("mask"), file))
            side = _side_of(row)
        except ValueError as error:
            problems.append(f"row {line}: {error}")
            continue
        if kind is None:
            unused.append(Unused(path, str(row.get("note") or "the manifest says ignore")))
            continue
        name = str(row.get("name") or row["path"]).replace(os.sep, "/")
        group = row.get("group")
        group = None if group in (None, "") else str(group)
        samples.append(Sample(path, name, kind, () if kind == GOOD else masks, group, side))
    for what, values in (("path", [s.path for s in samples]), ("name", [s.name for s in samples])):
        twice = [str(value) for value, times in Counter(values).items() if times > 1]
        problems += [f"{count(len(twice), what)} stand there twice, such as {twice[0]}"] if twice else []
    if problems:
        listed = "".join(f"\n     {visible(problem)}" for problem in problems[:_SHOWN])
        more = f"\n     and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{count(len(problems), 'problem')} in the manifest{listed}{more}",
            where=file,
            fix="mend these rows; paths are relative to the manifest's folder",
        )
    return samples, unused


def _file(value: Any, manifest: Path) -> Path:
    """A file that a row names.

    Raises:
        ValueError: It is none.
    """
    if value in (None, ""):
        raise ValueError("no path")
    text = str(value)
    for spelled in dict.fromkeys((text, text.strip(), text.strip().replace("\\", "/"))):
        if is_file(path := manifest.parent / spelled):
            return path
    raise ValueError(f"no such file: {value}")


def _kind_of(row: Mapping[str, Any]) -> str | None:
    """Kind of defect, ``"good"``, or None where the row is to be left out.

    Raises:
        ValueError: The row says neither kind nor label, or they disagree.
    """
    kind, label = (str(row.get(key) if row.get(key) is not None else "").strip() for key in ("kind", "label"))
    if _IGNORED in (kind.lower(), label.lower()):
        return None
    is_good = None if not label else _is_good(label)
    if is_good is None and label and not kind:
        kind = label  # a label may name the kind
    if not kind:
        if is_good is None:
            raise ValueError("neither kind nor label")
        return GOOD if is_good else "defect"
    if means_good(kind):
        if is_good is False:
            raise ValueError(f"the label {label!r} and the kind {kind!r} disagree")
        return GOOD
    if is_good:
        raise ValueError(f"the label {label!r} and the kind {kind!r} disagree")
    return kind


def _is_good(label: str) -> bool | None:
    if label in ("0", "0.0", "False", "false") or means_good(label):
        return True
    return False if label in ("1", "1.0", "True", "true") or means_defective(label) else None


def _side_of(row: Mapping[str, Any]) -> str | None:
    """The side that a row names.

    Raises:
        ValueError: There is no such side.
    """
    text = str(row.get("split") or "").strip()
    if not text:
        return None
    side = SIDES.get(joined(text))
    if side not in ("train", "validation", "test"):
        raise ValueError(f"the split {text!r} is none of train, validation and test")
    return side


def _listed(value: Any, manifest: Path) -> list[str]:
    """The names in a column that may hold several; a file may have a bar in its own name."""
    if value is None:
        return []
    if isinstance(value, list | tuple):
        parts = [str(part) for part in value]
    else:
        parts = [value] if is_file(manifest.parent / str(value)) else str(value).split(BETWEEN)
    return [part for part in parts if part.strip()]


def _check(samples: Sequence[Sample], file: Path) -> None:
    if not any(s.is_good and s.subset != "test" for s in samples):
        kinds = ", ".join(sorted({s.defect for s in samples})) or "no images"
        raise DataError(
            f"no normal images to learn from (only: {kinds})",
            where=file,
            fix="rows of normal parts have the kind good; where rows name a split, some of theirs is train",
        )
    for what, said in (("split", [s.subset for s in samples]), ("group", [s.group for s in samples])):
        named = sum(value is not None for value in said)
        if 0 < named < len(said):
            raise DataError(
                f"{named} of {len(said)} rows name a {what}, the others do not",
                where=file,
                fix=f"fill in the column {what} for all rows, or for none",
            )


def _categories(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[str, ...]:
    return tuple(sorted({str(row["category"]) for _, row in rows if row.get("category")}))


# -- samples to rows


def _written(dataset: Dataset, folder: Path) -> Iterator[dict[str, Any]]:
    for sample in dataset.samples:
        yield {
            "path": _relative(sample.path, folder),
            "kind": sample.defect,
            "mask": [_relative(mask, folder) for mask in sample.masks],
            "split": sample.subset,
            "group": sample.group,
            "category": dataset.category,
            "name": sample.name,
            "note": None,
        }
    for unused in dataset.unused:
        path = _relative(unused.path, folder)
        yield {
            **dict.fromkeys(COLUMNS),
            "path": path,
            "kind": _IGNORED,
            "mask": [],
            "category": dataset.category,
            "note": unused.why,
        }


def _relative(path: Path, folder: Path) -> str:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links stay links
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else absolute.as_posix()
