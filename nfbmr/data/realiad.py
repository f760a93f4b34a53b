"""Real-IAD: ``<category>/OK/S0001/*.jpg``, ``<category>/NG/<kind>/S0001/*.jpg`` with ``*.png``, JSON splits.

Five cameras look at each part, so the images of one folder ``S0001`` are one group. A camera that does not
see the defect of a part has an image in ``NG`` without a mask; the published files call it OK.

::

    realiad_1024/<category>/...      (or 512, 256, raw; or the categories themselves)
    realiad_jsons/[realiad_jsons/]<category>.json    (also ``_sv``: one camera; ``_fuiad_0.4``: noisy)

    {"meta": {"normal_class": "OK", "prefix": "audiojack/"},
     "train": [{"category": "audiojack", "anomaly_class": "OK", "image_path": "OK/S0001/....jpg",
                "mask_path": null}], "test": [...]}

Sources: https://realiad4ad.github.io/Real-IAD/, https://huggingface.co/datasets/Real-IAD/Real-IAD. Of
several JSON files, the one for all cameras is read.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nfbmr.data.files import folders, name_below
from nfbmr.data.names import joined
from nfbmr.data.reading import Reading, read_kinds, unused_below
from nfbmr.data.samples import GOOD, Sample
from nfbmr.errors import DataError

_PART = re.compile(r"S\d+$", re.IGNORECASE)
_RESOLUTIONS = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw")
_SPLITS = ("realiad_jsons/{}.json", "realiad_jsons/realiad_jsons/{}.json")


def is_realiad_category(folder: Path) -> bool:
    """Whether a folder is one category: its folder OK holds parts S0001, S0002, ..."""
    return any(
        _PART.match(part.name) for ok in folders(folder) if joined(ok.name) == "ok" for part in folders(ok)
    )


def images_root(folder: Path) -> Path:
    """The folder of the categories, where `folder` is the one that holds several resolutions."""
    inner = {f.name.lower(): f for f in folders(folder)}
    return next((inner[name] for name in _RESOLUTIONS if name in inner), folder)


def read_realiad(root: Path) -> Reading:
    """One category, split by its JSON file where there is one; else by parts.

    Raises:
        DataError: The JSON file is none, or names files that do not exist.
    """
    split = _split_file(root)
    if split is None:
        return _read_folders(root)
    samples = list(_listed(split, root))
    return Reading(samples, unused_below(root, samples))


def _split_file(root: Path) -> Path | None:
    here = root.resolve()
    for above in here.parents[:2]:
        for place in _SPLITS:
            file = above / place.format(here.name)
            if file.is_file():
                return file
    return None


def _read_folders(root: Path) -> Reading:
    """By folders: a part is good, or of its kind; of a defective part, views without a mask show nothing."""
    reading = read_kinds(root)
    samples = [replace(s, group=s.path.parent.relative_to(root).as_posix()) for s in reading.samples]
    masked: dict[str | None, bool] = defaultdict(bool)
    for sample in samples:
        masked[sample.group] |= bool(sample.masks)
    return Reading(
        [replace(s, defect=GOOD) if masked[s.group] and not s.masks else s for s in samples], reading.unused
    )


def _listed(file: Path, root: Path) -> Iterator[Sample]:
    missing = []
    for side, row in _rows(file):
        path = _below(root, row.get("image_path"), file)
        if not path.is_file():
            missing.append(path.name)
            continue
        kind = str(row.get("anomaly_class"))
        masks = (_below(root, row["mask_path"], file),) if row.get("mask_path") else ()
        is_good = joined(kind) == "ok"
        yield Sample(
            path,
            name_below(path, root),
            GOOD if is_good else kind,
            () if is_good else masks,
            group=path.parent.relative_to(root).as_posix(),
            subset=side,
        )
    if missing:
        raise DataError(
            f"{len(missing)} images of the split file do not exist, such as {missing[0]}",
            where=file,
            fix="unpack the category's archive again, or move the file away to split by parts",
        )


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        for side in ("train", "test"):
            for row in listed[side]:
                yield side, dict(row)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a split file of Real-IAD ({type(error).__name__}: {error})",
            where=file,
            fix="copy it again from the archive of JSON files",
        ) from error


def _below(root: Path, name: object, file: Path) -> Path:
    """The file that a row names, below the category's folder; some releases begin with its name."""
    parts = Path(str(name)).parts
    if parts[:1] == (root.resolve().name,):
        parts = parts[1:]
    if not parts or ".." in parts or Path(str(name)).is_absolute():
        raise DataError(f"{name!r} is no path below the category", where=file, fix="copy the file again")
    return root.joinpath(*parts)
