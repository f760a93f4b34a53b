"""Names of image files: what is one, what is below a folder. Nothing is opened here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from nfbmr.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
"""Endings of files that are taken for images, in small letters."""
VIDEO_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
"""Endings of files that are taken for videos, in small letters."""
LOSSY = frozenset({".jpg", ".jpeg", ".webp"})
"""Endings of formats that may change pixels when they are written."""


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image; hidden files (``._photo.jpg``) are not.

    Example:
        >>> is_image(Path("part 1.JPG")), is_image(Path("._part 1.jpg")), is_image(Path("notes.txt"))
        (True, False, False)
    """
    return is_image_name(path.name)


def is_image_name(name: str) -> bool:
    """:func:`is_image` of a name alone."""
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and f".{ending.lower()}" in IMAGE_SUFFIXES and not name.startswith(".")


def is_mask_name(path: Path) -> bool:
    """Whether a file's name is ``<stem>_mask.png``; masks are lossless, so ``face_mask.jpg`` is a picture."""
    return path.stem.lower().endswith("_mask") and path.suffix.lower() not in LOSSY


def existing_folder(path: Path) -> Path:
    """The path, if it is a folder.

    Raises:
        DataError: It is missing, or not a folder.
    """
    try:
        if path.is_dir():
            return path
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise DataError(f"not a usable path ({error})", where=path, fix="check the path") from error
    if exists:
        raise DataError("a file, not a folder of images", where=path, fix="give the folder that holds it")
    raise DataError(
        "no such folder", where=path, fix="check the path; a relative one starts at the working directory"
    )


def is_file(path: Path) -> bool:
    """Whether a path is a file's; one that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def name_below(file: Path, root: Path) -> str:
    """A file's path below a root, with forward slashes."""
    return file.relative_to(root).as_posix()


def shown_below(file: Path, root: Path) -> str:
    """A file's path below a root, or where it lies elsewhere its whole path; for people."""
    return name_below(file, root) if file.is_relative_to(root) else file.as_posix()


def folders(folder: Path) -> list[Path]:
    """Folders straight inside, sorted, without hidden ones; none where the folder does not exist."""
    return [folder / e.name for e in _entries(folder) if not e.name.startswith(".") and e.is_dir()]


def images_in(folder: Path, *, lost: bool = False) -> list[Path]:
    """Image files straight inside, sorted; none where the folder does not exist.

    Args:
        folder: To look in.
        lost: Whether links to images that are gone are wanted as well; reading one says what is wrong.
    """
    named = [entry for entry in _entries(folder) if is_image_name(entry.name)]
    return [folder / e.name for e in named if e.is_file() or (lost and e.is_symlink() and not e.is_dir())]


def images_below(folder: Path, seen: frozenset[str] = frozenset(), *, lost: bool = False) -> Iterator[Path]:
    """Image files at any depth, as :func:`images_in` finds them; links are followed, never in a circle."""
    real = os.path.realpath(folder)
    if real not in seen:
        yield from images_in(folder, lost=lost)
        for inner in folders(folder):
            yield from images_below(inner, seen | {real}, lost=lost)


def videos_below(folder: Path, seen: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files of videos at any depth, as :func:`images_below` finds images."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    for entry in (folder / inside.name for inside in _entries(folder)):
        if is_video(entry) and not entry.name.startswith(".") and entry.is_file():
            yield entry
    for inner in folders(folder):
        yield from videos_below(inner, seen | {real})


def is_video(source: object) -> bool:
    """Whether this is the name of a video file.

    Example:
        >>> is_video(Path("line/camera.MP4")), is_video(Path("part.png"))
        (True, False)
    """
    return isinstance(source, Path) and source.suffix.lower() in VIDEO_SUFFIXES


def strange_below(folder: Path, seen: frozenset[str] = frozenset()) -> Iterator[tuple[Path, str]]:
    """What no reader of images ever opens, at any depth, and what it is; hidden entries are left alone."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    for entry in (folder / inside.name for inside in _entries(folder)):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if is_image(entry):
                yield entry, "folder named like an image"
            yield from strange_below(entry, seen | {real})
        elif entry.is_symlink() and not entry.exists():
            yield entry, "link that leads nowhere"
        elif entry.exists() and not entry.is_file():
            yield entry, "pipe, socket or device"


def child(folder: Path, name: str) -> Path:
    """The entry of that name, whatever its case; a path that does not exist where there is none."""
    exact = folder / name
    if exact.exists():
        return exact
    return next((folder / e.name for e in _entries(folder) if e.name.lower() == name.lower()), exact)


def by_stem(folder: Path) -> dict[str, Path]:
    """Image files straight inside, by name without ending."""
    return {file.stem: file for file in images_in(folder)}


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name; each knows what it is without another look at the disk."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})", where=folder, fix="check its permissions"
        ) from error
