"""What a cluster says of itself: run there, as a job, before the job proper.

``python -m cluster.jobs.probe QUESTION`` asks every node (a task pinned to it) what it sees, and prints one
line that :mod:`cluster.jobs.preflight` reads. Only HTTP lies between a laptop and a cluster, so nothing else
could ask.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

ANSWER = "nfbmr-preflight-answer:"
"""What a line of the job's output begins with that holds the answer, as JSON."""
PACKAGES = ("ray", "torch", "torchvision", "timm", "FrEIA", "pyarrow", "mlflow", "optuna", "nfbmr")
"""Packages whose versions are compared between nodes."""
_NODE_SECONDS = 120.0
_TRACKING = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Question:
    """What is asked of a cluster.

    Attributes:
        reads: Paths that every node has to see, by what they are for.
        writes: Folders that have to be one folder for all nodes, and writable.
        tracking: Address of the tracking server, where it was said; else the head's own is taken.
        tracking_default: Where neither is there; None where nothing is tracked.
        config: The configuration, to guess what a trial needs; None does not guess.
    """

    reads: Mapping[str, str]
    writes: Mapping[str, str]
    tracking: str | None = None
    tracking_default: str | None = None
    config: Mapping[str, Any] | None = field(default=None, repr=False)


def look(question: Mapping[str, Any], marker: str, tracking: str | None) -> dict[str, Any]:
    """What one node sees; run on that node."""
    import psutil

    return {
        "hostname": platform.node(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in PACKAGES},
        "memory": psutil.virtual_memory().total,
        "gpu_memory": _gpu_memory(),
        "reads": {purpose: _seen(Path(path)) for purpose, path in question["reads"].items()},
        "writes": {purpose: _shared(Path(path), marker) for purpose, path in question["writes"].items()},
        "tracking": None if tracking is None else _reached(tracking),
    }


def ask(question: Question) -> dict[str, Any]:
    """Ask every node of the cluster that this process is a driver of.

    Returns:
        ``nodes``, with what :func:`look` gave each, its id, address and resources, or an ``error``;
        ``tracking``: the address that was tried; ``trial``: seconds and bytes of a trial.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    tracking = question.tracking or os.environ.get(_TRACKING) or question.tracking_default
    writes = dict(question.writes)
    if tracking is not None and tracking.startswith("sqlite:///"):
        writes["tracking"] = str(Path(tracking.removeprefix("sqlite:///")).parent)
        tracking_url = None
    else:
        tracking_url = tracking
    marker = f".nfbmr-preflight-{secrets.token_hex(8)}"
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    asked = {"reads": dict(question.reads), "writes": writes}
    marked = _mark(writes.values(), marker)
    try:
        waiting = {
            node["NodeID"]: task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(asked, marker, tracking_url)
            for node in nodes
        }
        trial = {
            **earlier_trials(Path(question.writes["output"]), question.config),
            **_needed(question.config),
        }
        ray.wait(list(waiting.values()), num_returns=len(waiting), timeout=_NODE_SECONDS)
        answers = [{**_node(node), **_answer(waiting[node["NodeID"]])} for node in nodes]
    finally:
        for path in marked:
            path.unlink(missing_ok=True)
    of_cluster = _TRACKING in os.environ and question.tracking is None
    return {
        "nodes": answers,
        "tracking": {"uri": tracking, "own": of_cluster},
        "trial": trial,
    }


def earlier_trials(output: Path, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """How long finished runs and trials took, of the same data and method where the configuration is given.

    Returns:
        ``seconds`` (median; None where there is none), ``count``, ``found_in``.
    """
    seconds = []
    files = [*output.glob("*/trials/*/fitted.json"), *output.glob("*/trials/*/summary.json")]
    files = files or [*output.glob("*/summary.json"), *output.glob("*/cells/**/summary.json")]
    for file in sorted(files, key=lambda file: file.stat().st_mtime)[-200:]:
        try:
            summary = json.loads(file.read_text(encoding="utf-8"))
            same = config is None or all(
                _at(summary["config"], key) == _at(config, key) for key in ("method", "data.path")
            )
            if same:
                seconds.append(sum(summary["timings"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return {"seconds": median(seconds) if seconds else None, "count": len(seconds), "found_in": str(output)}


def _at(values: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _needed(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Bytes that training a model of this configuration takes at the least.

    Weights, their gradients and two moments of Adam, 4 bytes each; what passes between layers comes on top.
    """
    if config is None:
        return {"bytes": None}
    try:
        from nfbmr.config import Config
        from nfbmr.methods.detector import blueprint

        counts = blueprint(Config.model_validate(config)).parameters()
    except Exception as error:  # a guess; a wrong configuration is told elsewhere, and better
        return {"bytes": None, "why": f"{type(error).__name__}: {error}"[:200]}
    return {"bytes": 16 * max(counts.values()), "parameters": sum(counts.values())}


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name in node["Resources"] if not name.startswith("node:")]
    return {
        "node_id": node["NodeID"],
        "address": node["NodeManagerAddress"],
        "head": "node:__internal_head__" in node["Resources"],
        "resources": {name: node["Resources"][name] for name in names},
    }


def _answer(reference: Any) -> dict[str, Any]:
    import ray

    try:
        answer: dict[str, Any] = ray.get(reference, timeout=0.1)
    except ray.exceptions.GetTimeoutError:
        return {"error": f"did not answer within {_NODE_SECONDS:g} s"}
    except Exception as error:
        return {"error": (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]}
    return answer


def installed(name: str) -> str | None:
    """The version of a package here; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _seen(path: Path) -> str | None:
    """What a node sees at a path: a digest of the names there, the size of a file, or None."""
    try:
        if path.is_dir():
            names = sorted(os.fsencode(entry.name) for entry in path.iterdir())
            return sha256(b"\0".join(names)).hexdigest()
        return str(path.stat().st_size)
    except OSError:
        return None


def _shared(folder: Path, marker: str) -> dict[str, bool]:
    """Whether a folder is the head's, and whether it can be written."""
    shared = (folder / marker).exists()
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".nfbmr-preflight-"):
            return {"shared": shared, "writable": True}
    except OSError:
        return {"shared": shared, "writable": False}


def _mark(folders: Any, marker: str) -> list[Path]:
    """Leave a file in each folder, which the other nodes look for; the job would make the folders anyway."""
    marked = []
    for folder in folders:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / marker).touch()
        except OSError:
            continue
        marked.append(Path(folder) / marker)
    return marked


def _reached(uri: str) -> str | None:
    """Why a tracking server does not answer; None where it does."""
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code < 500 else f"it answers {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _gpu_memory() -> list[int]:
    """Bytes of each GPU of a node."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return [int(float(line) * 2**20) for line in out.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def main(arguments: Sequence[str]) -> None:
    """Answer on standard output, in one line."""
    from cluster.connection import connect

    logging.disable(logging.WARNING)
    with connect():
        answer = ask(Question(**json.loads(arguments[0])))
    sys.stdout.write(f"{ANSWER}{json.dumps(answer)}\n")


def as_argument(question: Question) -> str:
    """A question, for the command line."""
    return json.dumps(asdict(question))


if __name__ == "__main__":
    main(sys.argv[1:])
