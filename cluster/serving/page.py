"""The page to try images on: one file, which asks for nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).with_name("page.html").read_bytes()
"""As it is sent."""


def _hashes(element: bytes) -> str:
    """The hashes by which a browser knows the page's own code from any other."""
    found = re.findall(rb"<%s>(.*?)</%s>" % (element, element), PAGE, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in found)


POLICY = (
    f"default-src 'none'; script-src {_hashes(b'script')}; style-src {_hashes(b'style')}; "
    "img-src 'self' blob: data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
).encode()
"""What a browser may do on it."""
