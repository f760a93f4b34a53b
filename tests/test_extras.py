"""Where an optional package is missing, each command that needs it says which extra brings it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfbmr.errors import EXTRAS
from nfbmr.resolve import dump_yaml

ROOT = Path(__file__).resolve().parents[1]
EXTRAS_OF_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
WITHOUT = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # as Python answers where it is not installed
from nfbmr.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def recipe(tiny: Callable[..., Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(tiny(features__weights="random", tracking__kind="auto")), encoding="utf-8")
    return path


def run_without(packages: str, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, packages, *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


SPACE = "flow.hidden: {choice: [4, 8]}\n"


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("ray", "train --config {recipe} --workers 2", "ray"),
        ("ray", "sweep --config {recipe} --space {space} --trials 1", "ray"),
        ("ray", "submit --address http://127.0.0.1:1 -- train --config {recipe}", "ray"),
        ("ray", "jobs list --address http://127.0.0.1:1", "ray"),
        ("ray", "cluster up --nodes 1", "ray"),
        ("ray", "serve runs/one", "ray"),
        ("fastapi", "serve runs/one --local", "serve"),
        ("optuna", "sweep --config {recipe} --space {space} --trials 1 --local", "sweep"),
        ("mlflow", "train --config {recipe} --set tracking.kind=mlflow", "mlflow"),
        ("mlflow", "models list", "mlflow"),
        ("mlflow", "track sync runs", "mlflow"),
        ("mlflow", "reconcile sweep-1", "mlflow"),
        ("mlflow", "server", "mlflow"),
        ("boto3", "server --artifacts s3://bucket/runs", "server"),
        ("av", "predict runs/one line.mp4", "video"),
        ("psycopg", "server --backend postgresql://localhost/mlflow", "server"),
    ],
)
def test_what_is_missing_and_what_to_install(
    recipe: Path, tmp_path: Path, package: str, words: str, extra: str
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE, encoding="utf-8")
    (tmp_path / "line.mp4").touch()
    completed = run_without(package, words.format(recipe=recipe, space=space).split(), tmp_path)
    assert completed.returncode == 2, completed.stderr
    assert f'pip install "nfbmr[{extra}]"' in completed.stderr
    assert "Traceback" not in completed.stderr


def test_the_core_trains_without_any_of_them(recipe: Path, tmp_path: Path) -> None:
    completed = run_without(",".join(EXTRAS), ["train", "--config", str(recipe)], tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert list((tmp_path / "runs").glob("*/summary.json"))


def test_every_extra_that_is_named_exists_and_all_has_each_of_them() -> None:
    assert set(EXTRAS.values()) <= set(EXTRAS_OF_PROJECT)
    (everything,) = EXTRAS_OF_PROJECT["all"]
    named = re.fullmatch(r"nfbmr\[(.+)\]", everything)
    assert named is not None
    assert set(named[1].split(",")) == set(EXTRAS_OF_PROJECT) - {"all", "dev"}
