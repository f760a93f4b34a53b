"""The files of a manifest: CSV, JSON lines and Parquet to rows, and rows to them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nfbmr.errors import DataError, OutputError
from nfbmr.paths import atomic

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Endings of the files that a manifest may be."""
COLUMNS = ("path", "kind", "mask", "split", "group", "category", "name", "note")
"""Columns of a manifest that mean something."""
BETWEEN = "|"
"""What stands between several masks of one image in a CSV."""
_ALSO = {
    "image": "path",
    "image_path": "path",
    "file": "path",
    "filename": "path",
    "defect": "kind",
    "masks": "mask",
    "mask_path": "mask",
    "side": "split",
    "subset": "split",
    "object": "category",
}


def read_rows(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """Rows by canonical column, and where each stands.

    Raises:
        DataError: The file cannot be read, has no rows, or no column path.
    """
    try:
        raw = list(_READERS[file.suffix.lower()](file)) if file.suffix.lower() in _READERS else None
    except (OSError, UnicodeError, ValueError, csv.Error) as error:
        raise DataError(
            f"the manifest cannot be read ({error})", where=file, fix="write it again, in UTF-8"
        ) from error
    if raw is None:
        raise DataError("no ending of a manifest", where=file, fix=f"use one of {', '.join(SUFFIXES)}")
    rows = []
    for line, row in raw:
        canonical: dict[str, Any] = {}
        for key, value in row.items():
            plain = str(key).strip().lower()
            canonical.setdefault(_ALSO.get(plain, plain), value)
        rows.append((line, canonical))
    if not rows or not any("path" in row for _, row in rows):
        raise DataError(
            "no rows" if not rows else "no column path",
            where=file,
            fix="give columns path and kind, and as needed mask, split, group, category",
        )
    return rows


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
        header = stream.readline()
        stream.seek(0)
        between = max(",;\t", key=header.count)
        reader = csv.DictReader(stream, delimiter=between)
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if key is not None}


def _read_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no JSON object")
            yield number, row


def _read_parquet(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(file).to_pylist()
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    yield from enumerate(rows, 1)


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
    ".parquet": _read_parquet,
}


def write_rows(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write rows with :data:`COLUMNS`; `mask` is a list.

    Raises:
        OutputError: The file cannot be written, or not hold a name.
    """
    with atomic(file) as temporary:
        _WRITERS[file.suffix.lower()](rows, temporary)


def _write_csv(rows: Sequence[Mapping[str, Any]], file: Path, between: str = ",") -> None:
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        # A carriage return in a name is quoted only where everything is, as long as lines end without one.
        odd = any("\r" in str(value) for row in rows for value in row.values())
        writer = csv.DictWriter(
            stream,
            COLUMNS,
            delimiter=between,
            lineterminator="\n",
            quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL,
        )
        writer.writeheader()
        writer.writerows({**row, "mask": BETWEEN.join(row["mask"])} for row in rows)


def _write_tsv(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    _write_csv(rows, file, "\t")


def _write_lines(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    file.write_text(text, encoding="utf-8", errors="surrogateescape")


def _write_parquet(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, texts = pa.string(), pa.list_(pa.string())
    schema = pa.schema([(name, texts if name == "mask" else text) for name in COLUMNS])
    try:
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    except UnicodeError as error:
        raise OutputError(
            "a file name is no text, which Parquet cannot hold", where=file, fix="write a .csv instead"
        ) from error
    pq.write_table(table, file)


_WRITERS = {
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".jsonl": _write_lines,
    ".ndjson": _write_lines,
    ".parquet": _write_parquet,
}
