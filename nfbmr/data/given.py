"""The images that a person or a program hands over: files, what is below folders, images in memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nfbmr.data.decoding import decode_inputs
from nfbmr.data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, videos_below
from nfbmr.data.masks import pictures_below
from nfbmr.data.sources import Source
from nfbmr.errors import DataError, ImageError
from nfbmr.text import count, plural, visible

log = logging.getLogger(__name__)

_MASKS_SHOWN = 3


def images_in(paths: Sequence[Path], *, videos: bool = False) -> list[Path]:
    """The given files, and the images below the given folders, sorted.

    What is a mask in a folder shows no part, and is left out with a warning; a file that is given is taken
    as it is.

    Args:
        paths: Files and folders.
        videos: Whether videos below a folder are wanted as well; they come after its images.

    Raises:
        DataError: A path does not exist, or there is no image at all.
    """
    images, masks = sorted_in(paths, videos=videos)
    if masks:
        shown = ", ".join(visible(repr(mask.as_posix())) for mask in masks[:_MASKS_SHOWN])
        number, are = count(len(masks), "mask"), plural(len(masks), "is", "are")
        log.warning("%s %s left out, such as %s; a file that is given is scored", number, are, shown)
    if not images:
        raise DataError(
            "no images",
            where=", ".join(map(str, paths)),
            fix=f"endings: {' '.join(sorted(IMAGE_SUFFIXES | (VIDEO_SUFFIXES if videos else set())))}",
        )
    return images


def sorted_in(paths: Sequence[Path], *, videos: bool = False) -> tuple[list[Path], list[Path]]:
    """The images that :func:`images_in` gives, and the masks that it leaves out.

    Raises:
        DataError: A path does not exist.
    """
    images: list[Path] = []
    left_out: list[Path] = []
    for path in paths:
        if path.is_dir():
            pictures, masks = pictures_below(path, lost=True)
            images += [*pictures, *sorted(videos_below(path))] if videos else pictures
            left_out += masks
        elif path.exists():
            images.append(path)
        else:
            raise DataError("no such file or folder", where=path, fix="check the path")
    given = dict.fromkeys(images)
    return list(given), [mask for mask in dict.fromkeys(left_out) if mask not in given]


def sources_of(images: Any) -> list[Source | ImageError]:
    """What :func:`predict` is given, image by image; folders are looked through, for videos as well.

    Raises:
        DataError: A path does not exist, or there is no image at all.
        ImageError: Something is not of a type that images have.
    """
    sources = decode_inputs(images)
    paths = [source for source in sources if isinstance(source, Path)]
    if len(paths) == len(sources):
        return [*images_in(paths, videos=True)]
    return [
        inside
        for source in sources
        for inside in (images_in([source], videos=True) if isinstance(source, Path) else [source])
    ]
