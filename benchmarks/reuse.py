"""Features once, flows once: a run against the usual way, the same images, model and epochs.

Run ``python -m benchmarks.reuse`` (``--quick`` for a look). The usual way runs the backbone again in every
epoch, as published code does, here on images decoded and in memory already. Ours is ``nfbmr.train``, whole:
decoding, extraction, both stages, selection, test, pictures and report; the first run on an empty store, a
second that differs in its mapping only, a third that differs in nothing. Goal: the second and later ones cost
a tenth.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import nfbmr
from nfbmr.config import Config
from nfbmr.data.pictures import picture_of
from nfbmr.data.synthesize import CLASSES, synthesize
from nfbmr.devices import autocast
from nfbmr.features.reader import FeatureReader
from nfbmr.features.table import Tensors
from nfbmr.methods.detector import shapes_read
from nfbmr.methods.nf_bmr.model import NFBMR
from nfbmr.prepare import read_data, validation_of
from nfbmr.training.optimiser import Optimiser
from nfbmr.training.stages import Stage


def measure(*, images: int, epochs: tuple[int, int], size: int = 384) -> dict[str, Any]:
    """Seconds of each way.

    Args:
        images: Good training images; a fifth of them validates.
        epochs: Of the two stages.
        size: Pixels.
    """
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as folder:
        root = Path(folder)
        few = {"flow.hidden": 64, "flow.kernels": [3]}
        config = configuration(root, images=images, epochs=epochs, size=size, settings=few)
        usual = sum(usual_way(config).values())
        first = seconds_of(config)
        other = config.model_copy(
            update={"mapping": config.mapping.model_copy(update={"residual_blocks": 1})}
        )
        second, third = seconds_of(other), seconds_of(config)
    ours = {"first": first, "another mapping": second, "the same again": third}
    return {
        "images": images,
        "epochs": list(epochs),
        "size": size,
        "threads": torch.get_num_threads(),
        "usual_way_seconds": usual,
        "ours_seconds": ours,
        "ratio": {name: seconds / usual for name, seconds in ours.items()},
        "goal": 0.1,
    }


def configuration(
    root: Path, *, images: int, epochs: tuple[int, int], size: int, settings: Mapping[str, Any]
) -> Config:
    """Of one class of the synthetic set, everything below `root`."""
    data = synthesize(root / "data", classes=CLASSES[:1], train=images, test_good=8, test_defective=8)
    return nfbmr.configure(
        settings={
            "data.path": str(data),
            "output": str(root / "runs"),
            "store": str(root / "store"),
            "features.size": size,
            "features.compute": "bf16",
            "mapping.latent": 64,
            "train.precision": "bf16",
            "train.flow.epochs": epochs[0],
            "train.mapping.epochs": epochs[1],
            "evaluation.bootstrap": 100,
            "evaluation.heatmaps": 1,
            **settings,
        }
    )


def seconds_of(config: Config) -> float:
    """Of a whole run."""
    started = time.perf_counter()
    nfbmr.train(config)
    return time.perf_counter() - started


def usual_way(config: Config) -> dict[str, float]:
    """Seconds of each stage with the backbone in the loop, and of the validation images once."""
    _, split = read_data(config)
    validation = validation_of(config, split)
    watched = len(validation.good) + len(validation.defective)
    reader = FeatureReader(config.features, torch.device("cpu"), "bf16")
    pictures = [reader.prepared(picture_of(sample)) for sample in split.train]
    networks = NFBMR(shapes_read(config), config)
    seconds = {}
    for stage in networks.stages:
        started = time.perf_counter()
        _train(stage, networks, reader, pictures, config)
        seconds[stage.name] = time.perf_counter() - started
    started = time.perf_counter()
    for start in range(0, watched, 16):
        _features(networks, reader, pictures[: min(16, watched - start)])
    return seconds | {"validation": time.perf_counter() - started}


def _train(
    stage: Stage, networks: NFBMR, reader: FeatureReader, pictures: list[Tensors], config: Config
) -> None:
    section = config.train.stage(stage.name)
    steps = len(pictures) // section.batch
    optimiser = Optimiser(stage.module, section, steps=steps * section.epochs)
    for step in range(section.epochs * steps):
        first = step % steps * section.batch
        y = _features(networks, reader, pictures[first : first + section.batch])
        with autocast("bf16", "cpu"):
            if stage.name == "flow":
                loss = stage.loss(y)
            else:
                with torch.no_grad():
                    z, _ = networks.flow(y)
                loss = stage.loss(y, z)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step(step)


@torch.no_grad()
def _features(networks: NFBMR, reader: FeatureReader, pictures: list[Tensors]) -> torch.Tensor:
    (y_BCHW,) = networks.arranged(reader(pictures), networks.config.features).gather(range(len(pictures)))
    return y_BCHW.float()


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"| {result['images']} images, {result['size']} px, epochs {result['epochs']} | seconds | ratio |",
        "|---|---|---|",
        f"| the usual way: the backbone in every epoch | {result['usual_way_seconds']:.0f} | 1.00 |",
    ]
    lines += [
        f"| nfbmr, {name} | {seconds:.0f} | {result['ratio'][name]:.2f} |"
        for name, seconds in result["ours_seconds"].items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images")
    quick = parser.parse_args().quick
    result = measure(images=40, epochs=(4, 2)) if quick else measure(images=200, epochs=(20, 10))
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
