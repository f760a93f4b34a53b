"""What is in a data set, and everything that is wrong with it, in one pass.

Every image and mask is decoded once; nothing stops at the first problem.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from nfbmr.data.files import name_below, shown_below, strange_below
from nfbmr.data.images import file_digest, header_of, read_image, read_mask
from nfbmr.data.notices import notices
from nfbmr.data.samples import Dataset, Sample
from nfbmr.errors import ImageError
from nfbmr.text import count

_KINDS_OF_SIZE_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to mend, or to know.

    Attributes:
        kind: In a few words, the same for every problem of its sort.
        name: Path below the data set's root.
        detail: What exactly.
    """

    kind: str
    name: str
    detail: str = ""


@dataclass(frozen=True)
class Inspection:
    """What an inspection found.

    Attributes:
        name: The data set's name.
        layout: How it is laid out.
        root: Where it is.
        counts: Samples by side (``train``, ``test``; ``all`` where the layout fixes none) and kind of defect.
        masks: Samples with a mask.
        groups: Parts photographed, where the layout or `group_by` tells; else None.
        sizes: Images by (width, height), most frequent first.
        modes: Images by Pillow mode, most frequent first.
        problems: Everything to mend, sorted by kind and name.
        notes: What is unusual without being wrong.
        unused: Image files that count in no number, by name: why, and whether each looks like a mask.
    """

    name: str
    layout: str
    root: Path
    counts: dict[str, dict[str, int]]
    masks: int
    groups: int | None
    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    unused: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Everything, for programs."""
        return {
            "name": self.name,
            "layout": self.layout,
            "root": str(self.root),
            "counts": self.counts,
            "masks": self.masks,
            "groups": self.groups,
            "sizes": [{"width": w, "height": h, "images": n} for (w, h), n in self.sizes.items()],
            "modes": self.modes,
            "problems": [{"kind": p.kind, "name": p.name, "detail": p.detail} for p in self.problems],
            "notes": list(self.notes),
            "unused": [{"name": n, "why": why, "mask": mask} for n, (why, mask) in self.unused.items()],
        }

    def render(self) -> str:
        """Everything, for people."""
        lines = [f"{self.name}: layout {self.layout}, {self.root}", ""]
        wide = max([7, *(len(side) + 1 for side in self.counts)])
        for side, kinds in self.counts.items():
            listed = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
            lines.append(f"  {side:<{wide}}{count(sum(kinds.values()), 'image')}: {listed}")
        modes = ", ".join(f"{n} {mode}" for mode, n in self.modes.items()) or "none read"
        facts = [("masks", f"{self.masks}"), ("sizes", _sizes(self.sizes)), ("modes", modes)]
        if self.groups is not None:
            facts.insert(1, ("groups", f"{self.groups}"))
        facts += [("note", note) for note in self.notes]
        lines += [f"  {name:<{wide}}{fact}" for name, fact in facts]
        if not self.problems:
            return "\n".join([*lines, "", "  no problems found"])
        by_kind: dict[str, list[Problem]] = defaultdict(list)
        for problem in self.problems:
            by_kind[problem.kind].append(problem)
        lines += ["", f"  {count(len(self.problems), 'problem')}"]
        for kind, problems in by_kind.items():
            lines.append(f"  {kind} ({len(problems)})")
            lines += [f"    {p.name!r}" + (f": {p.detail}" if p.detail else "") for p in problems]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Looked:
    """What one look at a sample's files gave."""

    sample: Sample
    size: tuple[int, int] | None
    mode: str | None
    digest: str | None
    problems: tuple[Problem, ...]


def inspect_dataset(dataset: Dataset, *, threads: int | None = None) -> Inspection:
    """Decode every image and mask of a data set and list what is wrong.

    Args:
        dataset: What :func:`nfbmr.data.layouts.load_dataset` read.
        threads: Files decoded at once; nothing means one per core, eight at most.

    Returns:
        Counts, sizes, modes and all problems: unreadable, truncated, empty and absurdly large images, masks
        without an image, of another size or empty, the same content twice, too few normal images, and what is
        no file: links that lead nowhere, pipes, folders named like images.
    """
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), "inspect") as pool:
        looked = list(pool.map(lambda s: _look(s, dataset.root), dataset.samples))
    sizes = Counter(seen.size for seen in looked if seen.size)
    modes = Counter(seen.mode for seen in looked if seen.mode)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in dataset.samples:
        counts[sample.subset or "all"][sample.defect] += 1
    problems = [p for seen in looked for p in seen.problems]
    problems += [*_same_content(looked), *_too_few(dataset)]
    problems += [
        Problem("mask without image", shown_below(unused.path, dataset.root), unused.why)
        for unused in dataset.unused
        if unused.is_mask
    ]
    problems += [Problem(kind, name_below(p, dataset.root)) for p, kind in strange_below(dataset.root)]
    groups = {s.group for s in dataset.samples}
    return Inspection(
        dataset.name,
        dataset.layout,
        dataset.root,
        {side: dict(sorted(kinds.items())) for side, kinds in sorted(counts.items(), reverse=True)},
        sum(bool(s.masks) for s in dataset.samples),
        None if None in groups else len(groups),
        dict(sizes.most_common()),
        dict(modes.most_common()),
        tuple(sorted(problems, key=lambda p: (p.kind, p.name))),
        tuple(_notes(dataset, sizes, modes)),
        {shown_below(u.path, dataset.root): (u.why, u.is_mask) for u in dataset.unused},
    )


