"""Folders of images as data sets: those of the field by name, a folder of one's own, patterns, manifests.

::

    mvtec     [<category>/] train/good, test/good, test/<defect>, ground_truth/<defect>/<stem>_mask.png;
              also MPDD (mpdd) and MVTec AD as others have copied it
    loco      mvtec with validation/good, and a folder of masks for each image (MVTec LOCO AD)
    ad2       train/good, validation/good, test_public/good|bad|ground_truth/bad (MVTec AD 2); its private
              test sets have no labels
    btad      <01, 02, 03>/train/ok, test/ok, test/ko, ground_truth/ko (BTAD)
    visa, ksdd, ksdd2   nfbmr.data.published
    realiad   nfbmr.data.realiad
    dagm      nfbmr.data.dagm
    mtd       nfbmr.data.mtd
    folder    [<category>/] a folder of good parts (good, OK, normal, ...) and a folder a kind of defect; or
              good parts straight in the folder. Masks lie beside their images or in folders of their own
              (nfbmr.data.masks)
    manifest  a CSV, JSON lines or Parquet file with a row an image (nfbmr.data.manifest)
    anomalib  a YAML file with the arguments of anomalib's data modules (nfbmr.data.anomalib_config)

Layouts read names. Pixels are looked at where names leave doubt whether a file is a mask, and where a blank
mask says that a part is good; everything else of pixels is :mod:`nfbmr.data.inspect`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nfbmr.config import LayoutPatterns
from nfbmr.data.anomalib_config import read_anomalib
from nfbmr.data.category import category_named
from nfbmr.data.dagm import is_dagm_class, read_dagm
from nfbmr.data.files import IMAGE_SUFFIXES, child, existing_folder, folders, images_in, is_file
from nfbmr.data.manifest import manifest_categories, read_manifest
from nfbmr.data.mtd import is_mtd, read_mtd
from nfbmr.data.names import IMAGE_WORDS, MASK_WORDS, SIDES, joined, means_good, sounds_good
from nfbmr.data.patterns import matched_categories, read_patterns
from nfbmr.data.published import is_ksdd, is_ksdd2, is_visa_object, read_ksdd, read_ksdd2, read_visa
from nfbmr.data.reading import Reading, read_kinds, read_scenes, read_sides
from nfbmr.data.realiad import images_root, is_realiad_category, read_realiad
from nfbmr.data.samples import Dataset, Sample
from nfbmr.errors import DataError


def load_dataset(
    path: str | Path,
    *,
    layout: str | LayoutPatterns = "auto",
    category: str | None = None,
    group_by: str | None = None,
) -> Dataset:
    """Read a folder of images, a manifest, or a configuration of anomalib's.

    Args:
        path: The folder, be it the one holding the categories or a single category's; or the file.
        layout: One of `LAYOUTS`, ``"auto"``, or patterns that say it all.
        category: Which one, needed where there are several.
        group_by: Regular expression searched for in the path below the folder; its first group names the part
            photographed. Replaces the groups that the layout knows by itself.

    Returns:
        The data set, its samples sorted by name.

    Raises:
        DataError: The folder is missing, holds no images or no normal ones, the category does not exist or is
            not named, a file is no manifest, or `group_by` does not match every image.
    """
    path = Path(path)
    if isinstance(layout, LayoutPatterns):
        dataset = read_patterns(existing_folder(path), layout, category)
    elif layout in _FILES or (layout == "auto" and is_file(path)):
        dataset = _load_file(path, layout, category)
    else:
        dataset = _load_folder(existing_folder(path), layout, category)
    if group_by is not None:
        samples = _group_by(list(dataset.samples), group_by, dataset.root)
        dataset = replace(dataset, samples=tuple(samples))
    return dataset


def detect_layout(path: str | Path) -> str:
    """The layout that a folder's names suggest; ``"folder"`` where none of the known ones fits.

    Raises:
        DataError: The path is missing, or a file that is neither a manifest nor a YAML file.
    """
    path = Path(path)
    if is_file(path):
        return _layout_of_file(path)
    return _detect(existing_folder(path)).name


def categories(path: str | Path, layout: str | LayoutPatterns = "auto") -> tuple[str, ...]:
    """Categories, classes or objects that a folder or a manifest holds; none where it is one alone.

    Args:
        path: As `load_dataset` takes it.
        layout: Its layout, as in :func:`load_dataset`.

    Raises:
        DataError: The path is missing, or a file that cannot be read.
    """
    path = Path(path)
    if isinstance(layout, LayoutPatterns):
        return matched_categories(existing_folder(path), layout)
    if layout in _FILES or is_file(path):
        if layout == "anomalib" or _layout_of_file(path) == "anomalib":
            return ()
        return manifest_categories(path)
    existing_folder(path)
    known = _BY_NAME.get(layout) or _detect(path)
    return _categories(known.root_of(path), known)


# -- the table of layouts


@dataclass(frozen=True)
class _Layout:
    """A way to lay out a folder.

    Attributes:
        name: As `load_dataset` takes it.
        fits: Whether a folder is one data set of that kind.
        read: The same folder's samples.
        several: Whether a folder may hold several, a folder each.
        wanted: What a folder must have, for people.
        good: Where images of normal parts belong, for people.
        root_of: The folder of the categories, where they may lie deeper.
    """

    name: str
    fits: Callable[[Path], bool]
    read: Callable[[Path], Reading]
    several: bool
    wanted: str
    good: str
    root_of: Callable[[Path], Path] = lambda path: path


def _has_good(folder: Path) -> bool:
    return any(means_good(inner.name) for inner in folders(folder))


def _is_sided(folder: Path) -> bool:
    """Whether a folder has a side to learn from: good parts in a folder of theirs, or straight in it."""
    sides = {SIDES.get(joined(inner.name)): inner for inner in reversed(folders(folder))}
    if "train" not in sides:
        return False
    if _has_good(sides["train"]):
        return True
    tested = "test" in sides and _has_good(sides["test"])
    return tested and bool(images_in(sides["train"])) and not is_dagm_class(folder)


def _is_loco(folder: Path) -> bool:
    kinds = {f.name.lower() for f in folders(child(folder, "test"))}
    return bool(kinds & {"logical_anomalies", "structural_anomalies"}) and _is_sided(folder)


def _is_ad2(folder: Path) -> bool:
    return child(folder, "test_public").is_dir() and _is_sided(folder)


def _is_btad(folder: Path) -> bool:
    named = re.fullmatch(r"0[123]", folder.resolve().name) is not None
    return (
        named and child(child(folder, "train"), "ok").is_dir() and child(child(folder, "test"), "ko").is_dir()
    )


def _is_of_kinds(folder: Path) -> bool:
    """Whether a folder has one of good parts, itself or in its folder of images."""
    return _has_good(folder) or any(_has_good(f) for f in folders(folder) if joined(f.name) in IMAGE_WORDS)


_GOOD = "put images of normal parts into {}"
_FOLDERS = (
    _Layout("mtd", is_mtd, read_mtd, False, "MT_<kind>/Imgs", "MT_Free/Imgs"),
    _Layout(
        "realiad", is_realiad_category, read_realiad, True, "<category>/OK/S0001", "OK/S0001", images_root
    ),
    _Layout("visa", is_visa_object, read_visa, True, "<object>/Data/Images/Normal", "Data/Images/Normal"),
    _Layout("ksdd", is_ksdd, read_ksdd, False, "kos01/Part0_label.bmp", "the folder: their masks are blank"),
    _Layout("ksdd2", is_ksdd2, read_ksdd2, False, "train/10000_GT.png", "train: their masks are blank"),
    _Layout("ad2", _is_ad2, read_scenes, True, "train/good and test_public", "train/good"),
    _Layout("loco", _is_loco, read_sides, True, "train/good and test/logical_anomalies", "train/good"),
    _Layout("btad", _is_btad, read_sides, True, "01/train/ok and 01/test/ko", "train/ok"),
    _Layout("mvtec", _is_sided, read_sides, True, "train/good", "train/good"),
    _Layout("mpdd", _is_sided, read_sides, True, "train/good", "train/good"),
    _Layout("dagm", is_dagm_class, read_dagm, True, "Class<k>/Train and Class<k>/Test", "Train"),
    _Layout("folder", _is_of_kinds, read_kinds, True, "good", "good/"),
)
_BY_NAME = {layout.name: layout for layout in _FOLDERS}
_FILES = ("manifest", "anomalib")
_FIRST = ("mvtec", "dagm", "mtd", "folder")
LAYOUTS = (*_FIRST, *(name for name in _BY_NAME if name not in _FIRST), *_FILES)
"""Names of all layouts, in the order in which they are tried."""


def _detect(path: Path) -> _Layout:
    for layout in _FOLDERS[:-1]:
        root = layout.root_of(path)
        if layout.fits(root) or (layout.several and any(layout.fits(inner) for inner in folders(root))):
            return layout
    return _BY_NAME["folder"]


# -- folders


def _load_folder(path: Path, name: str, category: str | None) -> Dataset:
    if name != "auto" and name not in _BY_NAME:
        raise DataError(f"no such layout {name!r}", where=path, fix=f"use one of {', '.join(LAYOUTS)}")
    layout = _detect(path) if name == "auto" else _BY_NAME[name]
    several = _categories(layout.root_of(path), layout)
    if layout.several and (layout.name != "folder" or several):
        root = _category_folder(layout.root_of(path), layout, category, several)
    elif category is not None:
        raise DataError(
            f"the layout {layout.name} has no categories, but {category!r} was asked for",
            where=path,
            fix="leave the category out, or point at the folder that holds it",
        )
    else:
        root = path
    reading = layout.read(root)
    samples = tuple(sorted(reading.samples, key=lambda s: s.name))
    if not samples:
        raise DataError(
            f"no images in a folder read as {layout.name}",
            where=root,
            fix=f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}; 'nfbmr data --help' shows the layouts",
        )
    if not any(s.is_good and s.subset != "test" for s in samples):
        raise _no_normals(root, layout, samples)
    unused = tuple(sorted(reading.unused, key=lambda u: u.path))
    which = root.resolve().name if layout.several and (layout.name != "folder" or several) else None
    return Dataset(_name(path, root, layout), layout.name, root, samples, unused, which)


def _name(path: Path, root: Path, layout: _Layout) -> str:
    if not layout.several:
        return layout.name
    if layout.name != "folder":
        return f"{layout.name}/{root.resolve().name}"
    names = (path.resolve().name, root.resolve().name)
    return names[0] if root == path else "/".join(names)


def _categories(path: Path, layout: _Layout) -> tuple[str, ...]:
    """Folders straight below that are data sets each, where the folder itself is none."""
    if not layout.several or layout.fits(path):
        return ()
    names = [f.name for f in folders(path) if layout.fits(f)]
    if layout.name == "folder":
        other_words = MASK_WORDS | IMAGE_WORDS | set(SIDES)
        names = [name for name in names if joined(name) not in other_words and not means_good(name)]
        if len(names) < 2 and images_in(path):
            return ()  # good parts straight in the folder, beside kinds of defects
    return tuple(sorted(names, key=lambda n: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", n)]))


def _category_folder(path: Path, layout: _Layout, category: str | None, known: tuple[str, ...]) -> Path:
    """The folder of one category, below `path` or `path` itself."""
    if layout.fits(path):
        here = path.resolve().name
        if category is not None and category.lower() != here.lower():
            raise DataError(
                f"the folder is the category {here!r}, but {category!r} was asked for",
                where=path,
                fix="leave the category out, or point at the folder above",
            )
        return path
    if not known:
        raise DataError(
            f"not laid out as {layout.name}: no {layout.wanted}",
            where=path,
            fix=f"leave the layout out: this looks like {detect_layout(path)!r}",
        )
    if category is None and len(known) == 1:
        return path / known[0]
    return path / category_named(category, known, path)


def _no_normals(root: Path, layout: _Layout, samples: tuple[Sample, ...]) -> DataError:
    kinds = sorted({s.defect for s in samples if not s.is_good})
    mend = _GOOD.format(layout.good)
    if layout.name == "folder":
        likely = [kind for kind in kinds if sounds_good(kind)]
        if not likely and len(kinds) > 1:
            likely = [max(kinds, key=lambda kind: sum(s.defect == kind for s in samples))]
        if likely:
            mend = f"if {likely[0]!r} holds the good ones, call it good, or say so with data.layout; else "
            mend += _GOOD.format(layout.good)
        mend += ", or point at the folder that holds them"
    return DataError(f"no normal images to learn from (only: {', '.join(kinds)})", where=root, fix=mend)


# -- files


def _layout_of_file(path: Path) -> str:
    from nfbmr.data.manifest_rows import SUFFIXES

    if path.suffix.lower() in SUFFIXES:
        return "manifest"
    if path.suffix.lower() in (".yaml", ".yml"):
        return "anomalib"
    raise DataError(
        "a file, not a folder of images",
        where=path,
        fix=f"give the folder that holds it, or a manifest ({', '.join(SUFFIXES)})",
    )


def _load_file(path: Path, layout: str, category: str | None) -> Dataset:
    if path.exists() and not path.is_file():
        raise DataError(f"a folder, not a file to read as {layout}", where=path, fix="leave the layout out")
    if (layout if layout != "auto" else _layout_of_file(path)) == "manifest":
        return read_manifest(path, category)
    return read_anomalib(path, category, load_dataset)


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
