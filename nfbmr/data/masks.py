"""Which files of a folder are masks, and of which pictures. By names; where these leave doubt, by pixels.

A mask belongs to the picture whose stem it carries (:mod:`nfbmr.data.names`) and whose folders agree with
its own: side, mask and image folders aside, a mask's folders are among its picture's, in the same order.
``bad/masks/7.png``, ``masks/bad/7.png``, ``bad_mask/7.png`` and ``masks/7.png`` are all of ``bad/7.jpg``, and
``ground_truth/bad/7/000.png`` as well. Of several pictures that agree, defective ones go first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from nfbmr.data.files import LOSSY, images_below, is_mask_name
from nfbmr.data.names import (
    IMAGE_WORDS,
    MASK_WORDS,
    SIDES,
    STRONG_MASK_WORDS,
    joined,
    masked_kind,
    stems_meant,
    stems_shown,
    without_mask_word,
)
from nfbmr.data.samples import Sample, Unused
from nfbmr.errors import ImageError

_LOOKED_AT = 6
_MASK_COLOURS = 8
_MASK_EXTREMES = 0.98


@dataclass(frozen=True, slots=True)
class Entry:
    """An image file below a root, and what its names say.

    Attributes:
        path: The file.
        folders: Names of the folders between root and file that say what it shows: without sides, mask
            folders and, where anything else is left, folders that are merely called images.
        side: train, test, validation or private, where sides are looked for; else None.
        is_mask: Whether it is a mask.
        stem: The stem that it goes by, where that is not the file's own.
    """

    path: Path
    folders: tuple[str, ...]
    side: str | None
    is_mask: bool
    stem: str | None = None

    @property
    def place(self) -> tuple[str, ...]:
        """The folders, spelled so that they can be compared."""
        return tuple(map(joined, self.folders))


def entries_below(root: Path, *, sides: bool = False, lost: bool = False) -> list[Entry]:
    """Every image file below a folder, and which of them are masks.

    Args:
        root: Its own name says nothing.
        sides: Whether folders straight below are sides of a split.
        lost: Whether links to images that are gone are wanted as well.

    Raises:
        DataError: A folder cannot be read.
    """
    roles: dict[Path, _Role] = {root: _Role()}
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for file in images_below(root, lost=lost):
        by_folder[file.parent].append(file)
    entries = []
    for folder, files in by_folder.items():
        role = _role(folder, root, roles, sides)
        beside = set() if role.is_mask else masks_beside(files)
        entries += [Entry(file, role.seen, role.side, role.is_mask or file in beside) for file in files]
    return entries


def pictures_below(root: Path, *, lost: bool = False) -> tuple[list[Path], list[Path]]:
    """The image files of a folder that are pictures, and those that are masks; each sorted."""
    entries = entries_below(root, lost=lost)
    pictures = sorted(entry.path for entry in entries if not entry.is_mask)
    return pictures, sorted(entry.path for entry in entries if entry.is_mask)


# -- folders


@dataclass(frozen=True, slots=True)
class _Role:
    """What the folders down to one say; `plain` are those that name something."""

    plain: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    side: str | None = None
    is_mask: bool = False
    depth: int = 0

    @property
    def seen(self) -> tuple[str, ...]:
        return self.plain or ((self.images[-1],) if self.images and not self.is_mask else ())


def _role(folder: Path, root: Path, roles: dict[Path, _Role], sides: bool) -> _Role:
    """What a folder and those above it say; what is settled is kept in `roles`."""
    if folder not in roles:
        above = _role(folder.parent, root, roles, sides)
        roles[folder] = _below(above, folder, sides)
    return roles[folder]


def _below(above: _Role, folder: Path, sides: bool) -> _Role:
    name, depth = joined(folder.name), above.depth + 1
    if sides and above.depth == 0 and name in SIDES:
        return _Role(side=SIDES[name], depth=depth)
    plain, is_mask, images = above.plain, above.is_mask, above.images
    if not is_mask and name in MASK_WORDS:
        # Straight below the root these names have always been reserved; elsewhere pixels have a say.
        is_mask = (name in STRONG_MASK_WORDS and depth == 1) or holds_masks(folder) is not False
        plain = plain if is_mask else (*plain, folder.name)
    elif not is_mask and (kind := masked_kind(folder.name)) is not None and _is_of(folder, kind):
        plain, is_mask = (*plain, kind), True
    elif name in MASK_WORDS:
        pass
    elif name in IMAGE_WORDS:
        images = (*images, folder.name)
    else:
        plain = (*plain, folder.name)
    return _Role(plain, images, above.side, is_mask, depth)


def _is_of(folder: Path, kind: str) -> bool:
    """Whether a folder called like a kind's masks holds them."""
    content = holds_masks(folder)
    if content is None:
        return any(joined(p.name) == kind for p in folder.parent.iterdir() if p.is_dir())
    return content


