"""``nfbmr cluster``: a private Ray cluster on this machine, to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfbmr.cli.options import emit, json_option

if TYPE_CHECKING:
    from cluster.local.local_cluster import LocalCluster

_FOLDER = Path(".nfbmr/cluster")


def _folder_option(function: Any) -> Any:
    return click.option(
        "--folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=_FOLDER,
        show_default=True,
        metavar="FOLDER",
        help="Remembers the cluster; one folder, one cluster.",
    )(function)


def _node_options(function: Any) -> Any:
    for option in (
        click.option(
            "--start-timeout",
            type=click.FloatRange(1.0),
            default=55.0,
            show_default=True,
            metavar="SECONDS",
            help="Give up after that long, and leave nothing.",
        ),
        click.option("--gpus", type=click.IntRange(0), default=0, help="GPUs of each node, its own."),
        click.option(
            "--cpus",
            type=click.IntRange(1),
            help="CPUs of each node, as tasks see them; by default this machine's are shared out.",
        ),
    ):
        function = option(function)
    return function


@click.group()
def cluster() -> None:
    """Start a private Ray cluster on this machine, look at it, end it.

    It listens on loopback alone and asks for a token that only you can read.
    """


@cluster.command()
@click.option("--nodes", type=click.IntRange(1), default=2, show_default=True, help="The head among them.")
@_node_options
@_folder_option
@json_option
def up(nodes: int, cpus: int | None, gpus: int, start_timeout: float, folder: Path, as_json: bool) -> None:
    """Start a cluster; about half a minute."""
    from cluster.local import local_cluster as local

    click.echo(f"starting {nodes} nodes ...", err=True)
    _tell(local.up(nodes, cpus, gpus=gpus, folder=folder, seconds=start_timeout), folder, as_json)


@cluster.command()
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="How many more.")
@_node_options
@_folder_option
@json_option
def add(nodes: int, cpus: int | None, gpus: int, start_timeout: float, folder: Path, as_json: bool) -> None:
    """Add nodes to the cluster that is up; running sweeps use them."""
    from cluster.local import local_cluster as local

    _tell(local.add(nodes, cpus, gpus=gpus, folder=folder, seconds=start_timeout), folder, as_json)


@cluster.command()
@_folder_option
@json_option
def status(folder: Path, as_json: bool) -> int:
    """Show the cluster's nodes and what is free. Exits with 1 where no cluster is up."""
    from cluster.local import local_cluster as local

    cluster = local.find(folder)
    if cluster is None or not cluster.alive:
        state = "none" if cluster is None else "lost"
        text = {
            "none": "no cluster is up; start one with: nfbmr cluster up",
            "lost": "the cluster's head is gone; clear away the rest with: nfbmr cluster down",
        }[state]
        emit({"state": state}, as_json=as_json, text=text)
        return 1
    _tell(cluster, folder, as_json)
    return 0


@cluster.command()
@_folder_option
@json_option
def down(folder: Path, as_json: bool) -> None:
    """End the cluster and all that runs on it. Interrupted sweeps can be gone on with."""
    from cluster.local import local_cluster as local

    ended = local.down(folder)
    text = f"ended {len(ended)} processes" if ended else "no cluster was up"
    emit({"ended": ended}, as_json=as_json, text=text)


def _tell(cluster: LocalCluster, folder: Path, as_json: bool) -> None:
    from cluster.local.local_cluster import usage

    used = usage(cluster)
    summary = {
        "state": "up",
        "address": cluster.address,
        "dashboard": cluster.dashboard,
        "env": str(folder / "env.sh"),
        "nodes": [
            {
                "number": node.number,
                "alive": cluster.running(node),
                "cpus": node.cpus,
                "gpus": node.gpus,
                "processes": dict(node.processes),
            }
            for node in cluster.nodes
        ],
        "resources": {name: {"used": now, "total": all_} for name, (now, all_) in used.items()},
    }
    lines = [f"cluster   {cluster.address}, dashboard and jobs {cluster.dashboard}"]
    for node in cluster.nodes:
        role = "head" if node.number == 0 else "node"
        gpus = f", {node.gpus} GPUs" if node.gpus else ""
        state = "" if cluster.running(node) else " (gone)"
        lines.append(f"  {role} {node.number}  {node.cpus} CPUs{gpus}{state}")
    lines += [f"  in use  {name} {now:g} of {all_:g}" for name, (now, all_) in used.items()]
    lines += [f"use it    source {folder / 'env.sh'}", "end it    nfbmr cluster down"]
    emit(summary, as_json=as_json, text="\n".join(lines))
