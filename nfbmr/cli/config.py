"""``nfbmr config``: the resolved configuration, and where each value came from."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from nfbmr.cli.options import config_options, emit, json_option

if TYPE_CHECKING:
    from nfbmr.resolve import Resolved

_INTRODUCTION = """\
# Configuration

Every run has one configuration. `nfbmr config` prints it, resolved, with where each value came from; it takes
the options of `nfbmr train`. A later layer wins, key by key:

    defaults < the method's < named configurations and files, as given < --set < options (--data, --seed, ...)

- `--config NAME` takes one of the named configurations below, `--config FILE` a YAML file, `--config RUN` the
  folder of a run: the same settings again. It can be given several times.
- `--set KEY=VALUE` sets one key. The value is YAML: `--set train.flow.lr=1e-4`,
  `--set data.limit_train=null`, `--set flow.kernels=[3,3,5]`; a list may go without its brackets:
  `--set features.taps=blocks.3,blocks.5`.
- In a file, keys are nested or dotted: `flow: {blocks: 8}` is `flow.blocks: 8`.

Unknown keys and impossible values are refused, all of them at once.

This page is the output of `nfbmr config --describe`.
"""


@click.command()
@config_options
@click.option("--methods", is_flag=True, help="List the methods and the named configurations instead.")
@click.option("--describe", is_flag=True, help="Describe every key instead: what it allows, its default.")
@json_option
def config(resolved: Resolved, methods: bool, describe: bool, as_json: bool) -> None:
    """Show the resolved configuration, and where each value came from.

    The output is a YAML file that --config takes.
    """
    from nfbmr.resolve import dump_yaml

    if methods:
        emit(_methods(), as_json=as_json, text=_methods_text())
    elif describe:
        emit({"keys": _key_rows()}, as_json=as_json, text=describe_markdown())
    else:
        summary = {"config": resolved.config.model_dump(mode="json"), "origins": resolved.origins}
        emit(summary, as_json=as_json, text=dump_yaml(resolved.config, resolved.origins))


def describe_markdown() -> str:
    """``docs/configuration.md``: every key, method and named configuration, for people."""
    from nfbmr.methods.registry import named_configurations
    from nfbmr.resolve import fields_of
    from nfbmr.yaml_text import inline, lines_of

    lines = [_INTRODUCTION, "## Keys"]
    section = None
    for key in fields_of():
        here = key.name.rpartition(".")[0]
        if here != section:
            lines.append(f"\n### {here or 'the run'}\n")
            section = here
        about = f"; {key.description}" if key.description else ""
        lines.append(f"- `{key.name}`: {key.allowed}; default `{inline(_plain(key.default))}`{about}")
    lines.append("\n## Methods\n")
    lines.append(_methods_text())
    lines.append("\n## Named configurations")
    for name, values in named_configurations().items():
        lines.append(f"\n`--config {name}`\n\n```yaml")
        lines.extend(lines_of(values))
        lines.append("```")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return list(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _key_rows() -> list[dict[str, Any]]:
    from nfbmr.resolve import fields_of

    return [
        {"key": key.name, "allowed": key.allowed, "default": key.default, "description": key.description}
        for key in fields_of()
    ]


def _methods() -> dict[str, Any]:
    from nfbmr.methods.registry import METHODS, named_configurations

    about = ("title", "source", "networks", "stages", "shares", "defaults")
    rows = {
        name: {**{key: getattr(method, key) for key in about}, "published": list(method.published)}
        for name, method in METHODS.items()
    }
    return {"methods": rows, "configurations": named_configurations()}


def _methods_text() -> str:
    from nfbmr.methods.registry import METHODS

    return "\n".join(
        textwrap.fill(
            f"- `{name}`: {method.title}; stages {', '.join(method.stages)}; {method.source}",
            width=110,
            subsequent_indent="  ",
        )
        for name, method in METHODS.items()
    )
