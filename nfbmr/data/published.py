"""Data sets of the field that say more than their folders do: VisA, KolektorSDD, KolektorSDD2, Real-IAD.

======  =============================================================================================
ksdd    ``kos01/Part0.jpg`` with ``Part0_label.bmp``; a blank mask is a good part.
        https://www.vicos.si/resources/kolektorsdd/
ksdd2   ``train/10000.png`` with ``10000_GT.png``, ``test/...``; a blank mask is a good part.
        https://www.vicos.si/resources/kolektorsdd2/
visa    ``<object>/Data/Images/Normal|Anomaly/*.JPG``, ``<object>/Data/Masks/Anomaly/*.png`` with values from
        1 up, ``split_csv/1cls.csv``. https://github.com/amazon-science/spot-diff
======  =============================================================================================

Real-IAD is in :mod:`nfbmr.data.realiad`. The others of the field (MVTec AD, MVTec LOCO, MVTec AD 2, BTAD,
MPDD) are folders with sides, which :func:`nfbmr.data.reading.read_sides` reads.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nfbmr.data.files import child, folders, images_in, name_below
from nfbmr.data.images import read_masks
from nfbmr.data.masks import entries_below, pair
from nfbmr.data.reading import Reading, unused_below
from nfbmr.data.samples import GOOD, Sample, Unused
from nfbmr.errors import DataError, ImageError

_ITEM = re.compile(r"kos\d+$", re.IGNORECASE)
_LABEL = re.compile(r"part\d+_label\.bmp$", re.IGNORECASE)
_TRUTH = re.compile(r"\d+_gt\.png$", re.IGNORECASE)


# -- KolektorSDD and KolektorSDD2: a blank mask is a good part


def is_ksdd(folder: Path) -> bool:
    """Whether a folder holds KolektorSDD's items, with their masks beside the images."""
    items = (inner for inner in folders(folder) if _ITEM.match(inner.name))
    return any(_LABEL.match(file.name) for inner in items for file in images_in(inner))


def is_ksdd2(folder: Path) -> bool:
    """Whether a folder holds KolektorSDD2's sides, with their masks beside the images."""
    sides = [child(folder, side) for side in ("train", "test")]
    return all(any(_TRUTH.match(file.name) for file in images_in(side)) for side in sides)


def read_ksdd(root: Path) -> Reading:
    """All surfaces. Those of one item do not overlap, and each item has a defect: there are no groups."""
    return _told_by_masks(root, sides=False)


def read_ksdd2(root: Path) -> Reading:
    """Both sides; defective images of the training side are read, and learned from by nobody."""
    return _told_by_masks(root, sides=True)


def _told_by_masks(root: Path, *, sides: bool) -> Reading:
    entries = entries_below(root, sides=sides)
    pictures = [
        (entry, Sample(entry.path, name_below(entry.path, root), "defect", subset=entry.side))
        for entry in entries
        if not entry.is_mask
    ]
    paired = pair(pictures, [entry for entry in entries if entry.is_mask])
    samples, unused = [], list(paired.unused)
    for _, sample in pictures:
        masks = tuple(sorted(paired.masks.get(sample.path, ())))
        if not masks:
            unused.append(Unused(sample.path, "no mask, which alone says whether the part is good"))
        elif _is_blank(masks):
            samples.append(replace(sample, defect=GOOD))
        else:
            samples.append(replace(sample, masks=masks))
    return Reading(samples, unused)


def _is_blank(masks: tuple[Path, ...]) -> bool:
    """Whether masks mark nothing; one that cannot be read counts as marking something."""
    try:
        return not read_masks(masks).any()
    except ImageError:
        return False


# -- VisA


def is_visa_object(folder: Path) -> bool:
    """Whether a folder is one object of VisA as it is published."""
    images = child(child(folder, "data"), "images")
    return child(images, "normal").is_dir()


def read_visa(root: Path) -> Reading:
    """One object, by the split file of one class where it lies beside the object; else without sides.

    Raises:
        DataError: The split file is none, or names files that do not exist.
    """
    listed = root.resolve().parent / "split_csv" / "1cls.csv"
    if listed.is_file():
        samples = list(_visa_rows(listed, root))
        if samples:
            return Reading(samples, unused_below(root, samples))
    images = child(child(root, "data"), "images")
    entries = [e for e in entries_below(child(root, "data")) if e.is_mask or images in e.path.parents]
    pictures = [
        (e, Sample(e.path, name_below(e.path, root), _visa_kind(e.folders[-1] if e.folders else "")))
        for e in entries
        if not e.is_mask
    ]
    paired = pair(pictures, [e for e in entries if e.is_mask])
    samples = [
        replace(s, masks=() if s.is_good else tuple(paired.masks.get(s.path, ()))) for _, s in pictures
    ]
    return Reading(samples, unused_below(root, samples))


def _visa_kind(label: str) -> str:
    return GOOD if label.lower() == "normal" else "anomaly"


def _visa_rows(file: Path, root: Path) -> Iterator[Sample]:
    """Samples of one object from ``object,split,label,image,mask``; paths are below the set's own folder."""
    top, name = file.parent.parent, root.resolve().name
    missing = []
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        lacking = {"object", "split", "label", "image", "mask"} - set(rows.fieldnames or ())
        if lacking:
            raise DataError(
                f"the split file has no column {', '.join(sorted(lacking))}",
                where=file,
                fix="copy it again from VisA's archive",
            )
        for row in rows:
            if row["object"].lower() != name.lower():
                continue
            path, below = top / row["image"], Path(*Path(row["image"]).parts[1:])
            if not path.is_file():
                missing.append(row["image"])
                continue
            mask = top / row["mask"] if row["mask"] else None
            masks = (root / Path(*Path(row["mask"]).parts[1:]),) if mask is not None else ()
            yield Sample(
                root / below, below.as_posix(), _visa_kind(row["label"]), masks, subset=row["split"].lower()
            )
    if missing:
        raise DataError(
            f"{len(missing)} images of the split file do not exist, such as {missing[0]}",
            where=file,
            fix="unpack VisA's archive again, or remove split_csv to split at random",
        )
