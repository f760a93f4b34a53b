"""Docstrings as the site shows them: roles become links, which are checked; a public name has to have one.

An extension of griffe, which mkdocstrings reads the code with (``mkdocs.yml``).
"""

from __future__ import annotations

import logging
import re
from typing import Any

import griffe

log = logging.getLogger("mkdocs.plugins.site_docstrings")

OURS = ("nfbmr", "tune", "cluster", "mlflow_server")

_ROLE = re.compile(r":(mod|class|func|meth|attr|data|exc|obj):`(~?)([\w.]+)`")


def with_links(text: str) -> str:
    """A docstring in Markdown: roles as references, a literal block without its second colon.

    Example:
        >>> with_links("See :class:`~nfbmr.config.Config`::")
        'See [`Config`][nfbmr.config.Config]:'
    """
    text = re.sub(r"^( *)Example:$", r"\1Examples:", _ROLE.sub(_reference, text), flags=re.MULTILINE)
    return re.sub(r"^::$|::$", lambda match: "" if match.start() == 0 else ":", text, flags=re.MULTILINE)


def _reference(role: re.Match[str]) -> str:
    kind, target = role[1], role[3]
    shown = f"`{target.rpartition('.')[2] if role[2] else target}`"
    if kind in ("attr", "data"):  # described where they belong: lead there
        target = target.rpartition(".")[0]
        if not target.startswith(OURS):
            return shown
    return f"[{shown}][{target}]"


class Docstrings(griffe.Extension):
    """Looks at every object once, when its file has been read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings of a package, and name what has none."""
        self._visit(pkg)

    def _visit(self, item: griffe.Object) -> None:
        """Go through what is public, from the outside in; what a function holds is its own affair."""
        if item.docstring is not None:
            item.docstring.value = with_links(item.docstring.value)
        elif not item.is_attribute:
            log.warning("%s has no docstring (%s)", item.path, item.relative_filepath)
        if item.is_function:
            return
        for member in item.members.values():
            if isinstance(member, griffe.Object) and not member.name.startswith("_"):
                self._visit(member)