def _look(sample: Sample, root: Path) -> _Looked:
    """Read one image and its mask."""
    problems: list[Problem] = []
    size = mode = digest = None
    try:
        digest = file_digest(sample.path)
        height, width = read_image(sample.path).shape[:2]
        size, mode = (width, height), header_of(sample.path).mode
    except ImageError as error:
        problems.append(Problem("unreadable image", sample.name, error.what))
    marked = False
    for file in sample.masks:
        name = shown_below(file, root)
        try:
            mask = read_mask(file)
        except ImageError as error:
            problems.append(Problem("unreadable mask", name, error.what))
            marked = True
        else:
            width_height = (mask.shape[1], mask.shape[0])
            if size is not None and width_height != size:
                detail = f"{width_height[0]} x {width_height[1]}, its image is {size[0]} x {size[1]}"
                problems.append(Problem("mask of another size", name, detail))
            marked |= bool(mask.any())
    if sample.masks and not marked:
        first = shown_below(sample.masks[0], root)
        problems.append(Problem("mask that marks nothing", first, f"of a part with {sample.defect!r}"))
    return _Looked(sample, size, mode, digest, tuple(problems))


def _same_content(looked: Sequence[_Looked]) -> Iterator[Problem]:
    by_digest: dict[str, list[Sample]] = defaultdict(list)
    for seen in looked:
        if seen.digest is not None:
            by_digest[seen.digest].append(seen.sample)
    for first, *others in by_digest.values():
        for other in others:
            detail = f"as {first.name!r}"
            if first.is_good != other.is_good:
                detail += ", though one is good and the other defective"
            elif first.subset != other.subset:
                detail += ", on the other side of the official split"
            yield Problem("same content twice", other.name, detail)


def _too_few(dataset: Dataset) -> Iterator[Problem]:
    good = sum(s.is_good and s.subset != "test" for s in dataset.samples)
    needed = 2 if any(s.subset for s in dataset.samples) else 3
    if good < needed:
        yield Problem(
            "too few normal images", ".", f"{good} to learn from; {needed} are needed to hold some out"
        )


def _notes(dataset: Dataset, sizes: Counter[tuple[int, int]], modes: Counter[str]) -> Iterator[str]:
    if len(sizes) > 1:
        yield f"{len(sizes)} different sizes; each image is resized to the same square"
    if len(modes) > 1:
        yield "images are stored in several modes; all are read as RGB"
    if deep := sum(n for mode, n in modes.items() if mode.endswith(";16") and not mode.startswith("I")):
        yield (
            f"{count(deep, 'image')} with 16 bits a colour: the high bytes alone are read, so those of a "
            "camera with fewer bits are dark; export them with 8 bits a colour, or as 16-bit grey"
        )
    defective = [s for s in dataset.samples if not s.is_good]
    if not defective:
        yield "no defective images: a test can show false alarms only"
    bare = sum(not s.masks for s in defective)
    if 0 < bare < len(defective):
        yield f"defective images without a mask, which pixel metrics leave out: {bare} of {len(defective)}"
    yield from notices(dataset, masks=False)


def _sizes(sizes: dict[tuple[int, int], int]) -> str:
    if not sizes:
        return "none read"
    shown = [f"{n} of {w} x {h}" for (w, h), n in list(sizes.items())[:_KINDS_OF_SIZE_SHOWN]]
    if len(sizes) <= _KINDS_OF_SIZE_SHOWN:
        return ", ".join(shown)
    widths, heights = zip(*sizes, strict=True)
    return f"{len(sizes)} sizes, {min(widths)} to {max(widths)} wide, {min(heights)} to {max(heights)} high"
