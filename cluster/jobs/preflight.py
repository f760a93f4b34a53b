"""Before a job is sent: would it work there? Everything that would not is said at once.

:func:`check` asks the cluster (:mod:`cluster.jobs.probe`) and judges the answer; judging is a function of the
request and the answer alone.
"""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.jobs.client import Jobs
from cluster.jobs.probe import ANSWER, PACKAGES, Question, as_argument, installed
from cluster.jobs.request import Needs, Request
from cluster.jobs.upload import LIMIT, Upload
from cluster.local.local_cluster import ClusterError
from nfbmr.text import size_of

_NEEDED = ("ray", "torch", "timm", "FrEIA", "pyarrow")
_SYSTEM_BYTES = 1.5e9
"""Memory of a worker before it has a model: Python, torch, Ray."""


class PreflightError(ClusterError):
    """A job that would not work on this cluster."""


@dataclass(frozen=True)
class Tracking:
    """Where runs are to be tracked.

    Attributes:
        given: The address that was said here, without a password; None where none was.
        default: Where there is none here and none in the cluster; None where nothing is tracked.
    """

    given: str | None = None
    default: str | None = None


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        address: Of the cluster.
        upload: What would be sent.
        nodes: What each node said.
        problems: What has to be mended first: pairs of what is wrong and what to do.
        notes: What is worth knowing.
        tracking: Where runs would be tracked; None where the cluster's own setting counts, or nothing is.
        trials_per_hour: A guess; None where nothing is known.
        guessed_from: What the guess rests on, or why there is none.
        at_once: Trials that the cluster has room for at a time.
    """

    address: str
    upload: Upload
    nodes: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    tracking: str | None = None
    trials_per_hour: float | None = None
    guessed_from: str = "not asked"
    at_once: int = 0
    needs: Needs | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "address": self.address,
            "upload": self.upload.as_json(),
            "nodes": [dict(node) for node in self.nodes],
            "problems": [{"what": what, "fix": fix} for what, fix in self.problems],
            "notes": list(self.notes),
            "tracking": self.tracking,
            "at_once": self.at_once,
            "trials_per_hour": self.trials_per_hour,
            "guessed_from": self.guessed_from,
        }

    def render(self) -> str:
        """For people."""
        lines = [f"preflight of {self.address}", f"  upload    {len(self.upload.files)} files, "]
        lines[-1] += size_of(self.upload.size)
        large = sorted(self.upload.left_out, key=lambda each: -each.size)[:6]
        if large:
            lines.append(f"  left out  {', '.join(map(str, large))}")
        for node in self.nodes:
            lines.append(f"  {'head' if node['head'] else 'node'}      {_describe(node)}")
        if self.at_once:
            lines.append(f"  room for  {self.at_once} at a time")
        rate = "unknown" if self.trials_per_hour is None else f"about {self.trials_per_hour:.3g} an hour"
        lines.append(f"  trials    {rate} ({self.guessed_from})")
        lines += [f"  note      {note}" for note in self.notes]
        return "\n".join(lines)

    def refuse(self) -> None:
        """Raise what is wrong, all of it.

        Raises:
            PreflightError: There are problems.
        """
        if self.problems:
            count = len(self.problems)
            lines = [f"{count} problem{'s' * (count > 1)}; nothing was submitted"]
            for number, (what, fix) in enumerate(self.problems, 1):
                lines += [f"  {number}. {what}", f"     -> {fix}"]
            raise PreflightError("\n".join(lines), fix="mend these, or go ahead all the same: --no-preflight")


def check(request: Request, upload: Upload, jobs: Jobs, tracking: Tracking) -> Report:
    """Ask a cluster whether a request would work on it.

    Raises:
        ClusterError: It could not be asked.
    """
    report = Report(jobs.address, upload, needs=request.needs)
    if upload.size > LIMIT:
        too_large = (
            f"{size_of(upload.size)} would be uploaded, and Ray takes {size_of(LIMIT)}",
            "put large files where every node sees them",
        )
        return replace(report, problems=(too_large,))
    answer = _asked(request, upload, jobs, tracking)
    return judge(request, answer, report)


def judge(request: Request, answer: Mapping[str, Any], report: Report) -> Report:
    """What a cluster's answer means for a request.

    Args:
        request: What is to be sent.
        answer: As :func:`cluster.jobs.probe.ask` gives it.
        report: What is known so far.
    """
    nodes = tuple(answer["nodes"])
    there = [node for node in nodes if "error" not in node]
    problems = [
        *report.problems,
        *(
            (f"node {_name(node)} {node['error']}", "look at it, or take it out")
            for node in nodes
            if "error" in node
        ),
        *_of_versions(there),
        *_of_paths(request, there),
        *_of_tracking(answer["tracking"], there),
        *_of_resources(request.needs, there),
        *_of_memory(request, answer["trial"], there),
    ]
    room = sum(_fits(request.needs.bundle, node) for node in there) // max(1, request.needs.workers)
    limits = (room, request.needs.concurrent, request.needs.trials)
    at_once = min(limit for limit in limits if limit is not None)
    seconds, count, where = (answer["trial"][name] for name in ("seconds", "count", "found_in"))
    return replace(
        report,
        nodes=nodes,
        problems=tuple(problems),
        notes=tuple(_notes(answer, there)),
        tracking=None if answer["tracking"]["own"] else answer["tracking"]["uri"],
        at_once=at_once,
        trials_per_hour=at_once * 3600.0 / seconds if seconds and at_once else None,
        guessed_from=f"median {seconds:.3g} s of {count} finished in {where}"
        if seconds
        else f"nothing like it is finished in {where}",
    )


def _asked(request: Request, upload: Upload, jobs: Jobs, tracking: Tracking) -> dict[str, Any]:
    question = Question(
        reads={purpose: str(path) for purpose, path in request.reads.items()},
        writes={purpose: str(path) for purpose, path in request.writes.items()},
        tracking=tracking.given,
        tracking_default=tracking.default,
        config=request.config.model_dump(mode="json"),
    )
    job_id = jobs.submit(
        f"exec python -m cluster.jobs.probe {shlex.quote(as_argument(question))}",
        upload,
        name="preflight",
        environment={},
        command="preflight",
    )
    job = jobs.follow(job_id, lambda text: None)
    log = jobs.logs(job_id)
    for line in reversed(log.splitlines()):
        if line.startswith(ANSWER):
            answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
            return answer
    last = "\n".join(log.strip().splitlines()[-12:]) or str(job.message)
    raise ClusterError(
        f"the cluster could not be asked; the last it said:\n{last}",
        where=job_id,
        fix="is the cluster's Python one with this project's packages (cluster/deploy/Dockerfile)? "
        "--no-preflight submits without asking",
    )


def _of_versions(nodes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    install = "install the versions of requirements.lock there (cluster/deploy/Dockerfile does)"
    for name in _NEEDED:
        without = [_name(node) for node in nodes if node["versions"].get(name) is None]
        if without:
            yield f"{name} is not installed on {_listed(without)}", install
    for name in ("python", "ray", "torch"):
        nodes_by_version = {_version_of(node, name): _name(node) for node in nodes}
        nodes_by_version.pop(None, None)
        if len(nodes_by_version) > 1:
            each = ", ".join(f"{version} on {node}" for version, node in nodes_by_version.items())
            yield f"nodes have different versions of {name}: {each}", install


def _of_paths(request: Request, nodes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    shared = "put it on storage that every node mounts at this path"
    for purpose, path in request.reads.items():
        seen = {_name(node): node["reads"].get(purpose) for node in nodes}
        blind = [name for name, what in seen.items() if what is None]
        if blind:
            yield f"{purpose} {path} is not there on {_listed(blind)}", shared
        elif len(set(seen.values())) > 1:
            yield f"{purpose} {path} does not hold the same on every node", shared
    for purpose, path in request.writes.items():
        yield from _of_folder(f"{purpose} {path}", purpose, nodes, shared)


def _of_folder(
    what: str, purpose: str, nodes: Sequence[Mapping[str, Any]], fix: str
) -> Iterator[tuple[str, str]]:
    states = {_name(node): node["writes"][purpose] for node in nodes if purpose in node["writes"]}
    closed = [name for name, state in states.items() if not state["writable"]]
    apart = [name for name, state in states.items() if state["writable"] and not state["shared"]]
    if closed:
        yield f"{what} cannot be written on {_listed(closed)}", fix
    if apart:
        yield f"{what} is another folder on {_listed(apart)} than on the head", fix


def _of_tracking(
    tracking: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    uri = tracking["uri"]
    failed = {_name(node): node["tracking"] for node in nodes if node["tracking"]}
    if failed:
        why = sorted(set(failed.values()))[0]
        yield (
            f"the tracking server {uri} is not reached from {_listed(list(failed))} ({why})",
            "give an address that the nodes reach (MLFLOW_TRACKING_URI), or --set tracking.kind=folder",
        )
    yield from _of_folder(
        f"the folder of {uri}",
        "tracking",
        nodes,
        "use a tracking server, name a database on shared storage, or --set tracking.kind=folder",
    )


def _of_resources(needs: Needs, nodes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    if not nodes:
        return
    wanted = ", ".join(f"{amount:g} {name}" for name, amount in needs.bundle.items())
    lacking = [
        (name, amount, max((node["resources"].get(name, 0.0) for node in nodes), default=0.0))
        for name, amount in needs.bundle.items()
    ]
    for name, amount, most in lacking:
        if amount > most:
            had = f"the most a node has is {most:g}" if most else "no node has any"
            yield f"a worker asks for {amount:g} {name}, and {had}", "ask for less, or add such a node"
    if all(amount <= most for _, amount, most in lacking):
        room = sum(_fits(needs.bundle, node) for node in nodes)
        if room == 0:
            yield f"no single node has {wanted}", "ask for less, or add such a node"
        elif room < needs.workers:
            yield (
                f"{needs.workers} workers of {wanted} each do not fit: there is room for {room}",
                "ask for fewer workers or less for each, or add nodes",
            )


def _of_memory(
    request: Request, trial: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    if not trial.get("bytes") or not nodes:
        return
    need, bundle = float(trial["bytes"]), request.needs.bundle
    most = max(node["memory"] for node in nodes)
    if need + _SYSTEM_BYTES > most:
        yield (
            f"training takes {size_of(need)} at the least, and the largest node has {size_of(most)}",
            "make the model smaller (flow.hidden, mapping.latent), or add a larger node",
        )
    gpu = bundle.get("GPU", 0.0)
    cards = [size for node in nodes for size in node["gpu_memory"]]
    if gpu and cards and need > min(gpu, 1.0) * max(cards):
        yield (
            f"training takes {size_of(need)} of GPU memory at the least, "
            f"and {min(gpu, 1.0):g} of the largest GPU is {size_of(min(gpu, 1.0) * max(cards))}",
            "ask for a larger share of a GPU, or make the model smaller",
        )


def _fits(bundle: Mapping[str, float], node: Mapping[str, Any]) -> int:
    """How many workers a node has room for."""
    asked = {name: amount for name, amount in bundle.items() if amount > 0}
    return min(
        (int(node["resources"].get(name, 0.0) / amount + 1e-9) for name, amount in asked.items()), default=1
    )


def _notes(answer: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not nodes:
        return
    here = {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}}
    for name in ("python", "ray", "torch"):
        there = _version_of(nodes[0], name)
        if there is not None and there != here[name]:
            yield f"{name} is {there} there and {here[name]} here"
    uri = answer["tracking"]["uri"]
    if uri is not None and uri.startswith("sqlite") and len({node["hostname"] for node in nodes}) > 1:
        yield f"{uri} would be written by several machines at once: a tracking server is safer"
    need = answer["trial"].get("bytes")
    if need:
        yield f"a model of the base configuration trains in {size_of(need)} and what its layers pass on"


def _version_of(node: Mapping[str, Any], name: str) -> str | None:
    version: str | None = node["python"] if name == "python" else node["versions"].get(name)
    return version


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['address']} ({node['node_id'][:6]})"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _describe(node: Mapping[str, Any]) -> str:
    if "error" in node:
        return f"{_name(node)}: {node['error']}"
    resources = node["resources"]
    parts = [f"{resources.get('CPU', 0):g} CPUs", f"{size_of(node['memory'])} memory"]
    if resources.get("GPU"):
        parts.insert(1, f"{resources['GPU']:g} GPUs")
    versions = ", ".join(f"{name} {_version_of(node, name)}" for name in ("python", "ray", "torch"))
    return f"{_name(node)}: {', '.join(parts)}; {versions}"
