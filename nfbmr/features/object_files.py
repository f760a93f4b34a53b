"""The object store that the environment names, as pyarrow works on it."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from nfbmr.addresses import endpoint
from nfbmr.errors import StoreError


def file_system() -> Any:
    """The object store that the environment names, as pyarrow works on it.

    Raises:
        StoreError: ``AWS_ENDPOINT_URL`` is no address.
    """
    from pyarrow import fs

    server = endpoint()
    options: dict[str, Any] = {}
    if server is not None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise StoreError(
                "AWS_ENDPOINT_URL is no address", where=server, fix="it should read http://127.0.0.1:9000"
            )
        options = {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
        # Servers other than Amazon's take any region; without one the library would go and look for it.
        if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
            options["region"] = "us-east-1"
    return fs.S3FileSystem(
        connect_timeout=5,
        request_timeout=60,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=4),
        **options,
    )
