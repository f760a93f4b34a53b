"""What grows with the number of trials, runs and images: ours beside raw Optuna and raw MLflow calls.

Run ``python -m benchmarks growth`` (``--quick`` for a look). One after the other, in this process:

* trials: what suggesting, recording and telling costs in a study of so many trials (``growth_trials``);
* runs: sending a child under one MLflow parent, the driver's part, ``nfbmr track verify`` (``growth_runs``),
  the page of runs in Chromium (``growth_page``);
* store: a store of so many images' features (``growth_store``);
* window: whether TPE finds as much with the bounded history that a sweep shows it (``growth_window``).

``python -m benchmarks.growth --full`` goes up to 10 000 trials, 10 000 children by 16 writers, and 100 000
images; ``--only trials`` measures one of the four, and ``--database`` names an empty PostgreSQL database for
the runs, which are on SQLite without it. Ours and raw take turns, and numbers are medians: by the clock, and
of the process's CPU, since the first depends on the disk and on who else uses the machine.
Goals: no more than 1.2 times raw Optuna at any count; no more than 1.5 times at 10 000 of what it is at 200;
a study of 10 000 opens in 10 s; 100 ms a trial for the sweep's own part of MLflow, at the end as at the
beginning; verifying 10 000 runs within two minutes; the page of runs in 5 s; opening a store within a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTS = ("trials", "runs", "store", "window")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        counts: Trials in a study.
        trials: Trials timed at each count, and in each writer of runs.
        spaces: Names of the spaces that are searched.
        children: Under one MLflow parent.
        writers: Processes that send at once.
        rows: Images in a store.
        marks: Numbers of trials after which the best value is looked at.
        seeds: Of each.
    """

    counts: tuple[int, ...]
    trials: int
    spaces: tuple[str, ...]
    children: int
    writers: int
    rows: tuple[int, ...]
    marks: tuple[int, ...]
    seeds: int


BOTH = ("default", "conditional")
QUICK = Sizes((12, 24), 2, BOTH, 12, 2, (256, 512), (12, 16), 1)
USUAL = Sizes((100, 200, 500, 1000), 15, BOTH, 500, 4, (1_000, 10_000), (500, 800), 2)
FULL = Sizes((100, 200, 500, 1000, 10_000), 15, BOTH, 10_000, 16, (1_000, 100_000), (500, 1000, 2000), 5)


def measure(sizes: Sizes, parts: Sequence[str] = PARTS, database: str | None = None) -> dict[str, Any]:
    """Measure some of the parts.

    Args:
        sizes: How much.
        parts: Names in :data:`PARTS`.
        database: For the runs: an empty PostgreSQL database; else SQLite.

    Returns:
        By part, numbers as JSON holds them.
    """
    measures: dict[str, Callable[[Path], Any]] = {
        "trials": lambda root: _trials(root, sizes),
        "runs": lambda root: _runs(root, sizes, database),
        "store": lambda root: _store(root, sizes),
        "window": lambda _: _window(sizes),
    }
    result = {}
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder:
            result[part] = measures[part](Path(folder))
            print(table({part: result[part]}), file=sys.stderr, flush=True)
    return result


def _trials(root: Path, sizes: Sizes) -> list[dict[str, Any]]:
    from benchmarks.growth_trials import bookkeeping

    return [
        row for name in sizes.spaces for row in bookkeeping(root / name, sizes.counts, sizes.trials, name)
    ]


def _runs(root: Path, sizes: Sizes, database: str | None) -> dict[str, Any]:
    from benchmarks.growth_runs import under_one_parent

    return under_one_parent(root / "runs", sizes.children, sizes.writers, sizes.trials, database)


def _store(root: Path, sizes: Sizes) -> list[dict[str, Any]]:
    from benchmarks.growth_store import store_costs

    return store_costs(root, sizes.rows)


def _window(sizes: Sizes) -> list[dict[str, Any]]:
    from benchmarks.growth_trials import quiet
    from benchmarks.growth_window import quality

    with quiet():
        return list(quality(sizes.marks, range(sizes.seeds)))


def table(result: Mapping[str, Any]) -> str:
    """The result for people."""
    drawn: dict[str, Callable[[Any], list[str]]] = {
        "trials": _trials_table,
        "runs": _runs_table,
        "store": _store_table,
        "window": _window_table,
    }
    return "\n\n".join("\n".join(drawn[part](result[part])) for part in result)


def _trials_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    ways = ("raw", "study", "sweep")
    lines = [
        "| space | trials | raw Optuna, ms (CPU) | study, ms (CPU) | with all records, ms (CPU) "
        "| study / raw | opening, s: raw, study |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row[way]['wall_ms']:.1f} ({row[way]['cpu_ms']:.1f})" for way in ways]
        lines.append(
            f"| {row['space']} | {row['count']} | {' | '.join(cells)} | {row['ratio']:.2f} "
            f"| {row['raw']['open_s']:.2f}, {row['study']['open_s']:.2f} |"
        )
    return lines


def _runs_table(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"| {found['writers']} writers on {found['database']} | sending a child, ms | by raw calls, ms "
        "| the driver's part, ms (CPU) | opening the parent, s |",
        "|---|---|---|---|---|",
    ]
    for stage, name in (("begin", "no children"), ("end", f"{found['children']} children")):
        row = found[stage]
        lines.append(
            f"| {name} | {row['ours_ms']:.0f} | {row['raw_ms']:.0f} "
            f"| {row['driver_ms']:.1f} ({row['driver_cpu_ms']:.1f}) | {row['resume_s']:.2f} |"
        )
    checked, page = found["verify"], found["page"]
    verified = (
        f"{checked['seconds']:.1f} s ({checked['cpu_s']:.1f} s CPU), {checked['peak_mb']:.0f} MB at most"
    )
    opened = "there is no Chromium"
    if page is not None:
        opened = f"{page['first_s']:.1f} s the first time, {page['again_s']:.1f} s later"
        opened += f" ({page['cpu_s']:.1f} s CPU of server and browser)"
        opened += f", the server's search {page['search_s']:.2f} s"
    return [
        *lines,
        "",
        f"`track verify` of {checked['runs']} runs: {verified}",
        "",
        f"the page of runs, the best first: {opened}",
    ]


def _store_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"| store, ms (CPU) | {' | '.join(str(row['rows']) + ' images' for row in rows)} |",
        "|---" * (1 + len(rows)) + "|",
    ]
    for name in rows[0]["seconds"]:
        cells = [
            f"{1e3 * s['wall']:.1f} ({1e3 * s['cpu']:.1f})" for s in (row["seconds"][name] for row in rows)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _window_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    from benchmarks import growth_window

    return growth_window.table(rows)


def main() -> None:
    """Measure, print tables to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a look: a few of everything")
    size.add_argument("--full", action="store_true", help="up to 10 000 trials, runs, and 100 000 images")
    parser.add_argument("--only", action="append", choices=PARTS, help="one of the parts; repeatable")
    parser.add_argument(
        "--database", help="postgresql+psycopg://USER@HOST:PORT/DATABASE, empty, for the runs"
    )
    given = parser.parse_args()
    sizes = QUICK if given.quick else FULL if given.full else USUAL
    print(json.dumps(measure(sizes, given.only or PARTS, given.database), indent=2))


if __name__ == "__main__":
    main()
