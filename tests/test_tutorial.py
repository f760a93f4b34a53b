"""The tutorial is run as it stands, on fewer and smaller images."""

from __future__ import annotations

import csv
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nfbmr.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
PART_ONE, PART_TWO = PAGE.split("## Part two")

SMALL = """
features: {size: 64, taps: [blocks.2]}
flow: {blocks: 2, hidden: 8}
mapping: {latent: 8}
train: {flow: {epochs: 2}, mapping: {epochs: 1}}
evaluation: {bootstrap: 50, heatmaps: 2}
"""


def console(text: str) -> str:
    """The commands of a part, a line each."""
    blocks = text.split("```console\n")[1:]
    return "".join(block.split("```")[0] for block in blocks)


def small(commands: str, train: int, **others: str) -> str:
    """The same commands on fewer and smaller images; every word to be replaced has to be there."""
    counts = f"--train {train} --test-good 6 --test-defective 8 --size 64"
    words = {
        "--train 120 --test-good 50 --test-defective 70": counts,
        "--config demo": "--config demo --config small.yaml",
        **others,
    }
    for word, instead in words.items():
        assert word in commands, f"docs/tutorial.md no longer says {word}"
        commands = commands.replace(word, instead)
    return commands


def expanded(word: str) -> list[str]:
    """A word as a shell hands it over."""
    return [str(path) for path in Path().glob(word)] if "*" in word else [word]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def test_part_one_ends_with_a_table_heat_maps_and_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL + "tracking: {kind: folder}\n")
    for line in small(console(PART_ONE), train=14).splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "nfbmr"
        assert main([path for word in words for path in expanded(word)]) == 0, line
    assert Path("sheet.png").is_file()
    [run] = Path("runs/first").iterdir()
    assert (run / "report.html").is_file()
    with Path("out/predictions.csv").open(encoding="utf-8") as table:
        assert len(list(csv.DictReader(table))) == 14
    assert any(Path("out/heatmaps").rglob("*.png"))
    assert any(Path("out/masks").rglob("*.png"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_tutorial_ends_with_a_part_judged_over_http(tmp_path: Path) -> None:
    tracking, serving = free_port(), free_port()
    commands = small(
        console(PAGE),
        train=120,  # of which 24 validate: with 16 a single reject is too much for the gate on false rejects
        **{
            "nfbmr server &": f"nfbmr server --port {tracking} &",
            "http://127.0.0.1:5000": f"http://127.0.0.1:{tracking}",
            "# refused": "|| test $? = 2",
            "--trials 8": "--trials 2 --local",
            "nfbmr serve woven@champion &": f"nfbmr serve woven@champion --port {serving} &",
            "http://127.0.0.1:8000": f"http://127.0.0.1:{serving}",
        },
    )
    (tmp_path / "small.yaml").write_text(SMALL)
    # What runs in the background ends with the script, also where a command before its last line fails.
    script = f"set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n{commands}"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    completed = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "champion stays at version 1" in completed.stdout
    assert '"rejected"' in completed.stdout.splitlines()[-1]
