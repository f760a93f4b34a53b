"""The results of a study: one Parquet file, a row a cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nfbmr.errors import OutputError
from nfbmr.locks import file_lock
from nfbmr.paths import atomic

Row = Mapping[str, Any]


class Rows:
    """The file, written whole each time: small, and never half a table.

    Several processes may append at once: each holds the lock beside it while it reads, adds and writes.

    Args:
        path: ``quality.parquet`` of a study.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """All rows, oldest first; none where there is no file yet.

        Raises:
            OutputError: The file is damaged.
        """
        import pyarrow.parquet as pq

        if not self.path.exists():
            return []
        try:
            rows: list[dict[str, Any]] = pq.read_table(self.path).to_pylist()
        except (OSError, ValueError) as error:
            raise OutputError(
                f"the rows cannot be read ({error})",
                where=self.path,
                fix="move the file away; cells are done anew",
            ) from error
        return rows

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; one of a key that is there already replaces it.

        Raises:
            OutputError: The disk is full or the folder cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._locked():
            by_key = {row["key"]: row for row in [*self.read(), *map(_plain, rows)]}
            names = list(dict.fromkeys(name for row in by_key.values() for name in row))
            table = pa.table({name: [row.get(name) for row in by_key.values()] for name in names})
            with atomic(self.path) as temporary:
                pq.write_table(table, temporary)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with file_lock(self.path.with_suffix(".lock")):
            yield


def _plain(row: Row) -> dict[str, Any]:
    """Numbers as floats, so that a column has one type; what is not finite is nothing."""
    plain: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            plain[name] = float(value) if math.isfinite(value) else None
        else:
            plain[name] = value
    return plain
