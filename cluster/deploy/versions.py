"""Versions in the files of this folder, all from pyproject.toml and requirements.lock.

``python cluster/deploy/versions.py`` writes them anew after ``make lock``; with ``--check`` it only says
which files are out of step.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
_ROOT = _FOLDER.parents[1]

PLACES: Mapping[str, tuple[str, ...]] = {
    "nfbmr": (r"(?<=nfbmr:)\d+\.\d+\.\d+[\w.]*",),
    "ray": (r'(?<=rayVersion: ")[^"]+',),
    "python": (r"(?<=FROM python:)\d+\.\d+",),
}
"""How each version is written: patterns that match it and nothing else."""


def versions(root: Path = _ROOT) -> dict[str, str]:
    """What is to be written: the project's own version, Ray's, and the oldest Python that is supported."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (root / "requirements.lock").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", lock, re.MULTILINE))
    oldest = re.search(r">=\s*(\d+\.\d+)", project["requires-python"])
    if oldest is None:
        raise ValueError(f"no oldest version in requires-python = {project['requires-python']!r}")
    return {"nfbmr": project["version"], "ray": pinned["ray"], "python": oldest[1]}


def files(folder: Path = _FOLDER) -> list[Path]:
    """The files that may name versions."""
    kinds = (".yaml", ".sh", "")
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in kinds)


def written(text: str, wanted: Mapping[str, str]) -> str:
    """A file's text with the versions that it should name.

    Example:
        >>> written('rayVersion: "2.9.0"', {"ray": "2.60.0"})
        'rayVersion: "2.60.0"'
    """
    for name, version in wanted.items():
        for pattern in PLACES[name]:
            text = re.sub(pattern, version, text)
    return text


def main(arguments: list[str]) -> int:
    """Write, or check."""
    wanted, code = versions(), 0
    for path in files():
        text = path.read_text(encoding="utf-8")
        new = written(text, wanted)
        if new != text:
            sys.stderr.write(f"{path.relative_to(_ROOT)} is out of step\n")
            code = 1
            if "--check" not in arguments:
                path.write_text(new, encoding="utf-8")
    return code if "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
