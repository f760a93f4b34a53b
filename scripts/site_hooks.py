"""What ``mkdocs.yml`` cannot say: a page of reference for each room of the code, and pages beside ``docs/``.

The reference is made from the code at every build, so nobody keeps it. Links that leave ``docs/`` lead to a
page of the site where there is one, and become plain text where there is none; a file that does not exist is
a warning, which ends a strict build.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.plugins.site_hooks")

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("nfbmr", "tune", "cluster", "mlflow_server")
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "LOG.md")
"""Pages that lie at the top of the repository, where people look for them."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def rooms() -> dict[str, list[str]]:
    """Dotted names of the modules of each room: a package's own files, then its folders.

    Example:
        >>> rooms()["tune.execution"][0]
        'tune.execution'
    """
    by_room: dict[str, list[str]] = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py"), key=lambda path: (len(path.parts), path)):
            room = _dotted(file.parent)
            module = room if file.stem == "__init__" else f"{room}.{file.stem}"
            if file.stem != "__main__" and (file.parent / "__init__.py").exists():  # else no module: a script
                by_room.setdefault(room, []).append(module)
    return {room: sorted(by_room[room]) for room in sorted(by_room)}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parts)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the code to the reference's navigation."""
    reference = next(entry["Reference"] for entry in config.nav or () if "Reference" in entry)
    names = list(rooms())
    reference.append(
        {"Code": [{p: [f"code/{name}.md" for name in names if name.split(".")[0] == p]} for p in PACKAGES]}
    )
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference's pages, and those that lie beside ``docs/``."""
    for room, modules in rooms().items():
        text = f"# {room}\n\n" + "\n\n".join(f"::: {module}" for module in modules)
        files.append(File.generated(config, f"code/{room}.md", content=text))
    for name in BESIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that leave ``docs/`` to where the site has their target."""
    uri = page.file.src_uri
    folder = ROOT if uri in BESIDE else ROOT / "docs" / posixpath.dirname(uri)

    def rewritten(link: re.Match[str]) -> str:
        target, hash_mark, fragment = link[3].partition("#")
        if "://" in target or not target:
            return link[0]
        path = (folder / target).resolve()
        if not path.exists():
            log.warning("%s links to %s, which does not exist", uri, link[3])
            return link[0]
        inside = path.relative_to(ROOT).as_posix().removeprefix("docs/")
        if path.is_relative_to(ROOT / "docs") or inside in BESIDE:
            there = posixpath.relpath(inside, posixpath.dirname(uri) or ".")
            return f"{link[1]}[{link[2]}]({there}{hash_mark}{fragment})"
        return f"{link[2]} (`{inside}`)"

    return _LINK.sub(rewritten, markdown)
