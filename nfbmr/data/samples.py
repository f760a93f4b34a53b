"""The values that data handling passes on: samples, data sets, splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

GOOD = "good"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image file and what is known of it.

    Attributes:
        path: Where the file is.
        name: Path below the data set's root, with forward slashes: the sample's identity in every result.
        defect: Kind of defect; ``"good"`` for a normal part.
        mask: Ground-truth mask, if there is one.
        group: The part photographed; samples of one group never stand on two sides of a group split.
        subset: ``"train"`` or ``"test"`` where the layout fixes it, else None.
    """

    path: Path
    name: str
    defect: str = GOOD
    mask: Path | None = None
    group: str | None = None
    subset: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether the part is normal."""
        return self.defect == GOOD


@dataclass(frozen=True)
class Dataset:
    """A folder of images, read but not yet split.

    Attributes:
        name: For people and trackers, e.g. ``"mtd"`` or ``"mvtec/bottle"``.
        layout: One of mvtec, dagm, mtd, folder.
        root: The folder that sample names are relative to.
        samples: In a fixed order (sorted by name).
    """

    name: str
    layout: str
    root: Path
    samples: tuple[Sample, ...]

    def counts(self) -> dict[str, int]:
        """Samples by kind of defect."""
        return dict(sorted(Counter(s.defect for s in self.samples).items()))


@dataclass(frozen=True)
class Split:
    """Which samples train, validate and test; named and seeded.

    ``train`` and ``validation`` are good parts only. Nothing in ``test`` may influence a choice.

    Attributes:
        name: official, legacy, group or random.
        seed: Seed it was drawn with.
        grouped: Whether groups were kept on one side (intervals then resample groups).
    """

    name: str
    seed: int
    grouped: bool
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    dropped: tuple[Sample, ...] = field(default=())

    @property
    def digest(self) -> str:
        """A short fingerprint of who is on which side."""
        parts = ((k, s.name) for k in ("train", "validation", "test") for s in getattr(self, k))
        return digest_of(f"{k}:{n}" for k, n in parts)

    def as_json(self) -> dict[str, object]:
        """The split as it is stored with the run."""
        sides = {k: [s.name for s in getattr(self, k)] for k in ("train", "validation", "test", "dropped")}
        return {"name": self.name, "seed": self.seed, "grouped": self.grouped, "digest": self.digest, **sides}


def units_of(samples: Iterable[Sample]) -> tuple[str, ...]:
    """What each image shows: its group, or where groups are unknown the image itself."""
    return tuple(sample.group or sample.name for sample in samples)


def digest_of(parts: Iterable[str]) -> str:
    """SHA-256 over strings, order mattering, as 16 hexadecimal digits.

    Example:
        >>> digest_of(["a", "b"]) == digest_of(["ab"])
        False
    """
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode("utf-8", "surrogateescape"))
        sha.update(b"\0")
    return sha.hexdigest()[:16]
