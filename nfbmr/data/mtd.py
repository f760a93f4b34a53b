"""Magnetic Tile Defects: ``MT_Free/Imgs/*.jpg``, ``MT_<defect>/Imgs/*.jpg``, each with a mask ``<stem>.png``.

Source: https://github.com/abin24/Magnetic-tile-defect-datasets. Which images show the same tile:

A tile was photographed at up to six exposures, and the six stand apart in the data set under unrelated names
``exp<exposure>_num_<N>``: some in another defect folder, some even in ``MT_Free``. Numbers are unique over
the whole set and were given out in the order of the photographs, so a tile's exposures follow each other at
steps of some ten to a few hundred. Where tiles interleave, or one was photographed again thousands of
numbers later, numbers do not tell; `TILES` lists those tiles, found by comparing the pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from nfbmr.data.files import child, folders, images_below, images_in, name_below
from nfbmr.data.reading import Reading
from nfbmr.data.samples import GOOD, Sample, Unused

_LARGEST_STEP = 1000
_NAME = re.compile(r"exp(\d+)_num_(\d+)\.[^.]*$", re.IGNORECASE)

TILES = (
    "743 855 887 913 933 964 1012",
    "797 824 834 853 889 937 972",
    "3667 3696 3710 3724 3746 3789",
    "3786 3811 3828 3846 3899 3981",
    "5874 5892 5907 5924 5941 5959 13526 13549 13568 13589 13636 13689",
    "6508 6528 6541 6552 6566 6600",
    "6539 6558 6571 6586 6605 6634",
    "8676 9196 10334 10410 10448 10642 10714 10790",
    "36246 36258 36269 36280 36290 36302",
    "37056 37071 37084 37098 37262 37273 37556 37571 37636 37675",
    "37243 37263 37278 37293 37319 37354",
    "53011 53025 53038 53049 53060 53080 65001 65017 65031 65043 65054 65067",
    "54107 54126 54145 54165 54191 54271",
    "54246 54273 54291 54308 54331 54366",
    "85602 85642 85665 85781 85846 85897 85998 86031 86064 86828 86854 86892 88149 88170 88201",
    "108719 108741 108757 108774 108791 108812 108889 108923",
    "116934 116961 116981 116999 117030 117060",
    "116949 116971 116991 117012 117033 117068",
    "262480 262572 262601 262626 262654 262705",
    "262642 262661 262674 262687 262702 262733",
    "304290 304305 304317 304328 304345 304361",
    "304293 304307 304319 304330 304340 304352",
    "306586 306609 306622 306634 306654 306696 309352 309366 309379 309390 309407 309443",
    "317483 317512 317526 317540 317558 317592",
    "317560 317576 317588 317600 317612 317640",
    "320808 320822 320833 320843 320853 320864 320895",
    "355636 355658 355669 355680 355692 355732 358102 358116 358127 358138 358149 358179",
)
"""A line a tile: the numbers of those that interleave with others, or were photographed or filed twice."""

_TILE_OF = {int(number): f"tile-{line.split()[0]}" for line in TILES for number in line.split()}


@dataclass
class _Chain:
    """Photographs taken for one tile, in order of their numbers."""

    names: list[str] = field(default_factory=list)
    first: int = 0
    exposure: int = 0
    last: int = 0


def is_mtd(folder: Path) -> bool:
    """Whether a folder holds Magnetic Tile Defects: by what is in folders ``MT_...``, not by a name alone.

    Anybody may call a part MT_2041; these folders hold ``Imgs``, or files named as the photographs are.
    """
    return any(
        child(kind, "imgs").is_dir() or any(_NAME.search(file.name) for file in images_in(kind))
        for kind in _kinds(folder)
    )


def _kinds(root: Path) -> list[Path]:
    return [folder for folder in folders(root) if folder.name.upper().startswith("MT_")]


def read_mtd(root: Path) -> Reading:
    """All tiles, each image in the group of its tile. The blank masks of good tiles count as used."""
    samples, unused = [], []
    for folder in _kinds(root):
        kind = folder.name[len("MT_") :].lower()
        files = list(images_below(folder))
        masks = {f.with_suffix(""): f for f in files if f.suffix.lower() == ".png"}
        for file in files:
            if file.suffix.lower() != ".png":
                is_good = kind == "free"
                mask = masks.pop(file.with_suffix(""), None)
                shown = () if is_good or mask is None else (mask,)
                samples.append(Sample(file, name_below(file, root), GOOD if is_good else kind, shown))
        unused += [Unused(mask, "no image of its name", is_mask=True) for mask in masks.values()]
    known = {*(s.path for s in samples), *(u.path for u in unused)}
    groups = tile_groups(s.name for s in samples)
    elsewhere = [
        file
        for file in images_below(root)
        if file not in known and not file.relative_to(root).parts[0].upper().startswith("MT_")
    ]
    unused += [Unused(file, "in no place that the layout uses") for file in elsewhere]
    return Reading([replace(sample, group=groups[sample.name]) for sample in samples], unused)


def tile_groups(names: Iterable[str]) -> dict[str, str]:
    """Group image names by tile; where in doubt, two tiles become one group rather than one tile two.

    The tiles in `TILES` are known. Of the others, in order of N, a photograph continues the open chain whose
    last exposure is the nearest below its own (of several, the one that has waited longest) and whose last
    number is less than `LARGEST_STEP` back; otherwise it starts a chain. Chains whose intervals of numbers
    overlap are then merged: there the assignment is a guess, and a twin on the other side of a split costs
    more than a group that is too large. In the whole data set no guess is left: its 1344 images show 217
    tiles, 202 of them six times, and the pictures agree.

    Args:
        names: File names or relative paths; those that are not ``exp<e>_num_<N>`` stand alone.

    Returns:
        The group of each name: ``tile-<lowest N>``, or the name itself.

    Example:
        >>> tile_groups(["a/exp1_num_10.jpg", "b/exp2_num_40.jpg", "a/exp1_num_9000.jpg"])
        {'a/exp1_num_10.jpg': 'tile-10', 'b/exp2_num_40.jpg': 'tile-10', 'a/exp1_num_9000.jpg': 'tile-9000'}
    """
    names = list(names)
    groups: dict[str, str] = {}
    guessed: list[tuple[int, int, str]] = []
    for name in names:
        match = _NAME.search(name)
        if match is None:
            groups[name] = name
        elif (number := int(match[2])) in _TILE_OF:
            groups[name] = _TILE_OF[number]
        else:
            guessed.append((number, int(match[1]), name))
    first, end = 0, -1
    for chain in sorted(_chains(sorted(guessed)), key=lambda c: c.first):
        if chain.first > end:
            first = chain.first
        end = max(end, chain.last)
        groups.update(dict.fromkeys(chain.names, f"tile-{first}"))
    return {name: groups[name] for name in names}


def _chains(numbered: list[tuple[int, int, str]]) -> list[_Chain]:
    """Chains of rising exposure, from (number, exposure, name) in order of number."""
    chains: list[_Chain] = []
    for number, exposure, name in numbered:
        candidates = [c for c in chains if c.exposure < exposure and number - c.last < _LARGEST_STEP]
        chain = min(candidates, key=lambda c: (exposure - c.exposure, c.last), default=None)
        if chain is None:
            chain = _Chain(first=number)
            chains.append(chain)
        chain.names.append(name)
        chain.exposure, chain.last = exposure, number
    return chains
