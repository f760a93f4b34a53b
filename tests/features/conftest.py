from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.features.s3 import end, start


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a running server that speaks S3."""
    process, address = start()
    yield address
    end(process)
