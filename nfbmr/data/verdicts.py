"""What audits found, kept in this machine's cache: the same images are compared once, in whatever run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from nfbmr.addresses import cache_folder
from nfbmr.data.samples import digest_of
from nfbmr.data.thumbnails import keep as write
from nfbmr.data.thumbnails import prune

_VERSION = "11"
"""To be raised with every change of what a comparison finds."""

_MOST_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """The training image most like a test image.

    Attributes:
        train: Its index.
        similarity: How far the two agree, from about 0 to 1.
        places: In how many places they could be compared.
        same_bytes: Whether the files are identical.
        closer: What a closer look says (:mod:`nfbmr.data.closer`).
    """

    train: int
    similarity: float
    places: int
    same_bytes: bool
    closer: str = "twin"


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison found.

    Attributes:
        bounds: Similarities from which two images are twins, and from which they may be.
        pairs: The nearest of each test image; None where nothing could be compared.
    """

    bounds: tuple[float, float]
    pairs: tuple[Pair | None, ...]


def key_of(train: Sequence[str], test: Sequence[str], seed: int) -> str:
    """A name for a comparison: which files, on which side, in which order."""
    return digest_of([_VERSION, str(seed), *train, "|", *test])


def kept(key: str, tests: int, trains: int) -> Compared | None:
    """A comparison made before; None where there is none, or it is damaged."""
    try:
        document = json.loads(_path(key).read_text(encoding="utf-8"))
        pairs = tuple(
            None if p is None else Pair(int(p[0]), float(p[1]), int(p[2]), bool(p[3]), str(p[4]))
            for p in document["pairs"]
        )
        twin, unsure = map(float, document["bounds"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    if len(pairs) != tests or not all(p is None or 0 <= p.train < trains for p in pairs):
        return None
    return Compared((twin, unsure), pairs)


def keep(key: str, compared: Compared) -> None:
    """Keep a comparison; where the cache cannot be written it is made again next time."""
    if _path(key).exists():
        return
    pairs = [None if p is None else astuple(p) for p in compared.pairs]
    write(_path(key), json.dumps({"bounds": compared.bounds, "pairs": pairs}).encode())
    prune(_path(key).parents[1], _MOST_BYTES)


def _path(key: str) -> Path:
    return cache_folder() / f"audits-{_VERSION}" / key[:2] / f"{key}.json"
