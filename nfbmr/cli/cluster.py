"""``nfbmr cluster``: a private Ray cluster on this machine, to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfbmr.cli.options import emit, json_option

if TYPE_CHECKING:
    from cluster.local import LocalCluster

FOLDER = Path(".nfbmr/cluster")


def _folder_option(function: Any) -> Any:
    return click.option(
        "--folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=FOLDER,
        show_default=True,
        metavar="FOLDER",
        help="Remembers the cluster; one folder, one cluster.",
    )(function)


def _node_options(function: Any) -> Any:
    for option in (
        click.option("--gpus", type=click.IntRange(0), default=0, help="GPUs of each node, its own."),
        click.option(
            "--cpus",
            type=click.FloatRange(0, min_open=True),
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
def up(nodes: int, cpus: float | None, gpus: int, folder: Path, as_json: bool) -> None:
    """Start a cluster; about half a minute."""
    from cluster import local

    click.echo(f"starting {nodes} nodes ...", err=True)
    _tell(local.up(nodes, cpus, gpus=gpus, folder=folder), folder, as_json)


@cluster.command()
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="How many more.")
@_node_options
@_folder_option
@json_option
def add(nodes: int, cpus: float | None, gpus: int, folder: Path, as_json: bool) -> None:
    """Add nodes to the cluster that is up; running sweeps use them."""
    from cluster import local

    _tell(local.add(nodes, cpus, gpus=gpus, folder=folder), folder, as_json)


@cluster.command()
@_folder_option
@json_option
def status(folder: Path, as_json: bool) -> int:
    """Show the cluster's nodes and what is free. Exits with 1 where no cluster is up."""
    from cluster import local

    found = local.find(folder)
    if found is None or not found.alive:
        state = "none" if found is None else "lost"
        text = {
            "none": "no cluster is up; start one with: nfbmr cluster up",
            "lost": "the cluster's head is gone; clear away the rest with: nfbmr cluster down",
        }[state]
        emit({"state": state}, as_json=as_json, text=text)
        return 1
    _tell(found, folder, as_json)
    return 0


@cluster.command()
@_folder_option
@json_option
def down(folder: Path, as_json: bool) -> None:
    """End the cluster and all that runs on it. Interrupted sweeps can be gone on with."""
    from cluster import local

    ended = local.down(folder)
    text = f"ended {len(ended)} processes" if ended else "no cluster was up"
    emit({"ended": ended}, as_json=as_json, text=text)


def _tell(found: LocalCluster, folder: Path, as_json: bool) -> None:
    from cluster.local import usage

    used = usage(found)
    summary = {
        "state": "up",
        "address": found.address,
        "dashboard": found.dashboard,
        "env": str(folder / "env.sh"),
        "nodes": [
            {
                "number": node.number,
                "node_id": node.node_id,
                "alive": found.running(node),
                "cpus": node.cpus,
                "gpus": node.gpus,
                "processes": dict(node.processes),
            }
            for node in found.nodes
        ],
        "resources": {name: {"used": now, "total": all_} for name, (now, all_) in used.items()},
    }
    lines = [f"cluster   {found.address}, dashboard and jobs {found.dashboard}"]
    for node in found.nodes:
        role = "head" if node.number == 0 else "node"
        gpus = f", {node.gpus:g} GPUs" if node.gpus else ""
        state = "" if found.running(node) else " (gone)"
        lines.append(f"  {role} {node.number}  {node.cpus:g} CPUs{gpus}{state}")
    lines += [f"  in use  {name} {now:g} of {all_:g}" for name, (now, all_) in used.items()]
    lines += [f"use it    source {folder / 'env.sh'}", "end it    nfbmr cluster down"]
    emit(summary, as_json=as_json, text="\n".join(lines))
