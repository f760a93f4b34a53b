"""Where jobs are sent: the address of a cluster's dashboard, and the token that it may be shown."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster.auth_token import may_show, read_token
from cluster.local.local_cluster import FOLDER, ClusterError, find
from nfbmr.addresses import is_loopback

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class JobServer:
    """A job server.

    Attributes:
        address: Of the cluster's dashboard, which it is a part of.
        token: What every request must show; None where there is none, or where it may not be sent.
    """

    address: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def choose(cls, address: str | None = None, *, folder: Path = FOLDER) -> JobServer:
        """The job server to use.

        Args:
            address: Where it is given, that one; else ``RAY_API_SERVER_ADDRESS``; else ``RAY_ADDRESS``, if it
                begins with http; else the private cluster that `folder` remembers.
            folder: Of a private cluster.

        Raises:
            ClusterError: None of these, or it is not an address.
            TokenError: The token's file cannot be read.
        """
        of_drivers = os.environ.get("RAY_ADDRESS", "")
        address = address or os.environ.get("RAY_API_SERVER_ADDRESS")
        address = address or (of_drivers if of_drivers.startswith("http") else None)
        if address is not None:
            address = (address if "://" in address else f"http://{address}").rstrip("/")
        local = find(folder)
        if local is not None and local.alive and address in (None, local.dashboard):
            return cls(local.dashboard, local.token.read_text(encoding="utf-8").strip())
        if address is None:
            fix = "start one here with nfbmr cluster up, or say --address http://HOST:8265"
            raise ClusterError("no cluster to send this to", fix=fix)
        parts, token = urlsplit(address), None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            fix = "it is the address of the cluster's dashboard: http://HOST:8265"
            raise ClusterError("not the address of a job server", where=address, fix=fix)
        encrypted = parts.scheme == "https"
        if not encrypted and not is_loopback(parts.hostname):
            log.warning("%s: all that is sent can be read on the way; use a tunnel, or https", address)
        token = read_token()
        if token is not None and not may_show(parts.hostname, encrypted=encrypted):
            log.warning("%s: the token is not sent there, since it could be read on the way", address)
            token = None
        return cls(address, token)

    def client(self) -> JobSubmissionClient:
        """Ray's client for it.

        Raises:
            OSError: Nobody listens there; Ray itself would wait for ever.
        """
        from ray.job_submission import JobSubmissionClient

        parts = urlsplit(self.address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((str(parts.hostname), port), timeout=_ANSWER_SECONDS).close()
        # Empty rather than left out: Ray's client adds the token of the environment by itself.
        headers = {"Authorization": "" if self.token is None else f"Bearer {self.token}"}
        return JobSubmissionClient(self.address, headers=headers)
