"""Pictures to stored features: each picture goes through the backbone once, whoever asks and how often.

Decoding runs in threads beside the forward pass, a bounded number of pictures ahead; rows leave for the store
in shards from a thread of their own. So memory does not grow with the number of pictures, and a run that is
killed loses at most the shard it was filling.

Several workers divide what is missing among them. Shards are appended without a lock; rank 0 holds the right
to fill the spaces for all of them.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from nfbmr.config import FeatureConfig
from nfbmr.data.pictures import Picture, prepare
from nfbmr.errors import ImageError, Interrupted
from nfbmr.features.backbone import backbone_info, same_backbone
from nfbmr.features.choosing import Arithmetic, arithmetic_for, openvino_unfit
from nfbmr.features.engine import Compute, Engine, Library
from nfbmr.features.keys import as_stored, joined_digest, space_spec, stored_shapes
from nfbmr.features.passes import passes_of
from nfbmr.features.store import FeatureStore, Space, SpaceSpec, Writer
from nfbmr.features.table import FeatureTable, Shape, TensorTable
from nfbmr.progress import ticking
from nfbmr.workers import SINGLE_PROCESS, ProcessGroup

log = logging.getLogger(__name__)

T = TypeVar("T")

PIXELS_AT_ONCE = 16 * 1024**2
"""That are held in memory as floats, whatever ``features.batch`` is: sixteen pictures of 1024 px."""


@dataclass(frozen=True)
class Extraction:
    """Stored features of some pictures.

    Attributes:
        tables: One a pass and tap, rows in the order of the pictures that did not fail.
        computed: Distinct pictures that went through a backbone.
        reused: Distinct pictures that were in the store already.
        seconds: All of it took.
        failed: Error by position in the pictures that were asked for.
        specs: What the tables' spaces are, one a table.
    """

    tables: tuple[FeatureTable, ...]
    computed: int
    reused: int
    seconds: float
    specs: tuple[SpaceSpec, ...]
    failed: Mapping[int, ImageError] = field(default_factory=dict)

    @property
    def weights_digest(self) -> str:
        """Fingerprint of the weights of all backbones."""
        return joined_digest(str(spec.fields["weights"]) for spec in self.specs)

    @property
    def compute(self) -> Compute:
        """Arithmetic the features were made in, whatever ``features.compute`` left open."""
        return "bf16" if self.specs[0].fields["compute"] == "bf16" else "fp32"

    @property
    def engine(self) -> Library:
        """Library that they were made by, whatever ``features.engine`` left open."""
        return "openvino" if "engine" in self.specs[0].fields else "torch"

    def made(self, config: FeatureConfig) -> FeatureConfig:
        """How the features were made, with nothing left to be measured, so that prediction does the same."""
        return config.model_copy(update={"compute": self.compute, "engine": self.engine})


def extract(
    pictures: Sequence[Picture],
    config: FeatureConfig,
    store: FeatureStore,
    *,
    device: str = "cpu",
    on_error: str = "raise",
    stop: Callable[[], bool] | None = None,
    workers: ProcessGroup = SINGLE_PROCESS,
) -> Extraction:
    """Features of every picture, pass and tap, from the store where it has them.

    Args:
        pictures: In any order; repeated contents are computed once.
        config: Backbones, taps, sizes, preprocessing, types.
        store: Where features are kept.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ..., or ``"auto"``: the GPU where there is one.
        on_error: What an unreadable picture does once all others are stored: ``"raise"`` names them all,
            ``"skip"`` reports them in :attr:`Extraction.failed`.
        stop: Read between batches; True stops, keeping what is done.
        workers: Who takes part, all with the same pictures. Each computes its share and gets all tables.

    Returns:
        Tables in the order of :func:`~nfbmr.features.passes.passes_of`.

    Raises:
        ImageError: Some pictures cannot be read, and `on_error` is ``"raise"``.
        BackboneError: The backbone, a tap or the weights cannot be had.
        CorruptShardError: A shard of the store is damaged.
        OutputError: The store cannot be written.
        Interrupted: `stop` said so.
    """
    started = time.perf_counter()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    distinct = {picture.key: picture for picture in pictures}
    errors: dict[str, ImageError] = {}
    computed: set[str] = set()
    filled: list[tuple[Space, SpaceSpec, Shape]] = []
    # One arithmetic for all passes, so that one word says it.
    openvino = all(workers.all_gather(openvino_unfit(device) is None))
    arithmetic = workers.broadcast(
        lambda: arithmetic_for(config, store, tuple(distinct), device, stop, openvino=openvino)
    )
    for network in passes_of(config):
        spaces, keys_computed, failed = _fill_pass(
            distinct, network, arithmetic, store, device, stop, workers
        )
        filled += spaces
        computed |= keys_computed
        errors |= failed
        distinct = {key: picture for key, picture in distinct.items() if key not in failed}
    failed_at = {i: errors[picture.key] for i, picture in enumerate(pictures) if picture.key in errors}
    if failed_at and on_error == "raise":
        raise unusable({pictures[i].path: error for i, error in failed_at.items()}, len(pictures))
    keys = [picture.key for picture in pictures if picture.key not in errors]
    return Extraction(
        tables=tuple(
            space.table(keys) if keys else TensorTable(torch.empty(0, *shape, dtype=space.dtype), ())
            for space, _, shape in filled
        ),
        computed=len(computed),
        reused=len(distinct) - len(computed),
        seconds=time.perf_counter() - started,
        specs=tuple(spec for _, spec, _ in filled),
        failed=failed_at,
    )


def _fill_pass(
    distinct: Mapping[str, Picture],
    config: FeatureConfig,
    arithmetic: Arithmetic,
    store: FeatureStore,
    device: str,
    stop: Callable[[], bool] | None,
    workers: ProcessGroup,
) -> tuple[list[tuple[Space, SpaceSpec, Shape]], set[str], dict[str, ImageError]]:
    """Compute what one network at one size lacks; the network is loaded where there is something to compute.

    Returns:
        For each tap its space, what that is, and (C, H, W); keys that went through; errors by key.
    """
    info = backbone_info(config)
    shapes = stored_shapes(dict(zip(info.taps, info.shapes, strict=True)), config)
    compute, library = arithmetic
    specs = tuple(space_spec(info, tap, config, compute, library) for tap in info.taps)
    spaces = {tap: store.space(spec) for tap, spec in zip(info.taps, specs, strict=True)}
    wanted = workers.broadcast(lambda: _missing(spaces, distinct))
    computed: set[str] = set()
    errors: dict[str, ImageError] = {}
    if wanted:
        with ExitStack() as locks:
            if workers.rank == 0:
                # In one order, so that no two runs wait for each other.
                for space in sorted(spaces.values(), key=lambda space: space.folder):
                    locks.enter_context(space.lock(stop))
            wanted = workers.broadcast(lambda: _missing(spaces, distinct))
            # In turn, since neighbours are alike: views of one image, or defects to be drawn.
            todo = {key: distinct[key] for key in islice(wanted, workers.rank, None, workers.count)}
            if todo:
                engine = Engine(
                    same_backbone(info, config),
                    compute=compute,
                    size=config.shape,
                    device=device,
                    compiled=config.compile,
                    tile=config.tile,
                    symmetry=config.symmetry,
                    library=library,
                )
                errors = _fill(spaces, todo, engine, config, stop)
            failed = workers.all_gather(errors)
            errors = {key: error for some in failed for key, error in some.items()}
            computed = set(wanted) - set(errors)
    made = [(spaces[tap], spec, shapes[tap]) for tap, spec in zip(info.taps, specs, strict=True)]
    return made, computed, errors


def unusable(failed: Mapping[Path, ImageError], count: int) -> ImageError:
    """One error that names every image that cannot be used, once all others are stored."""
    lines = "".join(f"\n  {path}: {error.what}" for path, error in failed.items())
    return ImageError(
        f"{len(failed)} of {count} images cannot be used (the others are stored):{lines}",
        fix="mend or remove them, then run the same command again: only what is missing is computed; "
        "`nfbmr data inspect` lists every problem",
    )


def _missing(spaces: Mapping[str, Space], distinct: Mapping[str, Picture]) -> dict[str, None]:
    """Keys that some tap lacks, in the order of the pictures."""
    lacking = {key for space in spaces.values() for key in space.missing(distinct)}
    return {key: None for key in distinct if key in lacking}


def pictures_at_once(config: FeatureConfig) -> int:
    """Pictures that go through the backbone together: ``features.batch``, or fewer where they are large."""
    return max(1, min(config.batch, PIXELS_AT_ONCE // math.prod(config.shape)))


def _fill(
    spaces: Mapping[str, Space],
    todo: Mapping[str, Picture],
    engine: Engine,
    config: FeatureConfig,
    stop: Callable[[], bool] | None,
) -> dict[str, ImageError]:
    """Compute what is missing; errors by key."""
    lacking = {tap: set(space.missing(todo)) for tap, space in spaces.items()}
    errors: dict[str, ImageError] = {}
    computed = 0
    progress = tqdm(total=len(todo), desc="features", unit="image", disable=None, leave=False)
    with ticking(progress), ExitStack() as writers, _Shelf() as shelf:
        # The shelf is left first: all rows are with their writers when these write what they still hold.
        open_writers = {tap: writers.enter_context(space.writer()) for tap, space in spaces.items()}
        batches = writers.enter_context(closing(_batches(todo, engine, config, errors)))
        for keys, x in batches:
            for tap, y in zip(spaces, engine(x), strict=True):
                shelf.put(open_writers[tap], keys, as_stored(y, config), lacking[tap])
            computed += len(keys)
            progress.update(len(keys))
            if stop is not None and stop():
                raise Interrupted(
                    f"stopped after {computed} of {len(todo)} pictures; they are stored",
                    fix="run the same command again: it goes on with the rest",
                )
        shelf.wait()
    return errors


def _batches(
    todo: Mapping[str, Picture], engine: Engine, config: FeatureConfig, errors: dict[str, ImageError]
) -> Generator[tuple[list[str], Tensor], None, None]:
    """Prepared pictures in batches, decoded a bounded number ahead; those that fail go to `errors`."""
    mean, std = engine.backbone.mean, engine.backbone.std

    def ready(picture: Picture) -> Tensor:
        x = prepare(
            picture,
            size=config.shape,
            photometric=config.photometric,
            mean=mean,
            std=std,
            depth=config.bits,
        )
        return torch.as_tensor(x).to(engine.dtype)

    size = pictures_at_once(config)
    # A picture that is decoded ahead takes as much memory as one in the batch.
    workers = min(8, os.cpu_count() or 1, max(2, size))
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        queue: deque[tuple[str, Future[Tensor]]] = deque()
        coming = iter(todo.items())
        keys: list[str] = []
        batch = torch.empty(0)
        try:
            while True:
                for key, picture in islice(coming, size + workers - len(queue)):
                    queue.append((key, pool.submit(ready, picture)))
                if not queue:
                    break
                key, future = queue.popleft()
                try:
                    x = future.result()
                except ImageError as error:
                    errors[key] = error
                    continue
                if not keys:
                    batch = torch.empty((size, *x.shape), dtype=engine.dtype)
                    batch = batch.contiguous(memory_format=torch.channels_last)
                batch[len(keys)].copy_(x)
                keys.append(key)
                if len(keys) == size:
                    yield keys, batch
                    keys = []
            if keys:
                yield keys, batch[: len(keys)]
        finally:
            for _, future in queue:
                future.cancel()


class _Shelf:
    """Puts rows into writers from a thread of its own, one batch behind the forward pass."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> _Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)

    def put(self, writer: Writer, keys: list[str], y: Tensor, wanted: set[str]) -> None:
        """Hand rows over; waits while more than a few batches are on their way."""
        while len(self._pending) >= 4:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._add, writer, keys, y, wanted))

    @staticmethod
    def _add(writer: Writer, keys: list[str], y: Tensor, wanted: set[str]) -> None:
        rows = [row for row, key in enumerate(keys) if key in wanted]
        if len(rows) == len(keys):
            writer.add(keys, y)
        elif rows:
            writer.add([keys[row] for row in rows], y[rows])

    def wait(self) -> None:
        """Until all rows are with their writers."""
        while self._pending:
            self._pending.popleft().result()
