"""The embedded demonstration sets: DAGM-like textures and objects with flaws and masks, in MVTec AD's layout.

::

    OUT/<class>/train/good/000.png
    OUT/<class>/test/good/000.png
    OUT/<class>/test/<flaw>/000.png
    OUT/<class>/ground_truth/<flaw>/000_mask.png

Each image has a random generator of its own, seeded by its name: the same seed gives the same bytes however
many threads draw, and a larger set contains the smaller one.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.data.flaws import FLAWS, add_flaw
from nfbmr.data.objects import OBJECTS, draw_object
from nfbmr.data.textures import TEXTURES, photograph, texture
from nfbmr.errors import ConfigError, DataError, OutputError
from nfbmr.fields import suggestion

log = logging.getLogger(__name__)

CLASSES: tuple[str, ...] = (*TEXTURES, *OBJECTS)
"""The classes there are: textures, which are made where none is named, then objects."""

TEXTURE_SIZE = 256
"""Side of a texture's images in pixels, unless another is asked for; an object has a side of its own."""

MARK = ".synthesized.json"
"""File that says a folder was made here, and of what it consists."""


def synthesize(
    out: Path,
    *,
    classes: Sequence[str] = tuple(TEXTURES),
    train: int = 40,
    test_good: int = 15,
    test_defective: int = 20,
    size: int | None = None,
    seed: int = 0,
) -> Path:
    """Make the demonstration set; where it is there already, nothing is done.

    The folder appears whole or not at all. One that was made here with other settings is replaced; one that
    holds anything else is left alone.

    Args:
        out: Folder to make.
        classes: Among :data:`CLASSES`; all textures where not given.
        train: Good images to train on, each class.
        test_good: Good images to test on, each class.
        test_defective: Defective images to test on, each class; kinds of flaw in rotation.
        size: Side of an image in pixels. None is 256 for textures, and 512, 768 or 1024 for objects, see
            :data:`nfbmr.data.objects.OBJECTS`.
        seed: Seed of everything random.

    Returns:
        `out`.

    Raises:
        ConfigError: There is no such class, or a number is too small.
        DataError: The folder holds something else.
        OutputError: It cannot be written.
    """
    _check(classes, train, test_good, test_defective, size, seed)
    sizes = {c: size or (OBJECTS[c].size if c in OBJECTS else TEXTURE_SIZE) for c in classes}
    names = [name for c in sizes for name in _names(c, train, test_good, test_defective)]
    settings = {
        "made_by": "nfbmr data synthesize",
        "version": 1,
        "size": sizes if len(set(sizes.values())) > 1 else sizes[classes[0]],
        "seed": seed,
        "images": names,
    }
    made = _already_made(out)
    if made == settings:
        return out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            folder = Path(scratch) / "new"
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                list(pool.map(lambda name: _make(folder, name, sizes[name.split("/")[0]], seed), names))
            (folder / MARK).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            if made is not None:
                shutil.rmtree(out)
            folder.replace(out)
    except OSError as error:
        raise OutputError(
            f"cannot write ({error.strerror or error})",
            where=out,
            fix="free some space or choose another folder",
        ) from error
    log.info("%d images of %s in %s", len(names), ", ".join(sizes), out)
    return out


def _check(
    classes: Sequence[str], train: int, test_good: int, test_defective: int, size: int | None, seed: int
) -> None:
    for name in classes:
        if name not in CLASSES:
            fix = suggestion(name, CLASSES, f"there are {', '.join(CLASSES)}")
            raise ConfigError("no such class of pictures", where=name, fix=fix)
    least = {"train": (train, 1), "test_good": (test_good, 0), "test_defective": (test_defective, 0)}
    for key, (value, low) in {**least, "size": (size or TEXTURE_SIZE, 32), "seed": (seed, 0)}.items():
        if value < low:
            raise ConfigError(f"{value} is too small", where=key, fix=f"give {low} or more")
    if not classes:
        raise ConfigError("no classes to make", where="classes", fix=f"there are {', '.join(CLASSES)}")


def _names(name: str, train: int, test_good: int, test_defective: int) -> list[str]:
    """The images of a class, relative to the folder; masks go with the defective ones."""
    kinds = OBJECTS[name].flaws if name in OBJECTS else tuple(FLAWS)
    flawed = [(kinds[i % len(kinds)], i // len(kinds)) for i in range(test_defective)]
    return [
        *(f"{name}/train/good/{i:03}.png" for i in range(train)),
        *(f"{name}/test/good/{i:03}.png" for i in range(test_good)),
        *(f"{name}/test/{kind}/{i:03}.png" for kind, i in flawed),
    ]


def _make(root: Path, name: str, size: int, seed: int) -> None:
    """Draw one image, and its mask where it has a flaw."""
    category, _, kind, file = name.split("/")
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    mask: NDArray[np.bool_] | None = None
    if category in OBJECTS:
        pixels, mask = draw_object(category, rng, size, None if kind == "good" else kind)
    else:
        grey = texture(category, rng, size)
        if kind in FLAWS:
            grey, mask = add_flaw(kind, rng, grey, category)
        pixels = photograph(category, grey, rng)
    if mask is not None:
        drawn = root / category / "ground_truth" / kind / file.replace(".png", "_mask.png")
        _save(drawn, mask * np.uint8(255))
    _save(root / name, pixels, 1 if category in OBJECTS else 6)


def _save(path: Path, pixels: NDArray[np.uint8], level: int = 6) -> None:
    """Write a PNG file; at level 1, for noise of a million pixels, in a third of the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG", compress_level=level)


def _already_made(out: Path) -> dict[str, Any] | None:
    """The settings that a folder was made with; None where there is no folder yet, or an empty one.

    Raises:
        DataError: The folder holds something that was not made here.
    """
    try:
        files = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()}
        if not files and (out.is_dir() or not out.exists()):
            return None
        settings: dict[str, Any] = json.loads((out / MARK).read_text(encoding="utf-8"))
        images = set(settings["images"])
    except (OSError, ValueError, KeyError, TypeError):
        images, files = set(), {"something"}
    masks = {n.replace("/test/", "/ground_truth/").replace(".png", "_mask.png") for n in images}
    if files - images - masks - {MARK}:
        raise DataError(
            "the folder holds something that was not synthesized",
            where=out,
            fix="choose a new or an empty folder",
        )
    return settings if files >= images else {}
