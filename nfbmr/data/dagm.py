"""DAGM 2007: ``[Class<k>/] Train, Test``, in each ``Label/Labels.txt`` and ``Label/<stem>_label.PNG``.

Source: the challenge's own archive, https://conferences.mpi-inf.mpg.de/dagm/2007/prizes.html, and its copy at
Zenodo, record 12750201.
"""

from __future__ import annotations

import re
from pathlib import Path

from nfbmr.data.files import by_stem, child, folders, images_in, is_image, name_below
from nfbmr.data.reading import Reading, unused_below
from nfbmr.data.samples import GOOD, Sample

_CLASS = re.compile(r"class\s*\d+$", re.IGNORECASE)


def is_dagm_class(folder: Path) -> bool:
    """Whether a folder is one class: a side with a folder of labels, or both sides and a class's name."""
    sides = [child(folder, "train"), child(folder, "test")]
    labelled = any(_is_label(child(side, "label")) for side in sides)
    named = bool(_CLASS.match(folder.name)) and all(side.is_dir() for side in sides)
    return labelled or (named and not any(folders(side) for side in sides))


def _is_label(folder: Path) -> bool:
    """Whether a folder called Label is DAGM's: it lists labels, or holds masks and nothing else."""
    return folder.is_dir() and (
        child(folder, "labels.txt").exists()
        or all(file.stem.lower().endswith("_label") for file in images_in(folder))
    )


def read_dagm(root: Path) -> Reading:
    """One class; good and defective images on both sides."""
    samples = []
    for subset in ("train", "test"):
        folder = child(root, subset)
        label = child(folder, "label")
        masks = by_stem(label)
        listed = _labels(label)
        for file in images_in(folder):
            mask = masks.get(f"{file.stem}_label")
            defective = listed.get(file.name.lower(), mask is not None)
            samples.append(
                Sample(
                    file,
                    name_below(file, root),
                    "defect" if defective else GOOD,
                    (mask,) if defective and mask is not None else (),
                    subset=subset,
                )
            )
    return Reading(samples, unused_below(root, samples))


def _labels(label: Path) -> dict[str, bool]:
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
