"""Settings over data sets: what selection sees on validation data against what the test says.

``python -m benchmarks quality --data mtd=PATH:split=group --out FOLDER``. A call with the same folder goes on
where the last one ended; a cell that is done is not computed again. What the columns mean: docs/quality.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.cells import FAILED, FINISHED, Cell, Folder, Unit, cells_of, units_of
from benchmarks.quality.grid import GRIDS, settings_of
from benchmarks.quality.pool import Estimate, run_units
from benchmarks.quality.report import TEST, write_report
from benchmarks.quality.rows import Row, Rows
from benchmarks.quality.sets import COUNTS, FEW, DataSet, parse_set, synthetic_sets
from nfbmr.data.synthesize import CLASSES
from nfbmr.errors import NfbmrError
from nfbmr.machine import usable_cores


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="python -m benchmarks quality", description=__doc__)
    add = options.add_argument
    add("--data", action="append", default=[], metavar="NAME=PATH[:KEY=VALUE]", help="a real set; repeatable")
    add("--synthetic", nargs="+", metavar="CLASS[=SIZE]", help="synthetic classes, all or none; default: all")
    add("--grid", nargs="+", default=["full"], metavar="NAME|FILE", help=f"{', '.join(GRIDS)}, YAML files")
    add("--only", nargs="+", default=[], metavar="PATTERN", help="settings with such names")
    add("--seeds", nargs="+", type=int, default=[0], metavar="SEED")
    add(
        "--limit-train",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="also train some settings on few images",
    )
    add("--jobs", type=int, default=usable_cores(), metavar="N", help="processes; default: one a core")
    add("--resamples", type=int, default=200, metavar="N", help="of the bootstrap, for intervals")
    add("--out", type=Path, default=Path("benchmarks/results/quality"), metavar="FOLDER")
    add("--retry-failed", action="store_true", help="compute failed cells again")
    add("--report", action="store_true", help="compute nothing; write the report of what is done")
    add("--list", action="store_true", help="compute nothing; name the settings")
    add("--quick", action="store_true", help="a tiny grid on a tiny set, for a look")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute what is missing, then write the report; 130 where it was stopped."""
    given = parser().parse_args(arguments)
    folder = Folder(given.out.resolve())
    try:
        if given.list:
            print("\n".join(setting.name for setting in settings_of(given.grid, given.only)))
            return 0
        done = given.report or _study(given, folder)
        print(write_report(Rows(folder.rows).read(), folder.report, folder.scores))
    except NfbmrError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0 if done else 130


def _study(given: argparse.Namespace, folder: Folder) -> bool:
    """Compute the cells that are not in the file; False where it was stopped."""
    grids, sets = (["quick"], _quick(folder)) if given.quick else (given.grid, _sets(given, folder))
    cells = cells_of(settings_of(grids, given.only), sets, given.seeds, given.limit_train)
    rows = Rows(folder.rows).read()
    skipped = {row["key"] for row in rows if row["status"] == FINISHED or not given.retry_failed}
    missing = [cell for cell in cells if cell.key not in skipped]
    units = units_of(missing)
    print(f"{len(cells)} cells, {len(cells) - len(missing)} done already; {len(units)} fits", file=sys.stderr)
    progress = Progress(cells, missing, units, rows, given.jobs)
    return run_units(units, folder, jobs=given.jobs, resamples=given.resamples, on_rows=progress)


def _sets(given: argparse.Namespace, folder: Folder) -> list[DataSet]:
    sets = [parse_set(text) for text in given.data]
    wanted = given.synthetic or ["all"]
    return [*sets, *synthetic_sets(wanted, folder.data, COUNTS)]


def _quick(folder: Folder) -> list[DataSet]:
    return synthetic_sets([f"{CLASSES[0]}=96"], folder.data, FEW)


class Progress:
    """Says what is done and about how long the rest takes."""

    def __init__(
        self,
        cells: Sequence[Cell],
        missing: Sequence[Cell],
        units: Sequence[Unit],
        rows: Sequence[Row],
        jobs: int,
    ) -> None:
        self._total, self._done = len(cells), len(cells) - len(missing)
        self._left, self._jobs, self._estimate = list(units), jobs, Estimate()
        for row in rows:
            self._estimate.learn(row)

    def __call__(self, unit: Unit, rows: Sequence[Row]) -> None:
        """A unit is done."""
        self._left.remove(unit)
        for row in rows:
            self._estimate.learn(row)
        self._done += len(unit.cells)
        seconds = self._estimate.left(self._left, self._jobs)
        left = "" if seconds is None else f"; left about {duration(seconds)}"
        if not rows:
            print(
                f"[{self._done}/{self._total}] another study computes {unit.first.setting.name}",
                file=sys.stderr,
            )
        for row in rows:
            print(f"[{self._done}/{self._total}] {_said(row)}{left}", file=sys.stderr, flush=True)


def _said(row: Row) -> str:
    limit = "" if row["limit_train"] is None else f", {row['limit_train']:.0f} images"
    name = f"{row['set']}, {row['setting']}, seed {row['seed']:.0f}{limit}"
    if row["status"] == FAILED:
        return f"{name}: failed: {' '.join(str(row['reason']).split())}"
    numbers = ", ".join(
        f"{word} {row[column]:.3f}"
        for word, column in (("objective", "objective"), ("test", TEST))
        if row.get(column) is not None
    )
    return f"{name}: {numbers} in {duration(row['unit_seconds'])}"


def duration(seconds: float) -> str:
    """Seconds for people.

    Example:
        >>> duration(42), duration(600), duration(9000)
        ('42 s', '10 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


if __name__ == "__main__":
    sys.exit(main())
