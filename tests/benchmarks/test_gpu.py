"""The script for a GPU, tried out on the CPU with tiny sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import LIMITS, table

ROOT = Path(__file__).resolve().parents[2]


def measure(out: Path, *parts: str) -> tuple[dict[str, Any], str]:
    """Results, and what was told."""
    command = [sys.executable, "-m", "benchmarks.gpu", *parts, "--device", "cpu", "--tiny", "--out", str(out)]
    completed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    results: dict[str, Any] = json.loads(completed.stdout)
    return results, completed.stderr


def test_all_parts_together_take_less_than_eight_minutes() -> None:
    assert sum(LIMITS.values()) < 8 * 60


def test_a_part_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    results, told = measure(tmp_path, "ddp")
    assert results["ddp"]["state"] == "done"
    assert results["ddp"]["within"]
    assert results["training"] is None
    assert "| training | | not run |" in told
    again, told = measure(tmp_path, "ddp")
    assert again == results
    assert "ddp: done already" in told
    assert (tmp_path / "gpu.md").read_text(encoding="utf-8") in told + "\n"


def test_a_part_that_failed_is_named_and_the_others_are_told() -> None:
    results = dict.fromkeys(LIMITS)
    page = table({**results, "scores": {"state": "not done within 90 s"}})
    assert "| scores | | not done within 90 s |" in page
    assert "| sharing | | not run |" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_part_can_be_done(tmp_path: Path) -> None:
    results, told = measure(tmp_path)
    assert [result["state"] for result in results.values()] == ["done"] * len(LIMITS)
    assert results["ddp"]["within"]
    assert results["sharing"]["difference"] == 0.0
    assert results["sharing"]["share"] is None  # there is no card
    assert results["training"]["whole"]["how"] == "measured"
    assert len(results["extraction"]) >= 5
    assert "not" not in told.split("| part |")[1]
