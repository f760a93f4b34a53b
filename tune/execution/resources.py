"""What a trial gets of a cluster, and whether anybody has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nfbmr.addresses import ObjectPath
from nfbmr.config import Config
from nfbmr.errors import ConfigError
from tune.execution.settings import Execution


@dataclass(frozen=True)
class Resources:
    """What each trial gets, and how many run at once.

    Attributes:
        backend: ``ray``, or ``local``: one after another in this process.
        concurrent: Trials at once; None lets the cluster's size decide.
        cpus: Processor cores of a trial (of each of its workers).
        gpus: Share of a GPU; ``auto`` measures the first trial.
        workers: Processes of a trial.
        time_budget: Seconds after which no trial is begun or gone on with.
    """

    backend: Literal["ray", "local"] = "ray"
    concurrent: int | None = None
    cpus: float = 1.0
    gpus: float | Literal["auto"] = 0.0
    workers: int = 1
    time_budget: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values, which :meth:`from_json` reads back."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Resources:
        """What :meth:`as_json` gave, be it in an earlier version, which called the backend ``here``.

        Example:
            >>> Resources.from_json({"backend": "here"}) == Resources("local")
            True
        """
        return cls(**{**values, **({"backend": "local"} if values.get("backend") == "here" else {})})


def execution_of(resources: Resources) -> Execution:
    """The same in the terms of :func:`tune.execution.execute.execute`.

    An unmeasured share is a whole GPU; nothing, where the cluster that this process is connected to has none.
    """
    gpus = resources.gpus
    if gpus == "auto":
        gpus = 0.0 if resources.backend == "local" else 1.0
        if gpus:
            import ray

            if ray.is_initialized():  # who is not connected yet cannot know
                cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
                gpus = 1.0 if cluster.get("GPU", 0.0) >= 1 else 0.0
    return Execution(
        backend=resources.backend,
        concurrent=resources.concurrent,
        cpus=resources.cpus,
        gpus=gpus,
        workers=resources.workers,
        time_budget=resources.time_budget,
    )


@contextmanager
def on_cluster(resources: Resources, config: Config, address: str | None) -> Iterator[None]:
    """Be connected to the cluster, for as long as the block runs, and know that a trial fits on it.

    Args:
        resources: Resources of a trial; with backend ``local`` nothing is connected.
        config: Names the folders that trials read and write.
        address: See :func:`cluster.connection.connect`.

    Raises:
        ConfigError: No cluster answers, no node of it has so much, or one of its nodes does not see a folder;
            or nobody could have such resources.
    """
    how = execution_of(resources)
    if resources.backend == "local":
        yield
        return
    from cluster.connection import connect

    with connect(address):
        from tune.execution.ray_backend import fits

        measured_later = resources.gpus == "auto"
        fits(replace(how, gpus=0.0) if measured_later else how)
        refuse_unseen(config)
        yield


def refuse_unseen(config: Config) -> None:
    """Refuse data, store and output that some node of a cluster of several does not see.

    Raises:
        ConfigError: A trial there would fail, or leave its result where nobody finds it.
    """
    import ray

    if sum(node["Alive"] for node in ray.nodes()) < 2:  # type: ignore[no-untyped-call]
        return
    from cluster.jobs.probe import Question, ask

    folders = {"data": config.data.path, "known defects": config.data.known_defects}
    reads = {name: str(path.absolute()) for name, path in folders.items() if isinstance(path, Path)}
    writes = {"output": str(config.output.absolute())}
    if not isinstance(config.store, ObjectPath):
        writes["store"] = str(config.store.absolute())
    problems = list(dict.fromkeys(unseen(ask(Question(reads, writes)), reads, writes)))
    if problems:
        raise ConfigError(
            "; ".join(problems),
            where="the nodes of the cluster",
            fix="put it on storage that every node mounts at this path",
        )


def unseen(answer: Mapping[str, Any], reads: Mapping[str, str], writes: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with folders, by what :func:`cluster.jobs.probe.ask` heard from the nodes.

    Args:
        answer: What it heard.
        reads: Paths by purpose that every node has to see alike.
        writes: Folders by purpose that have to be one for all.

    Example:
        >>> here, there = ({"reads": {"data": seen}, "writes": {}} for seen in ("a1b2", None))
        >>> list(unseen({"nodes": [here, there]}, {"data": "/home/ann/parts"}, {}))
        ['data /home/ann/parts is not the same on every node']
    """
    nodes = [node for node in answer["nodes"] if "error" not in node]
    for purpose, path in reads.items():
        if len({node["reads"][purpose] for node in nodes}) > 1:
            yield f"{purpose} {path} is not the same on every node"
    for purpose, path in writes.items():
        if not all(node["writes"][purpose]["shared"] for node in nodes):
            yield f"{purpose} {path} is not one folder for all nodes"
        elif not all(node["writes"][purpose]["writable"] for node in nodes):
            yield f"{purpose} {path} cannot be written on every node"


def gpu_share(
    peak_bytes: float, total_bytes: float, *, context_bytes: float = 600e6, margin: float = 1.25
) -> float:
    """The share of a GPU for each trial, so that as many fit as its memory holds.

    A process needs its CUDA context besides its tensors; trials differ in size, so a margin is kept.

    Args:
        peak_bytes: What the tensors of the probe took at most, in bytes.
        total_bytes: Memory of the GPU, in bytes.
        context_bytes: Memory that each process takes besides, in bytes.
        margin: By what factor another trial may need more than the probe.

    Example:
        >>> gpu_share(peak_bytes=3e9, total_bytes=24e9)
        0.2
    """
    fit = int(total_bytes // (peak_bytes * margin + context_bytes))
    # Ray counts shares to four digits: rounded down, so that all of them fit.
    return 1.0 if fit <= 1 else int(1e4 / min(fit, 16)) / 1e4
