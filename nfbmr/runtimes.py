"""OpenVINO, imported so that it keeps to itself."""

from __future__ import annotations

import sys
from typing import Any

from nfbmr.errors import missing_package


def import_openvino() -> Any:
    """The package without its telemetry: left alone it sends word to its makers whenever it is imported.

    Raises:
        MissingPackageError: It is not installed, or cannot be loaded here.
    """
    # None stands for a package that cannot be imported; OpenVINO then puts a stub of its own in its place.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise missing_package("openvino") from error
    return openvino
