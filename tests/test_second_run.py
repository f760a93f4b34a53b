"""A run again with everything stored: what it does not load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfbmr.resolve import dump_yaml

_HEAVY = (
    "timm",
    "torchvision",
    "torch._dynamo",
    "FrEIA",
    "scipy.stats",
    "matplotlib",
    "sklearn",
)

_RUN = """
import json, sys
from pathlib import Path
from nfbmr import api
from nfbmr.cli.train import tracker_of
from nfbmr.resolve import load_config

config = load_config(Path(sys.argv[1]))
summary = api.train(config, tracking=tracker_of)
loaded = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps({"loaded": loaded, "metrics": summary["metrics"], "pictures": summary["pictures"]}))
"""


def _train(config: Path) -> dict[str, Any]:
    completed = subprocess.run(
        [sys.executable, "-c", _RUN, str(config), json.dumps(_HEAVY)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    result: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return result


# MLflow loads some of it itself.
_LOADED: dict[str, set[str]] = {"folder": set(), "mlflow": {"scipy.stats", "matplotlib", "sklearn"}}


@pytest.mark.parametrize(("method", "trackers"), [("nf-bmr", ["folder"]), ("padim", ["mlflow", "folder"])])
def test_a_run_whose_features_are_stored_loads_nothing_that_it_does_not_run(
    method: str,
    trackers: list[str],
    tmp_path: Path,
    small: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    configs = {tracker: tmp_path / f"{tracker}.yaml" for tracker in trackers}
    for tracker, config in configs.items():
        settings = {"evaluation__heatmaps": 2, "tracking__kind": tracker}
        if tracker == "mlflow":
            settings["tracking__uri"] = f"sqlite:///{tmp_path / 'mlflow.db'}"
        config.write_text(dump_yaml(small(tmp_path, method=method, **settings)), encoding="utf-8")
    first = _train(configs[trackers[0]])
    assert "timm" in first["loaded"]
    drawn = _pictures(first)
    assert [name for name in drawn if name.startswith("heatmaps-")]
    for tracker, config in configs.items():
        again = _train(config)
        assert set(again["loaded"]) <= _LOADED[tracker]
        assert again["metrics"] == first["metrics"]
        assert _pictures(again) == drawn


def _pictures(run: dict[str, Any]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(run["pictures"]).glob("*.png")}


def test_a_method_that_was_shown_is_shown_again_without_building_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    show = (
        "import sys; from nfbmr.cli.methods import methods; "
        "methods(['padim', '--json'], standalone_mode=False); print('torch' in sys.modules)"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first.removesuffix("True\n") == second.removesuffix("False\n")
    assert json.loads(second.removesuffix("False\n"))["name"] == "padim"
