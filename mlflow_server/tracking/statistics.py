"""What SQLite knows of its tables, by which it chooses how to answer; nobody tells it but whoever asks it to.

Without it SQLite takes every table for a small one. A table of 10 000 runs sorted by a metric, as MLflow asks
for its page, then takes ten seconds of processor time, with it a tenth of one. PostgreSQL sees to it itself.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

SAMPLE = 400
"""Rows of an index that are looked at: enough to tell many from few, in a hundredth of a second."""

GROWN = 2
"""Statistics are made anew when there are so many times as many runs."""

SMALL = 50
"""Runs up to which any way of answering will do."""

EVERY = 60.0
"""Seconds between two looks of a server at its database."""


def refresh_statistics(database: Path) -> bool:
    """Make statistics where there are none, or where there are many more runs by now.

    Args:
        database: An SQLite file with MLflow's tables.

    Returns:
        Whether they were made. A database that is in use, or that cannot be written, is left as it is.
    """
    try:
        # Only one that is there, and not for long: whoever is waited for here is being waited for by others.
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=1.0)) as connection:
            (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
            if runs < max(SMALL, GROWN * _known(connection)):
                return False
            connection.execute(f"PRAGMA analysis_limit={SAMPLE}")
            connection.execute("BEGIN IMMEDIATE")
            # A connection reads them with the schema, so those that are open, as a server's, would keep the
            # first that they have read: a table that is made anew is a new schema.
            connection.execute("DROP TABLE IF EXISTS sqlite_stat1")
            connection.execute("ANALYZE")
            # Of a sample the number of rows is a guess, and this one is gone by above.
            connection.execute("PRAGMA analysis_limit=0")
            connection.execute("ANALYZE runs")
            connection.commit()
            return True
    except (sqlite3.Error, ValueError) as error:
        log.debug("no statistics of %s: %s", database, error)
        return False


def _known(connection: sqlite3.Connection) -> int:
    """Runs that there were when statistics were last made; 0 where there are none."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone():
        return 0
    row = connection.execute("SELECT stat FROM sqlite_stat1 WHERE tbl = 'runs'").fetchone()
    return int(row[0].split()[0]) if row else 0


@contextmanager
def kept_fresh(database: Path | None, every: float = EVERY) -> Iterator[None]:
    """Look after a server's database while the block runs; None is one that looks after itself."""
    if database is None:
        yield
        return
    stopped = threading.Event()

    def look() -> None:
        while True:
            refresh_statistics(database)
            if stopped.wait(every):
                return

    thread = threading.Thread(target=look, name="statistics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
