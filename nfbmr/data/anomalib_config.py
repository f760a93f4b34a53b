"""anomalib's data configurations: the arguments of its ``Folder``, and of its modules for known data sets.

::

    data:                          # or the next two keys alone; or `dataset:`, as before 1.0
      class_path: anomalib.data.Folder
      init_args:
        name: bolts
        root: datasets/bolts
        normal_dir: good           # a folder or several
        abnormal_dir: [crack, dent]
        normal_test_dir: test/good
        mask_dir: mask/crack
        extensions: [.png]

Modules such as ``MVTecAD``, ``Visa`` or ``BTech`` say `root` and `category`. What these files say of splits,
batches and augmentations is not read: ``data.split`` and ``data.test_fraction`` say it here. With a
`normal_test_dir` the split is the files' own. A relative `root` starts at the working directory, as with
anomalib, or else beside the file. Source: anomalib/data/datamodules/image/folder.py of anomalib 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nfbmr.data.files import existing_folder, images_below
from nfbmr.data.masks import Entry, masks_beside, pair
from nfbmr.data.samples import GOOD, Dataset, Sample
from nfbmr.errors import DataError
from nfbmr.yaml_text import YamlError, parse

_FOLDER = "folder"
_OLD_NAMES = {"path": "root", "mask": "mask_dir", "mask_path": "mask_dir"}
_KNOWN = ("mvtec", "mvtecad", "mvtecad2", "mvtecloco", "visa", "btech", "kolektor", "realiad", "mpdd")


def read_anomalib(file: Path, category: str | None, load: Callable[..., Dataset]) -> Dataset:
    """Read the data set that a configuration of anomalib's names.

    Args:
        file: YAML: a whole configuration, or the part of its data module.
        category: Instead of the file's own.
        load: Reads a folder of a known layout: :func:`nfbmr.data.layouts.load_dataset`.

    Raises:
        DataError: It is none, asks for a module that is not read here, or its folders do not exist.
    """
    module, arguments = _module(file)
    given = arguments.get("root")
    root = Path(str(given)) if given is not None else file.parent
    # From the working directory, or else from beside the file.
    root = existing_folder(root if root.is_dir() or root.is_absolute() else file.parent / root)
    if module != _FOLDER:
        return load(root, category=category or arguments.get("category"))
    if category is not None:
        raise DataError(
            f"anomalib's Folder has no categories, but {category!r} was asked for",
            where=file,
            fix="leave the category out",
        )
    pictures, masks = _pictures(arguments, root, file)
    masks += _masks(arguments, root, pictures)
    paired = pair([(e, s) for e, s in pictures if not s.is_good], masks)
    samples = [replace(s, masks=tuple(sorted(paired.masks.get(s.path, ())))) for _, s in pictures]
    if not any(s.is_good and s.subset != "test" for s in samples):
        raise DataError("no images in normal_dir", where=file, fix="name the folder of normal parts")
    left = sorted(paired.unused, key=lambda u: u.path)
    ordered = tuple(sorted(samples, key=lambda s: s.name))
    return Dataset(str(arguments.get("name") or root.resolve().name), "anomalib", file, ordered, tuple(left))


def _module(file: Path) -> tuple[str, dict[str, Any]]:
    """The data module's name in small letters, and its arguments by anomalib's present names."""
    try:
        whole = parse(file.read_text(encoding="utf-8-sig")).value
    except (OSError, UnicodeError, YamlError) as error:
        raise DataError(f"cannot be read ({error})", where=file, fix="give a YAML file") from error
    said = whole if isinstance(whole, Mapping) else {}
    said = next((said[key] for key in ("data", "dataset") if isinstance(said.get(key), Mapping)), said)
    name = str(said.get("class_path") or said.get("format") or "").rpartition(".")[2].lower()
    given = said.get("init_args") if isinstance(said.get("init_args"), Mapping) else said
    arguments = {_OLD_NAMES.get(str(key), str(key)): value for key, value in dict(given or {}).items()}
    if name not in (_FOLDER, *_KNOWN):
        raise DataError(
            f"anomalib's data module {name!r} is not read here" if name else "no data module of anomalib's",
            where=file,
            fix="give a configuration with class_path anomalib.data.Folder, or a folder, or a manifest",
        )
    return name, arguments


def _folders(value: Any, root: Path) -> list[Path]:
    """The folders that an argument names: none, one or several."""
    names = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [existing_folder(root / str(name)) for name in names if name is not None]


def _pictures(
    arguments: Mapping[str, Any], root: Path, file: Path
) -> tuple[list[tuple[Entry, Sample]], list[Entry]]:
    """Pictures of the three kinds of folders, and masks that lie among the defective ones."""
    endings = {str(e).lower() for e in arguments.get("extensions") or ()}
    tested = arguments.get("normal_test_dir") is not None
    sides: tuple[tuple[str, str | None], ...] = (
        ("normal_dir", "train" if tested else None),
        ("normal_test_dir", "test"),
        ("abnormal_dir", "test" if tested else None),
    )
    if arguments.get("normal_dir") is None:
        raise DataError("no normal_dir", where=file, fix="name the folder of normal parts")
    pictures: list[tuple[Entry, Sample]] = []
    masks: list[Entry] = []
    seen: set[Path] = set()
    for argument, side in sides:
        for folder in _folders(arguments.get(argument), root):
            kind = folder.resolve().name if argument == "abnormal_dir" else GOOD
            for path, is_mask in _looked(folder):
                if path in seen or (endings and path.suffix.lower() not in endings):
                    continue
                seen.add(path)
                entry = Entry(path, (kind,), side, is_mask)
                if is_mask:
                    masks += [] if kind == GOOD else [entry]
                else:
                    below = path.relative_to(root) if path.is_relative_to(root) else path
                    pictures.append((entry, Sample(path, below.as_posix(), kind, subset=side)))
    return pictures, masks


def _looked(folder: Path) -> Iterator[tuple[Path, bool]]:
    files = list(images_below(folder))
    for inner in dict.fromkeys(file.parent for file in files):
        here = [file for file in files if file.parent == inner]
        masks = masks_beside(here)
        yield from ((file, file in masks) for file in here)


def _masks(
    arguments: Mapping[str, Any], root: Path, pictures: Sequence[tuple[Entry, Sample]]
) -> Iterator[Entry]:
    """Masks of all mask folders; a folder called like a kind holds the masks of that kind."""
    kinds = {sample.defect for _, sample in pictures}
    for folder in _folders(arguments.get("mask_dir"), root):
        for path in images_below(folder):
            named = (folder.name, *path.relative_to(folder).parts[:-1])
            yield Entry(path, tuple(name for name in named if name in kinds), None, is_mask=True)
