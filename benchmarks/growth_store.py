"""What a store of features costs as it grows: opening, asking, listing, verifying, pruning.

Rows are made and small, so that what is measured is the store and not the disk. Beside the large space lie
a few small ones, as in a store that several configurations share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from nfbmr.features.maintenance import list_spaces, prune, verify
from nfbmr.features.store import FeatureStore, SpaceSpec

SHAPE = (8, 2, 2)
"""(C, H, W) of a row."""

SMALL = 64
"""Rows of each of the small spaces beside."""

ASKED = 100
"""Keys of one question, of which a tenth is not there."""


def make_store(root: Path, rows: int, beside: int = 8) -> SpaceSpec:
    """A store with one space of so many rows, and small ones.

    Args:
        root: Its folder.
        rows: Of the large space.
        beside: How many small spaces.

    Returns:
        What the large space is of.
    """
    store = FeatureStore(root)
    large = SpaceSpec("features", {"tap": "blocks.5", "of": rows})
    for spec, count in [(large, rows), *((SpaceSpec("features", {"tap": n}), SMALL) for n in range(beside))]:
        space = store.space(spec)
        with space.writer() as writer:
            for start in range(0, count, 1024):
                keys = [key_of(i) for i in range(start, min(start + 1024, count))]
                writer.add(keys, torch.rand(len(keys), *SHAPE))
        space.close()
    return large


def key_of(number: int) -> str:
    """As long as a picture's digest."""
    return f"{number:064x}"


def store_costs(root: Path, rows: Sequence[int]) -> list[dict[str, Any]]:
    """A row a size: seconds of everything that is done with a store."""
    return [_costs(root / f"of-{count}", count) for count in rows]


def _costs(root: Path, rows: int) -> dict[str, Any]:
    spec = make_store(root, rows)
    spread = max(1, rows // ASKED)
    asked = [key_of(i * spread + (rows if i % 10 == 0 else 0)) for i in range(ASKED)]
    there = [key for i, key in enumerate(asked) if i % 10]
    small = SpaceSpec("features", {"tap": 0})
    seconds: dict[str, dict[str, float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        began, used = time.perf_counter(), time.process_time()
        answer = call()
        seconds[name] = {"wall": time.perf_counter() - began, "cpu": time.process_time() - used}
        return answer

    space = timed("open", lambda: FeatureStore(root).space(spec))
    lacking = timed("first question", lambda: space.missing(asked))
    timed("next question", lambda: space.missing(asked))
    table = timed("table of 90 rows", lambda: space.table(there))
    timed("read 90 rows", lambda: table.gather(range(len(there))))
    space.close()
    timed("list", lambda: list_spaces(root))
    timed("verify all", lambda: verify(root))
    timed("verify a small space", lambda: verify(root, spaces=[small.key]))
    timed("prune a small space", lambda: prune(root, spaces=[small.key]))
    return {"rows": rows, "lacking": len(lacking), "seconds": seconds}
