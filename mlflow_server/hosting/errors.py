"""What can be wrong with a server, its data or its users."""

from __future__ import annotations

from nfbmr.errors import NfbmrError


class ServerError(NfbmrError):
    """A tracking server that cannot be had, or kept, as it was asked for."""
