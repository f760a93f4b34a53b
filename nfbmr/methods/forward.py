"""A detector's forward pass over stored features, a few images at a time, each worker its share.

All functions that are given `workers` are called by all of them, and give all the same.
Shapes: N images, P score components, H W a map, D dimensions of an embedding.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from nfbmr.features.store import FeatureStore, SpaceSpec
from nfbmr.features.table import FeatureTable, ViewedFeatures
from nfbmr.methods.detector import Detector
from nfbmr.stopping import StopRequest, until_stopped
from nfbmr.training.stages import Stage
from nfbmr.workers import SINGLE_PROCESS, ProcessGroup, in_order, shard_range


def latents(
    detector: Detector,
    seen: ViewedFeatures,
    key: str,
    store: FeatureStore,
    workers: ProcessGroup = SINGLE_PROCESS,
) -> FeatureTable:
    """What the first stage makes of every row, stored under its key and computed only where it is missing."""
    seen = seen.select(detector.networks.stages[0].tables)
    table = seen.features.tables[0]
    space = store.space(SpaceSpec("latents", {"flow": key, "shape": list(table.shape), "dtype": "float16"}))
    with space.lock() if workers.rank == 0 else nullcontext():
        missing = workers.broadcast(lambda: set(space.missing(table.keys)))
        rows = [row for row, key in enumerate(table.keys) if key in missing]
        share, size = shard_range(len(rows), workers), seen.features.at_once(64)
        for start in share[::size]:
            chunk = rows[start : min(start + size, share.stop)]
            space.append([table.keys[row] for row in chunk], detector.latents(seen.features.gather(chunk)))
        workers.barrier()
    return space.table(table.keys)


def maps_of(
    detector: Detector,
    seen: ViewedFeatures,
    z: FeatureTable | None = None,
    workers: ProcessGroup = SINGLE_PROCESS,
    *,
    stage: Stage | None = None,
    stop: StopRequest | None = None,
) -> Tensor:
    """Score components of every image, (N, P, H, W); the mean over its views where it has several.

    Args:
        detector: Whose.
        seen: Features of the images.
        z: Their latents, row by row of the features, where they are stored.
        workers: Who takes part.
        stage: Whose components; by default those of the whole method.
        stop: Looked at every few images; :class:`Interrupted` is raised where it asks for a stop.

    Raises:
        CheckpointError: The maps are of other sizes than those that the detector was trained on.
    """
    detector.eval()
    if stage is not None:
        seen, z = seen.select(stage.tables), z if stage.reads_latents else None
    else:
        detector.check_shapes(seen.features.shapes)
    chunks = []
    for chunk in until_stopped(chunks_of(seen, workers), stop, "images were scored"):
        z_BCHW = None if z is None else z.gather(seen.rows_of(chunk))
        maps = detector.maps(seen.gather(chunk), z_BCHW, stage=stage)
        chunks.append(maps.view(len(chunk), seen.views, *maps.shape[1:]).mean(1))
    chunks = in_order(chunks, workers)
    return torch.cat(chunks) if chunks else torch.zeros(0, len(detector.networks.components), 1, 1)


def embeddings_of(
    detector: Detector, seen: ViewedFeatures, z: FeatureTable | None, workers: ProcessGroup = SINGLE_PROCESS
) -> dict[str, Tensor]:
    """:meth:`Detector.embeddings` of every image as it is, (N, C) by the name of the space."""
    chunks = []
    for chunk in chunks_of(seen, workers):
        rows = seen.rows_NV[chunk.start : chunk.stop, 0]
        latents = None if z is None else z.gather(rows)
        chunks.append(detector.embeddings(seen.features.gather(rows), latents))
    chunks = in_order(chunks, workers)
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in (chunks[0] if chunks else ())}


def chunks_of(seen: ViewedFeatures, workers: ProcessGroup, size: int = 32) -> list[range]:
    """This worker's share of the images, a few at a time."""
    share = shard_range(len(seen), workers)
    size = max(1, seen.features.at_once(size) // seen.views)
    return [share[start : start + size] for start in range(0, len(share), size)]
