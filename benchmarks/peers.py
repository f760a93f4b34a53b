"""Beside anomalib 2.7.0, on the same images, weights, taps and sizes: processor seconds, one thread.

Run ``python -m benchmarks peers`` (``--quick`` for a look). Anomalib gets an environment of its own in a
temporary folder, built here by pip; torch, torchvision and timm are the ones of this project, for both. Each
run is a process of its own, from a folder of images to a tested model, in turns: ours, ours again with
another setting and features stored, anomalib's. One image, file to score, and the backbone alone are measured
in warm processes. What each tests beside scores is its own default: ours pixels, intervals and pictures too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from sysconfig import get_path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from safetensors.torch import save_file

from benchmarks.peer_anomalib import median_ms
from nfbmr.config import FeatureConfig
from nfbmr.data.synthesize import CLASSES, synthesize
from nfbmr.environment import environment
from nfbmr.features.backbone import load_backbone
from nfbmr.features.engine import Engine
from nfbmr.features.models import new_model
from nfbmr.features.weights import resolve_weights
from nfbmr.prediction import Predictor

BACKBONE, SIZE = "tf_efficientnet_lite0", 256
TAPS = {"padim": ("blocks.1", "blocks.2", "blocks.4"), "patchcore": ("blocks.2", "blocks.4")}
SETTINGS: dict[str, dict[str, Any]] = {
    "padim": {"padim.channels": 100},
    "patchcore": {"patchcore.coreset": 0.01},
}
ANOTHER: dict[str, dict[str, Any]] = {
    "padim": {"padim.epsilon": 0.02},
    "patchcore": {"patchcore.neighbours": 5},
}
PROGRAM = Path(__file__).with_name("peer_anomalib.py")
PACKAGES = (
    "anomalib==2.7.0",
    "aiohttp==3.14.5",
    "antlr4-python3-runtime==4.9.3",
    "docstring-parser==0.18.0",
    "einops==0.8.2",
    "imagecodecs==2026.3.6",
    "imageio==2.38.1",
    "importlib-resources==7.1.0",
    "jsonargparse==4.46.0",
    "kornia==0.9.0",
    "kornia-rs==0.2.0",
    "lazy-loader==0.6",
    "lightning==2.6.6",
    "lightning-utilities==0.15.3",
    "markdown-it-py==4.3.0",
    "mdurl==0.1.2",
    "omegaconf==2.4.0",
    "opencv-python-headless==5.0.0.93",
    "pandas==3.1.1",
    "platformdirs==4.14.9",
    "pygments==2.21.0",
    "python-dateutil==4.0.0",
    "pytorch-lightning==2.6.6",
    "pytz==2026.6",
    "rich==15.0.0",
    "rich-argparse==1.8.0",
    "scikit-image==0.26.0",
    "six==1.17.0",
    "tifffile==2026.3.3",
    "torchmetrics==1.9.0",
    "typeshed-client==2.15.0",
    "typing-extensions==4.16.0",
    "tzdata==2026.6",
)
"""What anomalib needs beside what this project has."""


def measure(
    *, train: int, test: int, repeats: int, scores: int, environment_at: Path | None = None
) -> dict[str, Any]:
    """Medians of all parts.

    Args:
        train: Good training images.
        test: Test images, half of them defective.
        repeats: Runs of each kind, in turns.
        scores: Images scored, and passes of the backbone, of each kind.
        environment_at: An environment of anomalib's that is kept; by default one is made and removed.
    """
    with tempfile.TemporaryDirectory(prefix="nfbmr-peers-") as name:
        root = Path(name)
        python = environment_of_anomalib(environment_at or root / "anomalib")
        data = synthesize(
            root / "data", classes=CLASSES[:1], train=train, test_good=test // 2, test_defective=test // 2,
            size=SIZE,
        )  # fmt: skip
        weights = root / "weights.safetensors"
        packaged = resolve_weights(BACKBONE, "packaged", model=new_model(BACKBONE)).state_dict
        save_file({name: tensor.contiguous() for name, tensor in packaged.items()}, weights)
        methods = {
            method: _method(method, python, data, weights, root / method, repeats, scores) for method in TAPS
        }
        backbones = _backbones(weights, scores)
    return {
        "machine": environment()["machine"]["cpu"],
        "images": [train, test],
        "repeats": repeats,
        "methods": methods,
        "backbone_ms": {**backbones, "anomalib": methods["padim"].pop("their_backbone_ms")},
    }


def environment_of_anomalib(folder: Path) -> Path:
    """Its Python; made where there is none, with this project's packages behind its own."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, *PACKAGES], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    behind = folder / "lib" / version / "site-packages" / "behind.pth"
    behind.write_text(f"{get_path('purelib')}\n", encoding="utf-8")
    return python


