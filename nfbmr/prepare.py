"""From a configuration to stored features of what may be learned from."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from nfbmr.addresses import folder_here
from nfbmr.config import Config, FeatureConfig
from nfbmr.data.defects import synthetic_defects
from nfbmr.data.direction import ONE_WAY, coherence
from nfbmr.data.notices import notices
from nfbmr.data.pictures import Picture, ViewOp, picture_of
from nfbmr.data.proportions import detail_size, sizes_of, typical_aspect, typical_depth
from nfbmr.data.samples import Dataset, Sample, Split
from nfbmr.devices import device_of
from nfbmr.errors import DataError, ImageError
from nfbmr.features.extraction import Extraction, extract, unusable
from nfbmr.features.store import FeatureStore, open_store
from nfbmr.features.table import Features, ViewedFeatures
from nfbmr.methods.fitting import TrainingData
from nfbmr.methods.registry import networks_of
from nfbmr.results import known_sample, synthetic_sample
from nfbmr.stopping import StopRequest
from nfbmr.workers import SINGLE_PROCESS, ProcessGroup

log = logging.getLogger(__name__)


def read_data(config: Config) -> tuple[Dataset, Split]:
    """The data set and its split; without a path, the synthetic demonstration set is made first."""
    from nfbmr.data.layouts import load_dataset
    from nfbmr.data.splits import make_split

    path, category = config.data.path, config.data.category
    if path is None:
        from nfbmr.data.synthesize import CLASSES, synthesize

        category = category or CLASSES[0]
        path = folder_here(config.store).parent / "synthetic" / category
        log.info("no --data given: the synthetic demonstration set, %s", path)
        # Enough held-out good images (a fifth of 120) for a threshold at 5 %.
        synthesize(path, classes=(category,), train=120, test_good=50, test_defective=70)
    dataset = load_dataset(path, layout=config.data.layout, category=category, group_by=config.data.group_by)
    for notice in notices(dataset):
        _warn_once(f"{dataset.name}: {notice}")
    return dataset, make_split(dataset, config.data)


@cache
def _warn_once(notice: str) -> None:
    """Warn of what a process may meet many times: every trial reads the data."""
    log.warning("%s", notice)


def training_data(
    config: Config,
    split: Split,
    store: FeatureStore,
    stop: StopRequest,
    workers: ProcessGroup = SINGLE_PROCESS,
) -> tuple[TrainingData, FeatureConfig, str]:
    """Extract what may be learned from: training images, their views, validation images, their defects.

    Every worker extracts its share, and gets all.

    Returns:
        The stored features; how they were made, with nothing left to be measured, so that prediction does the
        same; the digest of the backbone's weights.

    Raises:
        ImageError: Images cannot be read; all of them are named, and the features of the others are kept.
    """
    config, extraction, seen, validation = _extracted(config, split, store, stop, workers)
    features, turns = arranged(config, extraction), config.features.test_rotations
    first, second = len(seen.train), len(seen.train) + len(seen.good)
    return (
        TrainingData(
            train=ViewedFeatures.of(features.part(range(first)), len(seen.train) // len(split.train)),
            good=ViewedFeatures.of(features.part(range(first, second)), turns),
            defective=ViewedFeatures.of(features.part(range(second, len(seen.all))), turns),
            good_samples=validation.good_samples,
            defective_samples=validation.defective_samples,
        ),
        extraction.made(config.features),
        extraction.weights_digest,
    )


class _Seen(NamedTuple):
    """Pictures that features are extracted of, views and turns included."""

    train: list[Picture]
    good: list[Picture]
    defective: list[Picture]

    @property
    def all(self) -> list[Picture]:
        """In the order of the features."""
        return [*self.train, *self.good, *self.defective]


def _extracted(
    config: Config, split: Split, store: FeatureStore, stop: StopRequest, workers: ProcessGroup
) -> tuple[Config, Extraction, _Seen, Validation]:
    """Features as they are stored, for whichever method reads them, and what they are of."""
    device = str(device_of(config.train.device))
    config = workers.broadcast(lambda: with_sizes(config, split))
    _refuse_unreadable(config, split, store, device, stop, workers)
    train = [view for sample in split.train for view in training_views(picture_of(sample), config.features)]
    validation = validation_of(config, split)
    good, defective = (
        [view for picture in pictures for view in picture.turned(config.features.test_rotations)]
        for pictures in (validation.good, validation.defective)
    )
    seen = _Seen(train, good, defective)
    extraction = extract(
        seen.all, config.features, store, device=device, stop=lambda: stop.requested, workers=workers
    )
    log.info("features: %d computed, %d from the store", extraction.computed, extraction.reused)
    return config, extraction, seen, validation


def with_sizes(config: Config, split: Split) -> Config:
    """The configuration with `aspect`, `depth`, `detail.size` and `detail.symmetry` said where they are auto.

    The training images alone are asked. Images that are also seen turned are seen in squares, since a turned
    rectangle is another rectangle. The detail look is averaged over turns where they are squares without a
    direction, and over flips where not.
    """
    features = config.features
    if features.depth == "auto":
        depth = typical_depth([sample.path for sample in split.train])
        features = features.model_copy(update={"depth": depth})
        config = config.model_copy(update={"features": features})
    detail = features.detail
    if features.aspect != "auto" and ("auto" not in (detail.size, detail.symmetry) or not detail.taps):
        return config
    sizes = sizes_of(sample.path for sample in split.train)
    if features.aspect == "auto":
        aspect = 1.0 if features.turns else typical_aspect(sizes)
        features = features.model_copy(update={"aspect": aspect})
        if aspect != 1.0:
            height, width = features.shape
            log.info("images are seen at %d x %d px (width x height)", width, height)
    if detail.size == "auto" and detail.taps:
        size = detail_size(sizes, square=features.aspect == 1.0)
        detail = detail.model_copy(update={"size": size})
        height, width = features.model_copy(update={"size": size, "scales": (1.0,)}).shape
        log.info("their detail is looked at on %d x %d px (width x height)", width, height)
    if detail.symmetry == "auto" and detail.taps:
        turning = features.aspect == 1.0 and coherence([sample.path for sample in split.train]) <= ONE_WAY
        detail = detail.model_copy(update={"symmetry": "turns" if turning else "flips"})
        log.info("features of that look are averaged over %s", detail.symmetry)
    features = features.model_copy(update={"detail": detail})
    return config.model_copy(update={"features": features})


def extract_all(
    config: Config, wanted: Sequence[FeatureConfig], stop: StopRequest, workers: ProcessGroup = SINGLE_PROCESS
) -> list[float]:
    """Extract what may be learned from, for several feature configurations; seconds of each.

    Raises:
        ImageError: As :func:`training_data`.
        Interrupted: A stop was asked for; what is extracted is stored.
    """
    store = open_store(config.store)
    _, split = workers.broadcast(lambda: read_data(config))
    seconds = []
    for features in wanted:
        began = time.monotonic()
        _extracted(config.model_copy(update={"features": features}), split, store, stop, workers)
        seconds.append(time.monotonic() - began)
    return seconds


def training_views(picture: Picture, config: FeatureConfig) -> tuple[Picture, ...]:
    """A training image as it is, then its views, then its turns."""
    views = [picture.then(ViewOp(view)) for view in config.views]
    return (picture, *views, *picture.turned(config.rotations)[1:])


def arranged(config: Config, extraction: Extraction) -> Features:
    """Extracted features as the configuration's method reads them."""
    return networks_of(config.method).arranged(Features(extraction.tables), config.features)


