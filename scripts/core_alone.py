"""Check that nfbmr imports and trains where ray, optuna and mlflow are not installed.

Run by `make core`, in an environment that has the core's dependencies and nothing else.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import pkgutil
import sys
import tempfile
from typing import Any

TINY = {
    "features.size": 64,
    "features.weights": "random",
    "flow.hidden": 8,
    "mapping.latent": 8,
    "train.flow.epochs": 1,
    "train.mapping.epochs": 1,
    "evaluation.bootstrap": 20,
    "evaluation.heatmaps": 1,
}


def import_all() -> int:
    """Import every module of the core; return how many there are."""
    package = importlib.import_module("nfbmr")
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "nfbmr.")]
    for name in names:
        importlib.import_module(name)
    return len(names)


def nfbmr(*arguments: str) -> Any:
    """Run a command; return what it printed."""
    from nfbmr.cli.main import main

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main([*arguments, "--json", "--quiet"])
    if code != 0:
        sys.exit(f"nfbmr {arguments[0]} ended with {code}: {output.getvalue()}")
    return json.loads(output.getvalue())


def train() -> float:
    """Train the demonstration, made tiny; return its image AUROC."""
    numbers = ["--train=12", "--test-good=4", "--test-defective=6", "--size=64"]
    nfbmr("data", "synthesize", "made", "--class=woven", *numbers)
    settings = [f"--set={key}={value}" for key, value in TINY.items()]
    summary = nfbmr("train", "--config=demo", "--data=made", *settings)
    return float(summary["metrics"]["test"]["image_auroc"]["value"])


if __name__ == "__main__":
    present = [name for name in ("ray", "optuna", "mlflow") if importlib.util.find_spec(name)]
    if present:
        sys.exit(f"this environment has {', '.join(present)}: the check would prove nothing")
    modules = import_all()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        auroc = train()
    sys.stderr.write(f"core alone: {modules} modules imported, one run trained (image AUROC {auroc:.3f})\n")
