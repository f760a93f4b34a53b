"""A packed model tried in a process that has nothing but the model: no ray, no network, none of our modules.

Run as a script, with Python's own isolation (``python -I``), and a request as JSON on standard input::

    {"model": folder, "images": [paths], "repeats": 9}

It prints one JSON document: scores by image, what loading and scoring cost, where nfbmr came from.
:func:`enter` is the other side.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ABSENT = ("ray", "optuna", "tune", "cluster", "mlflow_server")
_SHARED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
)
_PATIENCE = 600.0


@dataclass(frozen=True)
class Visit:
    """What came of a model there.

    Attributes:
        scores: By image, None where it could not be scored.
        errors: What was wrong, by image; None where nothing was.
        load_seconds: Until the model could be asked, Python and imports included.
        latency_ms: From a prepared picture to its score components;
            see :func:`nfbmr.methods.latency.latency_ms`.
        image_ms: From a file to its row, the median.
        peak_bytes: The process's memory at its largest.
        code: Where nfbmr was imported from.
        problem: Why it came to nothing; None where it did not.
    """

    scores: tuple[float | None, ...] = ()
    errors: tuple[str | None, ...] = ()
    load_seconds: float = 0.0
    latency_ms: float = 0.0
    image_ms: float = 0.0
    peak_bytes: int = 0
    code: str = ""
    problem: str | None = None


def enter(model: Path, images: Sequence[Path], *, repeats: int = 9, patience: float = _PATIENCE) -> Visit:
    """Load a packed model in a clean process, and score images with it.

    Args:
        model: The folder that :func:`mlflow_server.packaging.packing.pack` made, downloaded.
        images: To score.
        repeats: Passes that latency is the median of.
        patience: Seconds after which the process is ended.
    """
    request = {
        "model": str(model.resolve()),
        "images": [str(i.resolve()) for i in images],
        "repeats": repeats,
    }
    with tempfile.TemporaryDirectory(prefix="nfbmr-clean-") as empty:
        environment = {name: os.environ[name] for name in _SHARED if name in os.environ}
        environment |= {
            "HOME": empty,
            "TMPDIR": empty,
            "HF_HUB_OFFLINE": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        try:
            completed = subprocess.run(
                [sys.executable, "-I", __file__],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                cwd=empty,
                env=environment,
                timeout=patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Visit(problem=f"it was not done after {patience:.0f} s")
    if completed.returncode:
        last = completed.stderr.strip().splitlines() or [f"exit code {completed.returncode}"]
        return Visit(problem=last[-1][:300])
    answer: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    answer |= {name: tuple(answer[name]) for name in ("scores", "errors")}
    return Visit(**answer)


class _Hiding:
    """A finder of modules that does not find some."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] in _ABSENT:
            return None
        return self._finder.find_spec(fullname, path, target)


def seal() -> None:
    """Make this process a clean room: for good, since an audit hook cannot be taken back."""
    sys.meta_path[:] = [_Hiding(finder) for finder in sys.meta_path]
    sys.addaudithook(_offline)


def _offline(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook under which nothing outside this machine can be reached."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    else:
        return
    if host not in (None, "", "localhost") and not _loopback(str(host)):
        raise OSError(f"no network here: {host}")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    import resource

    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(request["model"])
    loaded = time.time()
    import nfbmr
    from nfbmr.methods.latency import latency_ms

    taken, scores, errors = [], [], []
    for image in request["images"]:
        began = time.perf_counter()
        row = model.predict([image]).iloc[0]
        taken.append(time.perf_counter() - began)
        scores.append(None if row["score"] is None else float(row["score"]))
        errors.append(row["error"])
    folder = Path(request["model"]) / "artifacts" / "model"
    return {
        "scores": scores,
        "errors": errors,
        "load_seconds": loaded - request["began"],
        "latency_ms": latency_ms(folder, repeats=request["repeats"]),
        "image_ms": 1000 * sorted(taken)[len(taken) // 2] if taken else 0.0,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "code": str(nfbmr.__file__),
    }


def main() -> None:
    """Answer one request."""
    began = time.time()
    seal()
    request = json.load(sys.stdin)
    print(json.dumps(_answer(request | {"began": began})))  # noqa: T201


if __name__ == "__main__":
    main()
