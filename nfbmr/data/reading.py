"""One recogniser for folders: entries to samples with their masks, and what was not understood.

:func:`read_sides` reads a folder with sides (``train``, ``test``, perhaps ``validation``), :func:`read_kinds`
one with a folder a kind, :func:`read_defects` one of defective parts alone. All three read names by
:mod:`nfbmr.data.names` and give masks to pictures by :mod:`nfbmr.data.masks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nfbmr.data.files import images_below, is_mask_name, name_below
from nfbmr.data.masks import Entry, entries_below, pair
from nfbmr.data.names import joined, means_defective, means_good
from nfbmr.data.samples import GOOD, Sample, Unused

_RESERVED = frozenset({"ground_truth", "masks", "mask", "label"})


@dataclass(frozen=True)
class Reading:
    """What a folder was understood to be.

    Attributes:
        samples: Pictures, with their masks.
        unused: Image files that are neither.
    """

    samples: Sequence[Sample]
    unused: Sequence[Unused] = ()


def read_sides(root: Path) -> Reading:
    """A folder whose folders are sides of a split: good parts to learn from, and a test side with kinds.

    Pictures straight in ``train`` are good. ``validation`` holds good parts that are held out. Of ``train``
    and ``validation`` nothing but good parts is read.
    """

    def kind_of(entry: Entry) -> str | Unused:
        kind = entry.folders[0] if entry.folders else None
        if entry.side == "private":
            why = "a test set without labels: nfbmr predict scores it"
        elif entry.side is None:
            why = "in no place that the layout uses"
        elif kind is None:
            why = "" if entry.side == "train" else f"straight in {entry.side}: no folder says its kind"
        elif entry.side != "test" and not means_good(kind):
            why = f"defective, in {entry.side}, where good parts alone are read"
        else:
            why = ""
        if why:
            return Unused(entry.path, why)
        return GOOD if kind is None or means_good(kind) else kind

    return _read(root, entries_below(root, sides=True), kind_of)


def read_scenes(root: Path) -> Reading:
    """As :func:`read_sides`, for MVTec AD 2, which photographs a scene in several lights.

    ``test_public/bad/003_regular.png`` and ``003_overexposed.png`` show the same scene: one group. Source:
    https://www.mvtec.com/company/research/datasets/mvtec-ad-2
    """
    reading = read_sides(root)

    def scene(sample: Sample) -> str:
        number = sample.path.stem.partition("_")[0]
        return f"{sample.path.parent.relative_to(root).as_posix()}/{number}"

    return Reading([replace(sample, group=scene(sample)) for sample in reading.samples], reading.unused)


def read_kinds(root: Path) -> Reading:
    """A folder with a folder of good parts and one for each kind of defect; or good parts straight in it.

    A folder that merely says defective (``NG``, ``bad``) and sorts its pictures into named folders has these
    as its kinds.
    """
    entries = entries_below(root)
    pictures = [e for e in entries if not e.is_mask]
    has_good = any(e.folders and means_good(e.folders[0]) for e in pictures)
    sorted_by_kind = {
        top
        for top in {e.folders[0] for e in pictures if e.folders}
        if means_defective(top) and _names_kinds([e for e in pictures if e.folders[:1] == (top,)])
    }

    def kind_of(entry: Entry) -> str | Unused:
        if not entry.folders:
            why = "straight in the folder, where good parts have a folder of their own"
            return Unused(entry.path, why) if has_good else GOOD
        if means_good(entry.folders[0]):
            return GOOD
        return entry.folders[1] if entry.folders[0] in sorted_by_kind else entry.folders[0]

    return _read(root, entries, kind_of)


def read_defects(root: Path) -> list[Sample]:
    """Images of a folder of defective parts: of the kind that their folder is called, with their masks.

    What lies straight in it is of the kind that the folder itself is called; what lies in ``good/`` is said
    to be good. Names are below the folder.
    """

    def kind_of(entry: Entry) -> str | Unused:
        kind = entry.folders[0] if entry.folders else root.resolve().name
        return GOOD if entry.folders and means_good(kind) else kind

    return list(_read(root, entries_below(root), kind_of).samples)


def _names_kinds(entries: Sequence[Entry]) -> bool:
    """Whether each of these pictures lies in a folder with a word for a name, such as scratch; not lot_17."""
    inner = [entry.folders[1:2] for entry in entries]
    return all(names and re.fullmatch(r"[^\W\d]{2,}", joined(names[0])) is not None for names in inner)


def _read(root: Path, entries: Iterable[Entry], kind_of: Callable[[Entry], str | Unused]) -> Reading:
    """Samples of the pictures, by what `kind_of` says of each, and their masks."""
    pictures: list[tuple[Entry, Sample]] = []
    masks: list[Entry] = []
    unused: list[Unused] = []
    for entry in entries:
        if entry.is_mask:
            masks.append(entry)
            continue
        kind = kind_of(entry)
        if isinstance(kind, Unused):
            unused.append(kind)
        else:
            subset = entry.side
            pictures.append((entry, Sample(entry.path, name_below(entry.path, root), kind, subset=subset)))
    paired = pair(pictures, masks)
    samples = [
        sample if sample.is_good else replace(sample, masks=tuple(sorted(paired.masks.get(sample.path, ()))))
        for _, sample in pictures
    ]
    return Reading(samples, [*unused, *paired.unused])


def unused_below(root: Path, samples: Iterable[Sample], used: Iterable[Path] = ()) -> list[Unused]:
    """Image files below a root that are neither samples nor masks, for layouts that know their places.

    Args:
        root: The folder.
        samples: What was read of it.
        used: Further files that have been read.
    """
    known = {*used, *(s.path for s in samples), *(mask for s in samples for mask in s.masks)}
    unused = []
    for file in images_below(root):
        if file not in known:
            folders = file.relative_to(root).parts[:-1]
            is_mask = is_mask_name(file) or any(part.lower() in _RESERVED for part in folders)
            why = "no image of its name" if is_mask else "in no place that the layout uses"
            unused.append(Unused(file, why, is_mask))
    return unused
