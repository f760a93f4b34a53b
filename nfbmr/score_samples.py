"""Score components of labelled images: those of a run's test set, and those of any other set."""

from __future__ import annotations

from collections.abc import Sequence

from nfbmr.data.pictures import Picture, picture_of
from nfbmr.data.samples import Sample
from nfbmr.errors import ImageError
from nfbmr.features.extraction import extract
from nfbmr.features.store import FeatureStore
from nfbmr.features.table import ViewedFeatures
from nfbmr.methods.detector import Detector
from nfbmr.methods.forward import embeddings_of, latents, maps_of
from nfbmr.prepare import arranged
from nfbmr.results import ScoredImages
from nfbmr.stopping import StopRequest
from nfbmr.workers import SINGLE_PROCESS, ProcessGroup


def score_samples(
    detector: Detector,
    images: Sequence[Sample],
    store: FeatureStore,
    stop: StopRequest,
    *,
    key: str | None = None,
    workers: ProcessGroup = SINGLE_PROCESS,
) -> tuple[ScoredImages, dict[str, str]]:
    """Score components of images, with their features kept in the store.

    Args:
        detector: The model.
        images: Any.
        store: Where their features are looked for and kept.
        stop: Asks to stop; what is extracted is kept.
        key: Key of the first stage: its latents are then kept, too.
        workers: Who takes part.

    Returns:
        The images that could be read, and what was wrong with the others by name.

    Raises:
        CheckpointError: The backbone's weights here are not those that the model was trained with.
        Interrupted: A stop was asked for.
    """
    config = detector.config
    turns = config.features.test_rotations
    pictures: list[Picture] = []
    readable: list[Sample] = []
    failed: dict[str, str] = {}
    for sample in images:
        try:
            pictures += picture_of(sample).turned(turns)
            readable.append(sample)
        except ImageError as error:
            failed[sample.name] = error.what
    extraction = extract(
        pictures,
        config.features,
        store,
        device=str(detector.device),
        on_error="skip",
        stop=lambda: stop.requested,
        workers=workers,
    )
    detector.check_weights(extraction.weights_digest)
    failed |= {readable[i // turns].name: error.what for i, error in extraction.failed.items()}
    samples = tuple(sample for sample in readable if sample.name not in failed)
    seen = ViewedFeatures.of(arranged(config, extraction), turns)
    z = (
        latents(detector, seen, key, store, workers)
        if key is not None and detector.networks.caches_latents
        else None
    )
    maps_NPHW = maps_of(detector, seen, z, workers, stop=stop)
    return ScoredImages("test", samples, maps_NPHW, embeddings_of(detector, seen, z, workers)), failed
