r"""A folder read by patterns: where guessing ends, ``data.layout`` says which paths are what.

Patterns are regular expressions, searched for in each path below the folder (forward slashes)::

    data:
      layout:
        good: ^line\d/ok/
        defect: ^line\d/(?P<kind>[^/]+)/
        mask: ^masks/(?P<stem>.+)_gt\.png$

A file that `mask` fits is a mask; else, where `defect` fits, a defective part; else, where `good` fits, a
good one; else it is not used. Of `defect`, the group ``kind``, or else the first, names the kind. The groups
``group``, ``category`` and ``split`` (train, validation, test) are read of both. Of `mask`, the group
``stem``, or else the first, is the end of its picture's path, without ending; without a group masks go to
pictures as in any folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from nfbmr.config import LayoutPatterns
from nfbmr.data.category import category_named
from nfbmr.data.files import images_below, name_below
from nfbmr.data.masks import Entry, pair
from nfbmr.data.names import SIDES, joined, means_good
from nfbmr.data.samples import GOOD, Dataset, Sample, Unused
from nfbmr.errors import DataError


@dataclass(frozen=True)
class _Matched:
    """A picture that a pattern fits."""

    sample: Sample
    category: str | None


def read_patterns(root: Path, layout: LayoutPatterns, category: str | None) -> Dataset:
    """Read a folder by patterns.

    Raises:
        DataError: They fit nothing, no good part, or an unknown category or side.
    """
    pictures, masks, unused = _sorted_out(root, layout)
    name, known = root.resolve().name, _categories(pictures)
    if known and (len(known) > 1 or category is not None):
        chosen = category_named(category, known, root)
        unchosen = [m for m in pictures if m.category != chosen]
        pictures = [m for m in pictures if m.category == chosen]
        name = f"{name}/{chosen}"
    elif category is not None:
        raise DataError(
            f"the patterns name no categories, but {category!r} was asked for",
            where=root,
            fix="leave the category out, or give a pattern a group (?P<category>...)",
        )
    else:
        chosen, unchosen = None, []
    _refuse_without_good(pictures, root, layout)
    matched = [m.sample for m in pictures]
    others = [m.sample for m in unchosen]
    paired = pair(
        [
            (Entry(s.path, s.path.relative_to(root).parts[:-1], s.subset, is_mask=False), s)
            for s in (*matched, *others)
        ],
        _mask_entries(masks, root, layout, [*matched, *others]),
    )
    samples = [
        replace(s, masks=() if s.is_good else tuple(sorted(paired.masks.get(s.path, ())))) for s in matched
    ]
    left = tuple(sorted([*unused, *paired.unused], key=lambda u: u.path))
    return Dataset(name, "patterns", root, tuple(sorted(samples, key=lambda s: s.name)), left, chosen)


def matched_categories(root: Path, layout: LayoutPatterns) -> tuple[str, ...]:
    """Categories that the patterns name, sorted."""
    return _categories(_sorted_out(root, layout)[0])


def _categories(pictures: Iterable[_Matched]) -> tuple[str, ...]:
    return tuple(sorted({m.category for m in pictures if m.category is not None}))


def _sorted_out(root: Path, layout: LayoutPatterns) -> tuple[list[_Matched], list[Path], list[Unused]]:
    """Pictures, masks and the rest, by the first pattern that fits."""
    pictures: list[_Matched] = []
    masks: list[Path] = []
    unused: list[Unused] = []
    for file in images_below(root):
        name = name_below(file, root)
        if layout.mask is not None and re.search(layout.mask, name):
            masks.append(file)
        elif layout.defect is not None and (match := re.search(layout.defect, name)):
            pictures.append(_matched(file, name, match, _kind(match, name, root)))
        elif match := re.search(layout.good, name):
            pictures.append(_matched(file, name, match, GOOD))
        else:
            unused.append(Unused(file, "no pattern of data.layout fits it"))
    return pictures, masks, unused


def _kind(match: re.Match[str], name: str, root: Path) -> str:
    groups = match.groupdict()
    unnamed = match.re.groups > len(groups)
    kind = groups.get("kind") or (match[1] if unnamed else None) or "defect"
    if means_good(kind):
        raise DataError(
            f"data.layout.defect fits {name!r} and calls its kind {kind!r}",
            where=root,
            fix="narrow the pattern, such as (?!ok/)([^/]+)/, or name these with data.layout.good",
        )
    return kind


def _matched(file: Path, name: str, match: re.Match[str], kind: str) -> _Matched:
    groups = match.groupdict()
    side = groups.get("split")
    if side is not None and SIDES.get(joined(side)) not in ("train", "validation", "test"):
        raise DataError(
            f"{side!r} is no side of a split ({name!r})",
            where="data.layout",
            fix="the group split should be train, validation or test",
        )
    subset = None if side is None else SIDES[joined(side)]
    return _Matched(Sample(file, name, kind, (), groups.get("group"), subset), groups.get("category"))


def _refuse_without_good(pictures: list[_Matched], root: Path, layout: LayoutPatterns) -> None:
    if any(m.sample.is_good and m.sample.subset != "test" for m in pictures):
        return
    first = next((name_below(file, root) for file in images_below(root)), None)
    shown = f"; the first path here is {first!r}" if first is not None else "; there are no images"
    raise DataError(
        f"data.layout.good = {layout.good!r} fits no image to learn from{shown}",
        where=root,
        fix="mend the pattern: a regular expression, searched for in the path below the folder",
    )


def _mask_entries(
    masks: Iterable[Path], root: Path, layout: LayoutPatterns, samples: Iterable[Sample]
) -> Iterator[Entry]:
    """Masks with the stem that the pattern reads, or with their own and the folders that pictures share."""
    shared = {joined(part) for s in samples for part in s.path.relative_to(root).parts[:-1]}
    for mask in masks:
        match = re.search(layout.mask or "", name_below(mask, root))
        stem = None if match is None or not match.re.groups else match.groupdict().get("stem") or match[1]
        if stem:
            meant = PurePosixPath(stem)
            yield Entry(mask, meant.parts[:-1], None, is_mask=True, stem=meant.name)
        else:
            folders = mask.relative_to(root).parts[:-1]
            yield Entry(mask, tuple(f for f in folders if joined(f) in shared), None, is_mask=True)