def _method(
    method: str, python: Path, data: Path, weights: Path, root: Path, repeats: int, scores: int
) -> dict[str, Any]:
    first, again, theirs, answers = [], [], [], []
    for number in range(repeats):
        folder = root / str(number)
        first.append(cpu_seconds(_ours(method, data, weights, folder, {}, "first")))
        again.append(cpu_seconds(_ours(method, data, weights, folder, ANOTHER[method], "again")))
        answer = folder / "anomalib.json"
        command = [python, PROGRAM, method, data, weights, ",".join(TAPS[method]), folder / "a", answer]
        theirs.append(cpu_seconds([*map(str, command), str(scores)], alone=True))
        answers.append(json.loads(answer.read_text(encoding="utf-8")))
    (run,) = (root / "0" / "first").glob("*/")
    images = sorted(data.rglob("test/*/*.png"))[:scores]
    predictor = Predictor.load(run, "cpu")
    row = {
        "first_seconds": statistics.median(first),
        "again_seconds": statistics.median(again),
        "their_seconds": statistics.median(theirs),
        "image_ms": median_ms([partial(_scored, predictor, image) for image in images]),
        "their_image_ms": statistics.median(answer["image_ms"] for answer in answers),
    }
    if method == "padim":
        row["their_backbone_ms"] = statistics.median(answer["backbone_ms"] for answer in answers)
    return row


def _ours(
    method: str, data: Path, weights: Path, folder: Path, more: Mapping[str, Any], name: str
) -> list[str]:
    settings = {
        "features.backbone": BACKBONE,
        "features.weights": weights,
        "features.taps": json.dumps(TAPS[method]),
        "features.size": SIZE,
        "features.joined": "finest",  # as anomalib does it
        "features.compute": "fp32",
        "tracking.kind": "none",
        "store": folder / "store",
        "output": folder / name,
        **SETTINGS[method],
        **more,
    }
    command = [sys.executable, "-m", "nfbmr", "train", "--method", method, "--data", str(data)]
    return command + [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def _scored(predictor: Predictor, image: Path) -> object:
    return list(predictor.score([image]))


def cpu_seconds(command: Sequence[str], alone: bool = False) -> float:
    """Of a process and all that it waits for, start to end.

    Raises:
        RuntimeError: It fails.
    """
    variables = _variables(None if alone else Path(__file__).parents[1])
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=variables)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(said.read().decode(errors="replace")[-3000:])
    return usage.ru_utime + usage.ru_stime


def _variables(checkout: Path | None) -> dict[str, str]:
    """Variables of a process that finds this checkout, or none."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return variables if checkout is None else {**variables, "PYTHONPATH": str(checkout)}


def _backbones(weights: Path, passes: int) -> dict[str, float]:
    """Milliseconds of processor time that one picture takes, in turns."""
    config = FeatureConfig(backbone=BACKBONE, weights=str(weights), taps=TAPS["padim"], size=SIZE)
    backbone, x = load_backbone(config), torch.randn(1, 3, SIZE, SIZE)
    engines = {
        "torch": Engine(backbone, compute="fp32", size=SIZE),
        "openvino": Engine(backbone, compute="fp32", size=SIZE, library="openvino"),
    }
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(passes):
        for name, engine in engines.items():
            taken[name].append(median_ms([partial(engine, x)] * 2))
    return {name: statistics.median(each) for name, each in taken.items()}


def table(result: Mapping[str, Any]) -> str:
    """The result for people."""
    train, test = result["images"]
    lines = [
        f"| {train} + {test} images of {SIZE} px, {result['machine']} | ours | anomalib | ratio |",
        "|---|---|---|---|",
    ]

    def line(what: str, ours: float, theirs: float, unit: str) -> None:
        lines.append(f"| {what}, {unit} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |")

    for method, row in result["methods"].items():
        line(f"{method}, folder to tested model, first run", row["first_seconds"], row["their_seconds"], "s")
        line(f"{method}, another setting, features stored", row["again_seconds"], row["their_seconds"], "s")
        line(f"{method}, one image, file to score, warm", row["image_ms"], row["their_image_ms"], "ms")
    backbones = result["backbone_ms"]
    for name in ("torch", "openvino"):
        line(f"backbone alone, {name}", backbones[name], backbones["anomalib"], "ms")
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images, one run of each kind")
    parser.add_argument("--environment", type=Path, help="folder of anomalib's environment, made and kept")
    given = parser.parse_args()
    result = (
        measure(train=24, test=16, repeats=1, scores=8, environment_at=given.environment)
        if given.quick
        else measure(train=120, test=200, repeats=3, scores=40, environment_at=given.environment)
    )
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
