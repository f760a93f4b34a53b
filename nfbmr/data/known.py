"""Known defects: real ones that choose, beside the synthetic ones, and so cannot be tested on.

They come from a folder, or are drawn from the defective test images. What shows the same part as one of them
(its group) leaves the test set with it, and so does a copy of its file: it would be tested with what chose.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from nfbmr.config import FEWEST_KNOWN, DataConfig
from nfbmr.data.files import existing_folder
from nfbmr.data.images import file_digest
from nfbmr.data.reading import read_defects
from nfbmr.data.samples import Dataset, Sample, Split
from nfbmr.errors import DataError, ImageError
from nfbmr.text import count, visible

_WHERE = "data.known_defects"


def set_aside(split: Split, dataset: Dataset, config: DataConfig) -> Split:
    """The split with its known defects, which have left the test set.

    Args:
        split: Without known defects.
        dataset: The data set of the split.
        config: `known_defects`, `group_by` and `seed` count here.

    Raises:
        DataError: Fewer than :data:`~nfbmr.config.FEWEST_KNOWN`, none left to test on, or good parts among
            them.
    """
    asked = config.known_defects
    if asked is None:
        return split
    if isinstance(asked, Path):
        known = _of_folder(asked, dataset, config.group_by)
    else:
        known = draw(split.test, asked, config.seed)
    taken, groups = {s.name for s in known}, {s.group for s in known} - {None}
    copies = _copies(known, [s for s in split.test if s.name not in taken])
    left = [s for s in split.test if s.name not in taken and (s.group in groups or s.name in copies)]
    gone = taken | {s.name for s in left}
    return replace(
        split,
        known=_sorted(known),
        test=tuple(s for s in split.test if s.name not in gone),
        dropped=_sorted([*(s for s in split.dropped if s.name not in taken), *left]),
    )


# -- a share of the test set


def draw(test: Sequence[Sample], asked: float, seed: int) -> tuple[Sample, ...]:
    """Draw known defects, of each kind its share, whole groups where there are groups.

    Whoever falls short of its share of the number asked for by most is drawn from next. The last group may
    bring more than were asked for.

    Args:
        test: Test images; the good ones among them do not matter.
        asked: How many (from 1 up), or which share of the defective ones.
        seed: The same seed draws the same images.

    Raises:
        DataError: Too few would be drawn, or none left.
    """
    defective = _sorted([s for s in test if not s.is_good])
    wanted = asked if asked >= 1 else round(asked * len(defective))
    if wanted < FEWEST_KNOWN or wanted >= len(defective):
        raise _cannot_draw(asked, len(defective))
    units: dict[str, list[list[Sample]]] = {}
    for unit in _units(defective):
        units.setdefault(Counter(s.defect for s in unit).most_common(1)[0][0], []).append(unit)
    for kind, of_kind in units.items():
        random.Random(f"known {seed} {kind}").shuffle(of_kind)
    share = {kind: wanted / len(defective) * sum(map(len, of_kind)) for kind, of_kind in units.items()}
    drawn: list[Sample] = []
    while len(drawn) < wanted and sum(map(len, units.values())) > 1:
        have = Counter(s.defect for s in drawn)
        kind = max((k for k in sorted(units) if units[k]), key=lambda k: share[k] - have[k])
        drawn += units[kind].pop()
    if len(drawn) < FEWEST_KNOWN:
        raise _cannot_draw(asked, len(defective))
    return tuple(drawn)


def _units(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Groups, in the order of their first image; an image without one is alone."""
    units: dict[str, list[Sample]] = {}
    for sample in samples:
        units.setdefault(f"={sample.name}" if sample.group is None else f"group {sample.group}", []).append(
            sample
        )
    return list(units.values())


def _cannot_draw(asked: float, defective: int) -> DataError:
    enough = defective > 2 * FEWEST_KNOWN
    fix = f"ask for {FEWEST_KNOWN} to {defective - 1} of them, or give" if enough else "give"
    return DataError(
        f"{asked:g} of {count(defective, 'defective test image')} cannot be set aside: choosing takes "
        f"{FEWEST_KNOWN} known defects at least, and some must be left to test on",
        where=_WHERE,
        fix=f"{fix} a folder of other defective images",
    )


# -- a folder


def _of_folder(folder: Path, dataset: Dataset, group_by: str | None) -> tuple[Sample, ...]:
    """The images of a folder; those of the data set as it knows them, others under names of their own."""
    known = {s.path.resolve(): s for s in dataset.samples}
    masks = {mask.resolve() for s in dataset.samples for mask in s.masks}
    prefix = "known"
    while any(s.name.startswith(f"{prefix}/") for s in dataset.samples):
        prefix += "-defects"
    samples = []
    for sample in read_defects(existing_folder(folder)):
        path = sample.path.resolve()
        if path in known:
            samples.append(known[path])
        elif path not in masks:
            renamed = replace(sample, name=f"{prefix}/{sample.name}", group=_group(sample, group_by, folder))
            samples.append(renamed)
    good = [s for s in samples if s.is_good]
    if good:
        raise DataError(
            f"{count(len(good), 'good part')} among the known defects, such as {visible(good[0].name)}",
            where=folder,
            fix="leave images of defective parts alone in it",
        )
    if len(samples) < FEWEST_KNOWN:
        raise DataError(
            f"{count(len(samples), 'known defect')}, and {FEWEST_KNOWN} at least are needed to choose with",
            where=folder,
            fix="add images of defective parts, or leave data.known_defects out",
        )
    return tuple(samples)


def _group(sample: Sample, group_by: str | None, folder: Path) -> str | None:
    """The part that an image from elsewhere shows."""
    if group_by is None:
        return None
    match = re.search(group_by, sample.name)
    if match is None or match[1] is None:
        raise DataError(
            f"group_by {group_by!r} names no part for the known defect {visible(sample.name)}",
            where=folder,
            fix="name these images as those of the data set, so that no part both chooses and is tested",
        )
    return match[1]


# -- what must not be tested with them


def _copies(known: Sequence[Sample], others: Sequence[Sample]) -> set[str]:
    """Names among `others` of files with the bytes of a known defect; sizes are compared first."""
    sizes = {_size(s) for s in known} - {None}
    suspects = [s for s in others if _size(s) in sizes]
    if not suspects:
        return set()
    digests = {_digest(s) for s in known} - {None}
    return {s.name for s in suspects if _digest(s) in digests}


def _size(sample: Sample) -> int | None:
    try:
        return sample.path.stat().st_size
    except OSError:
        return None


def _digest(sample: Sample) -> str | None:
    try:
        return file_digest(sample.path)
    except ImageError:
        return None


def _sorted(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda s: s.name))
