"""What a trained method costs to use: milliseconds an image."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from nfbmr.devices import device_of
from nfbmr.features.reader import FeatureReader
from nfbmr.features.table import ViewedFeatures
from nfbmr.methods.detector import Detector
from nfbmr.methods.forward import maps_of


def latency_ms(model: Path, *, device: str = "auto", repeats: int = 9) -> float:
    """Milliseconds from a prepared picture to its score components, one picture at a time.

    The backbones up to their last taps and the method's networks, in the arithmetic the model was made with;
    reading and resizing the file are not in it. The median of several passes after a warm-up, so that one
    disturbed pass says nothing; a busy machine is slower all the same.

    Args:
        model: Folder of the model.
        device: Where to measure; ``auto`` takes the GPU where there is one.
        repeats: Passes that are measured.

    Raises:
        CheckpointError: The model is damaged.
        BackboneError: Its backbone cannot be loaded.
    """
    place = device_of(device)
    detector = Detector.load(model, place)
    features = detector.config.features
    # As extraction runs it; a model's configuration says in which arithmetic.
    reader = FeatureReader(features, place, "fp32")
    pictures = reader.noise(1)

    def once() -> None:
        seen = ViewedFeatures.of(
            detector.networks.arranged(reader(pictures), features), features.test_rotations
        )
        maps_of(detector, seen)

    return 1000 * _median_seconds(once, repeats)


def _median_seconds(once: Callable[[], None], repeats: int) -> float:
    for _ in range(2):
        once()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        once()  # ends with its result on the CPU, so nothing is left under way on a GPU
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
