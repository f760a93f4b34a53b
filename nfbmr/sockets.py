"""Ports of this machine: to listen on, or free ones to hand on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from nfbmr.errors import NfbmrError

LOOPBACK = "127.0.0.1"
"""The address that only this machine reaches."""


@contextmanager
def bound_socket(host: str, port: int, error: type[NfbmrError]) -> Iterator[socket.socket]:
    """A socket that is bound, before anything that takes time: a port that is taken is said at once.

    Args:
        host: Name or address; that of IPv6 with brackets or without.
        port: 0 takes a free one.
        error: What is raised.

    Raises:
        NfbmrError: Something listens there, or it cannot be listened on.

    Example:
        >>> with bound_socket(LOOPBACK, 0, NfbmrError) as listener:
        ...     listener.getsockname()[1] > 0
        True
    """
    bare = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((bare, port))
        except (OSError, OverflowError) as problem:
            reason = getattr(problem, "strerror", None) or str(problem)
            raise error(
                f"cannot listen there ({reason.lower()})",
                where=f"{host}:{port}",
                fix="end what listens there, or choose another --port (0 takes a free one)",
            ) from problem
        yield listener


def free_ports(count: int) -> list[int]:
    """Different ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
