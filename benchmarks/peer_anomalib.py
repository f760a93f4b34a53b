"""A run of anomalib's, for :mod:`benchmarks.peers`: folder to tested model, then one image and the backbone.

Runs in an environment of anomalib's own, and imports nothing of this project.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

SIZE = 256


def median_ms(calls: Sequence[Callable[[], object]]) -> float:
    """Median milliseconds of processor time of calls; the first is made once before, to warm up."""
    calls[0]()
    taken = []
    for call in calls:
        start = time.process_time()
        call()
        taken.append(1e3 * (time.process_time() - start))
    return statistics.median(taken)


def model_of(method: str, layers: list[str], weights: Path) -> Any:
    """A model with the given backbone's weights; nothing is fetched."""
    from anomalib.models import Padim, Patchcore

    common: dict[str, Any] = {
        "backbone": "tf_efficientnet_lite0",
        "layers": layers,
        "pre_trained": False,
        "visualizer": False,
    }
    model = (
        Padim(n_features=100, **common)
        if method == "padim"
        else Patchcore(coreset_sampling_ratio=0.01, **common)
    )
    network = model.model.feature_extractor.feature_extractor
    found = network.load_state_dict(load_file(weights), strict=False)
    if found.missing_keys:
        raise RuntimeError(f"weights that are missing: {found.missing_keys[:3]}")
    return model


def main() -> None:
    """METHOD DATA WEIGHTS LAYERS FOLDER ANSWER COUNT: train, test, measure, write what was found."""
    method, data, weights, layers, folder, answer, count = sys.argv[1:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from anomalib.data import Folder
    from anomalib.data.utils import read_image
    from anomalib.engine import Engine

    (root,) = (path.parent for path in Path(data).glob("*/train"))
    defects = sorted(path.name for path in (root / "test").iterdir() if path.name != "good")
    images = Folder(
        name="peers",
        root=root,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{defect}" for defect in defects],
        train_batch_size=16,
        eval_batch_size=16,
        num_workers=0,
    )
    model = model_of(method, layers.split(","), Path(weights))
    engine = Engine(default_root_dir=folder, accelerator="cpu", devices=1, logger=False)
    engine.fit(model, datamodule=images)
    engine.test(model, datamodule=images)
    model.eval()
    files = sorted((root / "test").rglob("*.png"))[: int(count)]

    def score(file: Path) -> object:
        with torch.inference_mode():
            return model(read_image(file, as_tensor=True)[None])

    x = torch.randn(1, 3, SIZE, SIZE)
    extractor = model.model.feature_extractor
    with torch.inference_mode():
        found = {
            "image_ms": median_ms([partial(score, file) for file in files]),
            "backbone_ms": median_ms([lambda: extractor(x)] * int(count)),
        }
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
