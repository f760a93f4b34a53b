"""A folder of one's own from a camera to a champion, by the page's own commands."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.drawn import bad, good

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "your-folder.md").read_text(encoding="utf-8")
SMALL = """
features: {size: 64, taps: [blocks.2], detail: {taps: []}}
flow: {blocks: 2, hidden: 8}
mapping: {latent: 8}
train: {flow: {epochs: 2}, mapping: {epochs: 1}}
evaluation: {bootstrap: 50, heatmaps: 2}
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_a_camera_to_a_champion(tmp_path: Path) -> None:
    good(tmp_path / "parts/OK", 140)
    for i in range(8):
        mask = tmp_path / f"parts/NG/scratch_mask/{i:04}.png"
        bad(tmp_path / f"parts/NG/scratch/{i:04}.png", mask, seed=i)
    good(tmp_path / "new", 2, first=500)
    bad(tmp_path / "new/defective.png", seed=500)
    (tmp_path / "small.yaml").write_text(SMALL)
    section = PAGE.partition("## From a camera to a model\n")[2].partition("\n## ")[0]
    commands = section.partition("```console\n")[2].partition("```")[0]
    for word, instead in {
        "train --data parts/": "train --data parts/ --config small.yaml",
        "RUN ": "* ",
    }.items():
        assert word in commands, f"docs/your-folder.md no longer says {word}"
        commands = commands.replace(word, instead)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    script = f"set -euo pipefail\n{commands}"
    completed = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert (tmp_path / "sheet.png").is_file()
    assert "now points to version 1" in completed.stdout
    with (tmp_path / "predictions/predictions.csv").open(encoding="utf-8") as table:
        rejected = {Path(row["path"]).name: row["rejected"] for row in csv.DictReader(table)}
    assert len(rejected) == 3
    assert rejected["defective.png"] == "True"