def _refuse_unreadable(
    config: Config, split: Split, store: FeatureStore, device: str, stop: StopRequest, workers: ProcessGroup
) -> None:
    """Name files that cannot be opened together with those that cannot be decoded; store the others."""
    failed: dict[Path, ImageError] = {}
    pictures = []
    for sample in (*split.train, *split.held_out):
        try:
            pictures.append(picture_of(sample))
        except ImageError as error:
            failed[sample.path] = error
    if failed:
        extraction = extract(
            pictures,
            config.features,
            store,
            device=device,
            on_error="skip",
            stop=lambda: stop.requested,
            workers=workers,
        )
        failed |= {pictures[i].path: error for i, error in extraction.failed.items()}
        raise unusable(failed, len(pictures) + len(failed))


@dataclass(frozen=True)
class Validation:
    """What choices are made on: images, and how to get their pictures."""

    good: tuple[Picture, ...]
    defective: tuple[Picture, ...]
    good_samples: tuple[Sample, ...]
    defective_samples: tuple[Sample, ...]


def validation_of(config: Config, split: Split) -> Validation:
    """Held-out good images, synthetic and known defects; test images where `selection.on` says so."""
    if config.selection.on == "test":
        log.warning("selection.on = test: results are marked test-peeked and say nothing of new parts")
        good = tuple(sample for sample in split.test if sample.is_good)
        defective = tuple(sample for sample in split.test if not sample.is_good)
        if not good or not defective:
            raise DataError(
                "the test set has no images of one class, so nothing can be selected on it",
                where="selection.on = test",
                fix="set selection.on=validation",
            )
        defective = tuple(map(known_sample, defective))
        return Validation(tuple(map(picture_of, good)), tuple(map(picture_of, defective)), good, defective)
    selection = config.selection
    good = split.validation
    defects = synthetic_defects(
        good, kinds=selection.defects, per_image=selection.per_image, seed=config.seed
    )
    # All images once, in their order, then all again; then the known defects.
    synthetic = tuple(synthetic_sample(sample) for _ in range(selection.per_image) for sample in good)
    known = tuple(map(known_sample, split.known))
    defects = (*defects, *map(picture_of, known))
    return Validation(tuple(map(picture_of, good)), defects, good, (*synthetic, *known))
