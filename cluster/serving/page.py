"""The pages: one to try images on, and one that shows the paths. They ask for nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("page.html").read_bytes()
"""As it is sent."""


def _hashes(element: bytes) -> str:
    """The hashes by which a browser knows the page's own code from any other."""
    texts = re.findall(rb"<%s>(.*?)</%s>" % (element, element), PAGE, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in texts)


POLICY = (
    f"default-src 'none'; script-src {_hashes(b'script')}; style-src {_hashes(b'style')}; "
    "img-src 'self' blob: data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""What a browser may do on it."""


def docs_page(schema: Mapping[str, Any]) -> str:
    """What an OpenAPI schema says, as a page.

    Args:
        schema: Of the whole application; ``/openapi.json`` gives it to programs.
    """
    title = html.escape(schema["info"]["title"])
    rows = "".join(
        f"<h2>{method.upper()} {html.escape(path)}</h2>{''.join(_described(operation))}"
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>'
        f'<p>For programs: <a href="openapi.json">openapi.json</a>. To try images: <a href=".">the page</a>.'
        f"</p>{rows}</html>"
    )


def _described(operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<p>{html.escape(operation['summary'])}"
    if operation.get("security"):
        yield " (with the header <code>Authorization: Bearer TOKEN</code>, where a token is asked for)"
    yield ".</p><ul>"
    for parameter in operation.get("parameters", ()):
        said = html.escape(parameter.get("description", ""))
        yield f"<li><code>?{html.escape(parameter['name'])}=</code> {said}</li>"
    for kind in operation.get("requestBody", {}).get("content", ()):
        yield f"<li>takes <code>{html.escape(kind)}</code></li>"
    for status, answer in operation["responses"].items():
        yield f"<li>{status} {html.escape(answer['description'])}</li>"
    yield "</ul>"
