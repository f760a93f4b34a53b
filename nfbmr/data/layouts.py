"""Folders of images as data sets: MVTec AD, DAGM 2007, Magnetic Tile Defects, and a folder of one's own.

::

    mvtec    [<category>/] train/good, test/good, test/<defect>, ground_truth/<defect>/<stem>_mask.png
    dagm     [Class<k>/] Train, Test, in each Label/Labels.txt and Label/<stem>_label.PNG
    mtd      MT_Free/Imgs/*.jpg, MT_<defect>/Imgs/*.jpg, each with a mask <stem>.png beside it
    folder   good/ and a folder a kind of defect; or normals straight in the folder. Masks, if any:
             ground_truth/<defect>/<stem>_mask.png, masks/[<defect>/]<stem>[_mask].png,
             or <stem>_mask.png beside the image

Nothing is decoded here: a layout reads names, and :mod:`nfbmr.data.inspect` reads pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from nfbmr.data.files import (
    IMAGE_SUFFIXES,
    by_stem,
    child,
    existing_folder,
    folders,
    images_below,
    images_in,
    is_image,
    is_mask_name,
    name_below,
)
from nfbmr.data.mtd import tile_groups
from nfbmr.data.samples import GOOD, Dataset, Sample
from nfbmr.errors import DataError
from nfbmr.fields import suggestion

LAYOUTS = ("mvtec", "dagm", "mtd", "folder")
GOOD_FOLDERS = frozenset({GOOD, "ok", "normal", "normals"})
MASK_FOLDERS = frozenset({"ground_truth", "masks", "mask", "label"})
_DAGM_CLASS = re.compile(r"class\s*\d+$", re.IGNORECASE)


def load_dataset(
    path: str | Path, *, layout: str = "auto", category: str | None = None, group_by: str | None = None
) -> Dataset:
    """Read a folder of images, without opening one.

    Args:
        path: The folder; for mvtec and dagm the one holding the categories, or a single category's.
        layout: One of `LAYOUTS`, or ``"auto"``.
        category: MVTec category or DAGM class, needed where the folder holds several.
        group_by: Regular expression searched for in the path below the folder; its first group names the part
            photographed. Replaces the groups that the layout knows by itself.

    Returns:
        The data set, its samples sorted by name.

    Raises:
        DataError: The folder is missing, is a file, holds no images or no normal ones, the category does not
            exist or is not named, or `group_by` does not match every image.
    """
    path = existing_folder(Path(path))
    if layout == "auto":
        layout = detect_layout(path)
    elif layout not in LAYOUTS:
        raise DataError(f"no such layout {layout!r}", where=path, fix=f"use one of {', '.join(LAYOUTS)}")
    if layout in _CATEGORY_TEST:
        root = _category_folder(path, layout, category)
        name = f"{layout}/{root.resolve().name}"
    elif category is not None:
        raise DataError(
            f"the layout {layout} has no categories, but {category!r} was asked for",
            where=path,
            fix="leave the category out, or point at the folder that holds it",
        )
    else:
        root, name = path, "mtd" if layout == "mtd" else path.resolve().name
    samples = sorted(_READERS[layout](root), key=lambda s: s.name)
    if not samples:
        raise DataError(
            f"no images in a folder read as {layout}",
            where=root,
            fix=f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}; 'nfbmr data --help' shows the layouts",
        )
    if not any(s.is_good and s.subset != "test" for s in samples):
        raise _no_normals(root, layout, samples)
    if group_by is not None:
        samples = _group_by(samples, group_by, root)
    return Dataset(name, layout, root, tuple(samples))


def detect_layout(path: str | Path) -> str:
    """The layout that a folder's names suggest; ``"folder"`` where none of the known ones fits.

    Raises:
        DataError: The path is missing or not a folder.
    """
    path = existing_folder(Path(path))
    if any(_is_mtd(inner) for inner in folders(path)):
        return "mtd"
    for layout, is_category in _CATEGORY_TEST.items():
        if is_category(path) or any(is_category(inner) for inner in folders(path)):
            return layout
    return "folder"


def categories(path: str | Path) -> tuple[str, ...]:
    """Categories (MVTec) or classes (DAGM) that a folder holds; none where it is one, or laid out otherwise.

    Raises:
        DataError: The path is missing or not a folder.
    """
    path = existing_folder(Path(path))
    layout = detect_layout(path)
    return () if layout not in _CATEGORY_TEST else _categories(path, layout)


def unused_files(dataset: Dataset) -> tuple[tuple[Path, bool], ...]:
    """Image files below the root that are no sample and no sample's mask, and whether each looks like a mask.

    The masks of good parts, which are blank, count as used.
    """
    used = {s.path for s in dataset.samples} | {s.mask for s in dataset.samples if s.mask}
    stems = {s.path.with_suffix("") for s in dataset.samples}
    unused = []
    for file in images_below(dataset.root):
        if file in used:
            continue
        if dataset.layout == "mtd":
            is_mask = file.suffix.lower() == ".png"
            if is_mask and file.with_suffix("") in stems:
                continue
        else:
            below = file.relative_to(dataset.root).parts[:-1]
            is_mask = any(part.lower() in MASK_FOLDERS for part in below) or is_mask_name(file)
        unused.append((file, is_mask))
    return tuple(unused)


# -- the four layouts ----------------------------------------------------------------------------------


def _read_mvtec(root: Path) -> Iterator[Sample]:
    truth = child(root, "ground_truth")
    for subset in ("train", "test"):
        for kind in folders(child(root, subset)):
            if subset == "train" and kind.name.lower() != GOOD:
                continue
            defect = GOOD if kind.name.lower() == GOOD else kind.name
            masks = by_stem(child(truth, kind.name)) if defect != GOOD else {}
            for file in images_below(kind):
                mask = masks.get(f"{file.stem}_mask", masks.get(file.stem))
                yield Sample(file, name_below(file, root), defect, mask, subset=subset)


def _read_dagm(root: Path) -> Iterator[Sample]:
    for subset in ("train", "test"):
        folder = child(root, subset)
        label = child(folder, "label")
        masks = by_stem(label)
        listed = _dagm_labels(label)
        for file in images_in(folder):
            mask = masks.get(f"{file.stem}_label")
            defective = listed.get(file.name.lower(), mask is not None)
            yield Sample(
                file,
                name_below(file, root),
                "defect" if defective else GOOD,
                mask if defective else None,
                subset=subset,
            )


def _dagm_labels(label: Path) -> dict[str, bool]:
    """Whether each image is defective, by lower-case file name, as far as ``Labels.txt`` says so.

    A line is ``<index> <0 or 1> <image> <0 or 1> <mask or 0>``; the first line holds a lone 1.
    """
    file = child(label, "labels.txt")
    try:
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    except OSError:
        return {}
    listed = {}
    for fields in map(str.split, text.splitlines()):
        files = [f for f in fields if is_image(Path(f))]
        if files:
            listed[files[0].lower()] = len(files) > 1 or (len(fields) > 1 and fields[1] == "1")
    return listed


def _read_mtd(root: Path) -> Iterator[Sample]:
    samples = []
    for folder in filter(_is_mtd, folders(root)):
        kind = folder.name[len("MT_") :].lower()
        files = list(images_below(folder))
        masks = {f.with_suffix(""): f for f in files if f.suffix.lower() == ".png"}
        for file in files:
            if file.suffix.lower() != ".png":
                is_good = kind == "free"
                mask = None if is_good else masks.get(file.with_suffix(""))
                samples.append(Sample(file, name_below(file, root), GOOD if is_good else kind, mask))
    groups = tile_groups(s.name for s in samples)
    for sample in samples:
        yield replace(sample, group=groups[sample.name])


def _read_folder(root: Path) -> Iterator[Sample]:
    truth, masks = child(root, "ground_truth"), child(root, "masks")
    kinds = [f for f in folders(root) if f.name.lower() not in MASK_FOLDERS]
    has_good = any(f.name.lower() in GOOD_FOLDERS for f in kinds)
    if not has_good:
        for file in images_in(root):
            if not is_mask_name(file):
                yield Sample(file, name_below(file, root))
    for kind in kinds:
        defect = GOOD if kind.name.lower() in GOOD_FOLDERS else kind.name
        places = [by_stem(folder) for folder in (child(truth, kind.name), child(masks, kind.name), masks)]
        files = list(images_below(kind))
        beside = {f.with_suffix(""): f for f in files if is_mask_name(f)}
        for file in files:
            if is_mask_name(file):
                continue
            found = beside.get(file.with_name(f"{file.stem}_mask"))
            for place in places:
                found = found or place.get(f"{file.stem}_mask") or place.get(file.stem)
            yield Sample(file, name_below(file, root), defect, None if defect == GOOD else found)


_READERS: dict[str, Callable[[Path], Iterable[Sample]]] = {
    "mvtec": _read_mvtec,
    "dagm": _read_dagm,
    "mtd": _read_mtd,
    "folder": _read_folder,
}


# -- which folder is what ------------------------------------------------------------------------------


def _is_mtd(folder: Path) -> bool:
    return folder.name.upper().startswith("MT_")


def _is_mvtec_category(folder: Path) -> bool:
    return any(f.name.lower() == GOOD for f in folders(child(folder, "train")))


def _is_dagm_class(folder: Path) -> bool:
    sides = [child(folder, "train"), child(folder, "test")]
    labelled = any(child(side, "label").is_dir() for side in sides)
    named = bool(_DAGM_CLASS.match(folder.name)) and all(side.is_dir() for side in sides)
    return (labelled or named) and not _is_mvtec_category(folder)


_CATEGORY_TEST: dict[str, Callable[[Path], bool]] = {"mvtec": _is_mvtec_category, "dagm": _is_dagm_class}


def _categories(path: Path, layout: str) -> tuple[str, ...]:
    is_category = _CATEGORY_TEST[layout]
    if is_category(path):
        return ()
    names = (f.name for f in folders(path) if is_category(f))
    return tuple(sorted(names, key=lambda n: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", n)]))


def _category_folder(path: Path, layout: str, category: str | None) -> Path:
    """The folder of one category, below `path` or `path` itself."""
    if _CATEGORY_TEST[layout](path):
        own = path.resolve().name
        if category is not None and category.lower() != own.lower():
            raise DataError(
                f"the folder is the category {own!r}, but {category!r} was asked for",
                where=path,
                fix="leave the category out, or point at the folder above",
            )
        return path
    known = _categories(path, layout)
    if not known:
        wanted = "train/good" if layout == "mvtec" else "Class<k>/Train and Class<k>/Test"
        raise DataError(
            f"not laid out as {layout}: no {wanted}",
            where=path,
            fix=f"leave the layout out: this looks like {detect_layout(path)!r}",
        )
    if category is None:
        if len(known) == 1:
            return path / known[0]
        raise DataError(
            f"the folder holds {len(known)} categories and none is named",
            where=path,
            fix=f"name one with --category (data.category): {', '.join(known)}",
        )
    by_lower = {k.lower(): k for k in known}
    if category.lower() in by_lower:
        return path / by_lower[category.lower()]
    hint = suggestion(category, known)
    raise DataError(
        f"no category {category!r}", where=path, fix=f"{hint} there are: {', '.join(known)}".lstrip()
    )


def _no_normals(root: Path, layout: str, samples: list[Sample]) -> DataError:
    kinds = ", ".join(sorted({s.defect for s in samples}))
    mend = {
        "mvtec": "put images of normal parts into train/good",
        "dagm": "Train needs images that Labels.txt does not call defective",
        "mtd": "put images of normal tiles into MT_Free/Imgs",
        "folder": "put images of normal parts into good/, or point at the folder that holds them",
    }[layout]
    return DataError(f"no normal images to learn from (only: {kinds})", where=root, fix=mend)


def _group_by(samples: list[Sample], pattern: str, root: Path) -> list[Sample]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise DataError(f"group_by is not a regular expression ({error})", where=pattern) from error
    if regex.groups < 1:
        raise DataError(
            "group_by has no group",
            where=pattern,
            fix="put what names the part in parentheses: 'part(\\d+)_'",
        )
    matches = [(s, regex.search(s.name)) for s in samples]
    missed = [s.name for s, m in matches if m is None or m[1] is None]
    if missed:
        raise DataError(
            f"group_by {pattern!r} names no part for {len(missed)} of {len(samples)} images: {missed[0]!r}",
            where=root,
            fix="widen the expression; it is searched for in the path below this folder",
        )
    return [replace(s, group=m[1]) for s, m in matches if m]
