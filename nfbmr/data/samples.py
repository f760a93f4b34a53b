"""The values that data handling passes on: samples, data sets, splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from nfbmr.text import as_text

GOOD = "good"
"""The kind of images without a defect."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image file and what is known of it.

    Kind and group are text: bytes of a folder's name or of a manifest that are none become escapes
    (:func:`~nfbmr.text.as_text`), since both stand in tables.

    Attributes:
        path: Where the file is.
        name: Path below the data set's root, with forward slashes: the sample's identity in every result.
        defect: Kind of defect; ``"good"`` for a normal part.
        masks: Ground-truth masks, none where there are none; what any of them marks is defective.
        group: The part photographed; samples of one group never stand on two sides of a group split.
        subset: ``"train"``, ``"validation"`` or ``"test"`` where the layout fixes it, else None.
    """

    path: Path
    name: str
    defect: str = GOOD
    masks: tuple[Path, ...] = ()
    group: str | None = None
    subset: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "defect", as_text(self.defect))
        if self.group is not None:
            object.__setattr__(self, "group", as_text(self.group))

    @property
    def is_good(self) -> bool:
        """Whether the part is normal."""
        return self.defect == GOOD


@dataclass(frozen=True, slots=True)
class Unused:
    """An image file that counts in no number, and why.

    Attributes:
        path: Where the file is.
        why: In a few words, the same for every file of its sort as far as it can be.
        is_mask: Whether it looks like a mask.
    """

    path: Path
    why: str
    is_mask: bool = False


@dataclass(frozen=True)
class Dataset:
    """A folder of images, read but not yet split.

    Attributes:
        name: For people and trackers, e.g. ``"mtd"`` or ``"mvtec/bottle"``.
        layout: One of :data:`nfbmr.data.layouts.LAYOUTS`, or ``"patterns"``.
        root: The folder that sample names are relative to.
        samples: In a fixed order (sorted by name).
        unused: Image files below the root that are neither a sample nor a sample's mask, sorted by path.
        category: Which of several data sets in one place, where it is one of several.
    """

    name: str
    layout: str
    root: Path
    samples: tuple[Sample, ...]
    unused: tuple[Unused, ...] = ()
    category: str | None = None

    def counts(self) -> dict[str, int]:
        """Samples by kind of defect."""
        return dict(sorted(Counter(s.defect for s in self.samples).items()))


@dataclass(frozen=True)
class Split:
    """Which samples train, validate and test; named and seeded.

    ``train`` and ``validation`` are good parts only, ``known`` are defective ones that choices are made with.
    Nothing in ``test`` may influence a choice.

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
    known: tuple[Sample, ...] = field(default=())

    @property
    def held_out(self) -> tuple[Sample, ...]:
        """What choices are made on: good parts that were not trained on, and known defects."""
        return (*self.validation, *self.known)

    @property
    def digest(self) -> str:
        """A short fingerprint of who is on which side."""
        parts = ((k, s.name) for k in ("train", "validation", "test", "known") for s in getattr(self, k))
        return digest_of(f"{k}:{n}" for k, n in parts)

    def as_json(self) -> dict[str, object]:
        """The split as it is stored with the run."""
        kept = ("train", "validation", "known", "test", "dropped")
        sides = {k: [s.name for s in getattr(self, k)] for k in kept}
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
