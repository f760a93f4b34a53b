"""How a model is served: who may reach it, how many replicas answer, and what a request may cost."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from nfbmr.addresses import is_loopback
from nfbmr.errors import ServingError
from nfbmr.machine import usable_cores

HOST, PORT = "127.0.0.1", 8000
"""Where the server listens by default."""
TOKEN_VARIABLE = "NFBMR_SERVE_TOKEN"
"""Environment variable with the token that requests must have."""


@dataclass(frozen=True)
class ServingSettings:
    """A served model.

    Attributes:
        host: Address that is listened on.
        port: That is listened on; 0 takes a free one.
        local: Whether this process alone serves, without Ray.
        replicas: Processes that hold the model; one where `local` is set.
        threads: Of each replica, which answers up to four batches at once; None shares the cores among them.
        batch: Requests that a replica takes together at most.
        queue: Requests under way at most, those that are answered just now among them; more are turned away.
        max_body: Bytes of the largest request.
        max_images: Images in one request at most.
        max_pixels: Larger images are refused before they are decoded.
        seconds: That a request may take, its way through the queue included.
        watch: Seconds between two looks at where an alias points.
        start_seconds: In which the model answers, on a busy machine; on any other it may take longer.
        device: That replicas compute on: auto, cpu, cuda.
        token: That requests have to show; None where nobody else reaches this machine.

    Raises:
        ServingError: Others could reach it without a token, or one process should be several.

    Example:
        >>> ServingSettings(replicas=2).memory_for_requests
        128000000
    """

    host: str = HOST
    port: int = PORT
    local: bool = False
    replicas: int = 1
    threads: int | None = None
    batch: int = 8
    queue: int = 128
    max_body: int = 32_000_000
    max_images: int = 32
    max_pixels: int = 50_000_000
    seconds: float = 60.0
    watch: float = 5.0
    start_seconds: float = 60.0
    device: str = "auto"
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ServingError(
                "others can reach this address, and without a token anybody could use the model",
                where=f"--host {self.host}",
                fix=f"give one: --token-file FILE, or the variable {TOKEN_VARIABLE}; or stay on this "
                f"machine: --host {HOST}",
            )

        if self.local and self.replicas > 1:
            raise ServingError(
                "one process holds one model",
                where=f"--local --replicas {self.replicas}",
                fix="leave out --local, and replicas run on Ray Serve",
            )

    @property
    def threads_each(self) -> int:
        """Threads of each replica; who listens needs a tenth of what they do."""
        given = os.environ.get("OMP_NUM_THREADS", "")
        if self.threads is not None:
            return self.threads
        return int(given) if given.isdigit() and int(given) else max(1, usable_cores() // self.replicas)

    @property
    def of_replica(self) -> dict[str, Any]:
        """What a :class:`~cluster.serving.replica.Replica` is made with."""
        kept = {name: getattr(self, name) for name in ("device", "batch", "max_pixels", "max_images")}
        return {**kept, "threads": self.threads_each}

    @property
    def memory_for_requests(self) -> int:
        """Bytes that the bodies of all requests under way may have together."""
        return 4 * self.max_body
