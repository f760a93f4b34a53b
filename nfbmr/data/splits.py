"""Splits: seeded, named, and the same on every machine.

========  ====================  ============================================================================
split     fits                  who is tested
========  ====================  ============================================================================
official  layouts with sides    the data set's own test side
legacy    mtd                   every defective image and a random `test_fraction` of the good ones, as
                                published. It leaks: other exposures of the same tiles are trained on
group     mtd; any layout with  every group that holds a defective image, whole, and other groups with
          `group_by`            `test_fraction` of their images
random    folder                every defective image and a random `test_fraction` of the good ones
========  ====================  ============================================================================

Validation images are good ones taken from the training side, by whole groups where the split is grouped;
where the data set has a validation side of its own (MVTec LOCO, MVTec AD 2), that side's.
`known_defects` then moves defective images from the test side to those that choose (:mod:`nfbmr.data.known`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from nfbmr.config import DataConfig
from nfbmr.data.known import set_aside
from nfbmr.data.samples import Dataset, Sample, Split
from nfbmr.errors import ConfigError, DataError
from nfbmr.text import count

_Parts = list[list[Sample]]


def make_split(dataset: Dataset, config: DataConfig) -> Split:
    """Split a data set into training, validation and test samples.

    The same names, fractions and seed give the same split. `limit_train` moves training samples to
    ``dropped`` and changes nothing else, and a smaller limit's samples are among a larger one's.

    Args:
        dataset: What :func:`nfbmr.data.layouts.load_dataset` read.
        config: `split`, `test_fraction`, `validation_fraction`, `limit_train`, `seed` and, with `group_by`,
            `known_defects` count here.

    Returns:
        The split; each side sorted by name. Without a defective image ``test`` holds only good ones, and
        metrics that need both are undefined.

    Raises:
        ConfigError: The split does not fit the data set.
        DataError: There are too few images (or groups) to hold any out, or too few known defects.
    """
    name = _name_of(dataset, config)
    official = [s for s in dataset.samples if s.subset == "test"] if name == "official" else []
    dropped: list[Sample] = []
    validation: list[Sample] = []
    grouped = name == "group"
    by_group = grouped or (name == "official" and _has_groups(dataset))
    if name == "official":
        if not official:
            raise _no_test(dataset)
        pool = _parts((s for s in dataset.samples if s.is_good and s.subset == "train"), by_group)
        validation = [s for s in dataset.samples if s.is_good and s.subset == "validation"]
        dropped += [s for s in dataset.samples if not s.is_good and s.subset != "test"]
        test = list(official)
    else:
        parts = _parts(dataset.samples, grouped)
        pool = [part for part in parts if all(s.is_good for s in part)]
        test = [s for part in parts if not all(s.is_good for s in part) for s in part]
    unit = "groups of good images" if by_group else "good images"
    needed = 2 if any(s.is_good for s in test) or name == "official" else 3
    needed -= bool(validation)
    if len(pool) < needed:
        raise DataError(
            f"{len(pool)} {unit} to learn from, but {needed} are needed to hold some out",
            where=dataset.root,
            fix="add images of normal parts"
            + ("; or, where these are different parts, a group_by that tells them apart" if by_group else ""),
        )
    if name != "official":
        rng = random.Random(f"test {config.seed}")
        held, pool = _hold_out(pool, config.test_fraction, rng, least=1, leave=2)
        test += held
    if not validation:
        rng = random.Random(f"validation {config.seed}")
        # A single score says nothing of how the scores of good images end.
        least = 2 if len(pool) >= 4 else 1
        validation, pool = _hold_out(pool, config.validation_fraction, rng, least=least, leave=1)
    train = [s for part in pool for s in part]
    if config.limit_train is not None and config.limit_train < len(train):
        shuffled = _shuffled([[s] for s in _sorted(train)], random.Random(f"limit {config.seed}"))
        train = [s for part in shuffled[: config.limit_train] for s in part]
        dropped += [s for part in shuffled[config.limit_train :] for s in part]
    split = Split(
        name,
        config.seed,
        by_group,
        train=_sorted(train),
        validation=_sorted(validation),
        test=_sorted(test),
        dropped=_sorted(dropped),
    )
    return set_aside(split, dataset, config)


def _no_test(dataset: Dataset) -> DataError:
    """What to do where a data set has a side to learn from and none to test on."""
    elsewhere = [u.path for u in dataset.unused if not u.is_mask]
    fix = "put images of good and defective parts into test/, a folder a kind"
    if elsewhere:
        fix += f"; {count(len(elsewhere), 'image')} lie in no place that is read, such as {elsewhere[0]}"
    else:
        fix += "; or point at the folder of normals itself: it is then split as a folder of one's own"
    return DataError("no test images beside the training images", where=dataset.root, fix=fix)


def fitting_splits(dataset: Dataset) -> tuple[str, ...]:
    """Names of the splits that fit a data set; the first is what ``auto`` takes."""
    if any(s.subset is not None for s in dataset.samples):
        return ("official", "group") if _has_groups(dataset) else ("official",)
    if dataset.layout == "mtd":
        return ("group", "legacy")
    return ("group", "random") if _has_groups(dataset) else ("random",)


def _name_of(dataset: Dataset, config: DataConfig) -> str:
    fitting = fitting_splits(dataset)
    if config.split == "auto":
        return fitting[0]
    if config.split not in fitting:
        fix = f"use one of: auto, {', '.join(fitting)}"
        if config.split == "group":
            fix += "; group needs a group_by, a regular expression whose first group names the part"
        raise ConfigError(
            f"the split {config.split!r} does not fit the layout {dataset.layout}",
            where="data.split",
            fix=fix,
        )
    return config.split


def _has_groups(dataset: Dataset) -> bool:
    return all(s.group is not None for s in dataset.samples)


def _parts(samples: Iterable[Sample], grouped: bool) -> _Parts:
    """What is kept together: groups, or single samples."""
    if not grouped:
        return [[s] for s in samples]
    parts: dict[str | None, list[Sample]] = {}
    for sample in samples:
        parts.setdefault(sample.group, []).append(sample)
    return list(parts.values())


def _hold_out(
    parts: _Parts, fraction: float, rng: random.Random, *, least: int, leave: int
) -> tuple[list[Sample], _Parts]:
    """Take parts at random until they hold the fraction of the images, at least so many; leave some parts."""
    wanted = max(1, round(fraction * sum(map(len, parts))))
    shuffled = _shuffled(parts, rng)
    held: _Parts = []
    while (sum(map(len, held)) < wanted or len(held) < least) and len(shuffled) > leave:
        held.append(shuffled.pop())
    return [sample for part in held for sample in part], shuffled


def _shuffled(parts: _Parts, rng: random.Random) -> _Parts:
    """In an order that depends on the names and the seed alone."""
    ordered = sorted((list(_sorted(part)) for part in parts), key=lambda part: part[0].name)
    rng.shuffle(ordered)
    return ordered


def _sorted(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda s: s.name))
