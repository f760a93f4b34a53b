"""What grows: that all of it is measured, and what the numbers are called; no number is asserted."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.growth import PARTS, QUICK
from tune.search.history import WINDOW

ROOT = Path(__file__).resolve().parents[2]


def test_all_of_it_is_measured_beside_raw_calls() -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", "--quick"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=900,
    )  # fmt: skip
    result = json.loads(completed.stdout)
    assert tuple(result) == PARTS
    assert [(row["space"], row["count"]) for row in result["trials"]] == [
        (space, count) for space in QUICK.spaces for count in QUICK.counts
    ]
    for row in result["trials"]:
        for way in ("raw", "study", "sweep"):
            assert all(map(math.isfinite, row[way].values()))
            assert set(row[way]) == {"wall_ms", "cpu_ms", "open_s"}
    runs = result["runs"]
    assert (runs["database"], runs["children"], runs["writers"]) == ("sqlite", QUICK.children, QUICK.writers)
    assert runs["verify"]["runs"] == QUICK.children + 1  # the parent among them
    for stage in ("begin", "end"):
        assert set(runs[stage]) == {"ours_ms", "raw_ms", "driver_ms", "driver_cpu_ms", "resume_s"}
    if shutil.which("chromium") and shutil.which("chromedriver") and find_spec("selenium"):
        assert set(runs["page"]) == {"first_s", "again_s", "cpu_s", "search_s"}
    else:
        assert runs["page"] is None
    assert [row["rows"] for row in result["store"]] == list(QUICK.rows)
    assert {row["lacking"] for row in result["store"]} == {10}
    # Below the size of the window nothing is left out.
    pairs = zip(result["window"][::2], result["window"][1::2], strict=True)
    for bounded, whole in pairs:
        assert (bounded["window"], whole["window"]) == (WINDOW, None)
        assert (bounded["best"], bounded["last"]) == (whole["best"], whole["last"])
    assert completed.stderr.count("|---") >= len(PARTS)