def holds_masks(folder: Path) -> bool | None:
    """Whether most of some files of a folder look like masks; None where none can be read."""
    files = list(images_below(folder))
    step = max(1, len(files) // _LOOKED_AT)
    seen = [looks_like_mask(file) for file in files[::step][:_LOOKED_AT]]
    answers = [answer for answer in seen if answer is not None]
    return 2 * sum(answers) > len(answers) if answers else None


# -- files


def masks_beside(files: Sequence[Path]) -> set[Path]:
    """Of the image files of one folder, those that are masks.

    ``<stem>_mask`` in a format without loss is one by its name; a file with another mask's name, or with the
    stem of another file, by its pixels.
    """
    stems: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        stems[file.stem.lower()].append(file)
    masks = set()
    for file in files:
        plain = without_mask_word(file.stem)
        if is_mask_name(file):
            masks.add(file)
        elif plain is not None:
            content = looks_like_mask(file)
            if content or (content is None and plain.lower() in stems):
                masks.add(file)
    for same in stems.values():
        if len(same) > 1:
            masks |= _of_same_stem([file for file in same if file not in masks])
    return masks


def _of_same_stem(files: Sequence[Path]) -> set[Path]:
    """Masks among files that differ in their ending alone."""
    if len(files) < 2:
        return set()
    content = {file: looks_like_mask(file) for file in files}
    masks = {file for file in files if content[file]}
    if masks and len(masks) < len(files):
        return masks
    lossless = {f for f in files if f.suffix.lower() not in LOSSY and content[f] is not False}
    return lossless if len(lossless) < len(files) else set()


def looks_like_mask(path: Path) -> bool | None:
    """Whether a file's pixels are those of a mask: few values, or nearly all of them black or white.

    Returns:
        None where the file cannot be read.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return _looks_like_mask(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=65536)
def _looks_like_mask(path: Path, changed: int, size: int) -> bool | None:
    import numpy as np

    from nfbmr.data.images import read_image

    try:
        pixels_HWC = read_image(path)
    except ImageError:
        return None
    step = max(1, max(pixels_HWC.shape[:2]) // 512)
    pixels_NC = pixels_HWC[::step, ::step].reshape(-1, 3)
    codes_N = pixels_NC.astype(np.int32) @ np.array([65536, 256, 1])
    if len(np.unique(codes_N)) <= _MASK_COLOURS:
        return True
    low_N, high_N = pixels_NC.min(axis=1), pixels_NC.max(axis=1)
    return bool(((high_N <= 24) | (low_N >= 231)).mean() >= _MASK_EXTREMES)


# -- pairs


@dataclass
class Paired:
    """Which masks are whose.

    Attributes:
        masks: By the picture's path.
        unused: Masks without a picture, and why.
    """

    masks: dict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    unused: list[Unused] = field(default_factory=list)


def pair(pictures: Iterable[tuple[Entry, Sample]], masks: Iterable[Entry]) -> Paired:
    """Give each mask to its picture; several may be of one.

    Masks of good pictures, which are blank, count as used and say nothing.
    """
    index: dict[str, list[tuple[Entry, Sample]]] = defaultdict(list)
    for entry, sample in pictures:
        for stem in stems_shown(entry.path.stem):
            index[stem].append((entry, sample))
    paired = Paired()
    for mask in masks:
        whose = _whose(mask, index)
        if len(whose) == 1:
            paired.masks[whose[0].path].append(mask.path)
            continue
        why = (
            "no image of its name in a folder that fits its own"
            if not whose
            else "several images have its name"
        )
        paired.unused.append(Unused(mask.path, why, is_mask=True))
    return paired


def _whose(mask: Entry, index: dict[str, list[tuple[Entry, Sample]]]) -> list[Sample]:
    """The pictures that a mask can be of: the best that agree with it."""
    claims = [(stem, mask.place) for stem in stems_meant(mask.stem or mask.path.stem)]  # the likeliest first
    if mask.folders:  # a folder of masks for each picture
        claims.append((mask.folders[-1].lower(), mask.place[:-1]))
    for stem, place in claims:
        agreeing = [
            (sample.is_good, entry.side != mask.side, len(entry.place) - len(place), sample)
            for entry, sample in index.get(stem, ())
            if _among(place, entry.place) and (mask.side or entry.side) == (entry.side or mask.side)
        ]
        if agreeing:
            best = min(ranked[:3] for ranked in agreeing)
            return [sample for *rank, sample in agreeing if tuple(rank) == best]
    return []


def _among(place: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether all of a place's names stand among the others', in the same order."""
    rest = iter(others)
    return all(any(name == other for other in rest) for name in place)
