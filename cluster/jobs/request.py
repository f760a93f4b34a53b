"""A command that is to run on a cluster, seen from here: what it reads, what it needs, how it is said there.

The command line is parsed as if it were to run here, so a wrong option or an impossible value is refused
before anything is sent. Paths become absolute, because a job has a working directory of its own; small files
that the command names (a configuration, a search space) travel with it.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.local.local_cluster import ClusterError

if TYPE_CHECKING:
    from nfbmr.config import Config

COMMANDS = ("train", "sweep", "ablate", "compare")
"""Commands of nfbmr that can be sent to a cluster."""
_FILE_LIMIT = 5 * 10**6
_FILES = "submitted"
_NAMES_OR_PATHS = ("configs", "table", "warm_start", "resume")


@dataclass(frozen=True)
class Needs:
    """What one trial, or one run, asks of a cluster.

    Attributes:
        bundle: Resources of one worker: ``{"CPU": 1, "GPU": 0.25}``.
        workers: Of one trial.
        concurrent: Trials at a time; None: as many as there is room for.
        trials: In all, where it is known.
    """

    bundle: Mapping[str, float]
    workers: int = 1
    concurrent: int | None = None
    trials: int | None = None


@dataclass(frozen=True)
class Request:
    """A command, ready to be sent.

    Attributes:
        command: One of :data:`COMMANDS`.
        words: Its arguments, as they are to be said on the cluster.
        files: What travels along, by the name it has there.
        reads: Folders and files that must be visible on every node, by what they are for.
        writes: Folders that must be one and the same on every node, and writable.
        needs: What it asks of the cluster.
        config: Its base configuration.
    """

    command: str
    words: tuple[str, ...]
    files: Mapping[str, Path]
    reads: Mapping[str, Path]
    writes: Mapping[str, Path]
    needs: Needs
    config: Config = field(repr=False)

    @property
    def shown(self) -> str:
        """As a person would type it."""
        return shlex.join(["nfbmr", self.command, *self.words])

    @property
    def entrypoint(self) -> str:
        """For the shell of the cluster's head. ``exec``: a signal must reach the command, not a shell."""
        return f"exec python -m {self.shown}"


def rewrite_command(words: Sequence[str]) -> Request:
    """Read a command line as it would be said here, and say it for a cluster.

    Args:
        words: ``["sweep", "--data", "parts", ...]``.

    Raises:
        ClusterError: Not a command that makes sense on a cluster.
        NfbmrError: What the command itself would refuse.
        click.UsageError: What click would refuse.
    """
    from nfbmr.cli.main import cli
    from nfbmr.cli.options import resolve_context

    name, *rest = words or ("",)
    context = click.Context(cli, info_name="nfbmr")
    command = cli.get_command(context, name) if name in COMMANDS else None
    if command is None:
        raise ClusterError(
            f"{name or 'nothing'!r} is not run on a cluster",
            fix=f"nfbmr submit -- COMMAND ..., where COMMAND is {', '.join(COMMANDS[:-1])} or {COMMANDS[-1]}",
        )
    inner = command.make_context(name, list(rest), parent=context)
    parsed, config = inner.params, resolve_context(inner).config
    written = list(_written(command, inner, rest))
    places = _Places()
    said = [word for parameter, text in written for word in places.said(parameter, text)]
    reads, writes = dict(places.reads), {"output": config.output, "store": config.store}
    if parsed.get("resume") is not None:
        del writes["store"]  # what is gone on with knows its own
        if name == "train":
            del writes["output"]  # a run is named by its folder, a sweep is looked for in the output
    elif config.data.path is not None:
        reads["data"] = config.data.path
    if parsed.get("resume") is None and isinstance(config.data.known_defects, Path):
        reads["known-defects"] = config.data.known_defects
    weights = Path(config.features.weights)
    if weights.suffix and weights.is_file():
        reads["weights"] = weights
        said += ["--set", f"features.weights={weights.absolute()}"]
    by_option = {parameter.opts[0]: text for parameter, text in written}
    for option in ("data", "known-defects", "output", "store"):
        path = (reads | writes).get(option)
        # Said once more, at the end: the last one counts.
        if path is not None and by_option.get(f"--{option}") != str(path.absolute()):
            said += [f"--{option}", str(path.absolute())]
    return Request(
        command=name,
        words=tuple(said),
        files=places.files,
        reads={purpose: path.absolute() for purpose, path in reads.items()},
        writes={purpose: path.absolute() for purpose, path in writes.items()},
        needs=_needs(command, parsed),
        config=config,
    )


def _written(
    command: click.Command, context: click.Context, words: Sequence[str]
) -> Iterator[tuple[click.Parameter, str | bool]]:
    """Options and arguments of a command line in its order, each with what was written for it.

    Of an option that is given twice and counts once, the last one; of a flag, whether it is on.
    """
    values, _, order = command.make_parser(context).parse_args(list(words))
    times: Counter[str] = Counter()
    for parameter in order:
        name = str(parameter.name)
        value = values[name]
        if isinstance(value, list):
            yield parameter, str(value[times[name]])
        elif isinstance(value, str | bool) and not times[name]:
            yield parameter, value
        times[name] += 1


class _Places:
    """Files and folders that a command line names, and what becomes of them.

    Attributes:
        files: What travels, by the name it has there.
        reads: Folders that every node has to see, by what they are for.
    """

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.reads: dict[str, Path] = {}

    def said(self, parameter: click.Parameter, text: str | bool) -> list[str]:
        """What is written for a parameter, as words of the command line for the cluster."""
        from nfbmr.methods.registry import named_configurations

        if isinstance(text, bool):
            return [max(parameter.opts if text else parameter.secondary_opts, key=len)]
        named = parameter.name == "configs" and text in named_configurations()
        metavar = getattr(parameter, "metavar", None) or ""
        is_path = isinstance(parameter.type, click.Path) or "FILE" in metavar
        if (is_path or parameter.name in _NAMES_OR_PATHS) and not named:
            text = self._place(str(parameter.name), Path(text)) or text
        if isinstance(parameter, click.Argument):
            return [text]
        option = max(parameter.opts, key=len)
        return [f"{option}={text}"] if text.startswith("-") else [option, text]

    def _place(self, purpose: str, path: Path) -> str | None:
        """What a path is called there; None where nothing is at it."""
        if path.is_dir():
            self.reads[purpose] = path
            return str(path.absolute())
        if path.is_file():
            if path.stat().st_size > _FILE_LIMIT:
                raise ClusterError(
                    "this file is too large to travel with a job",
                    where=path,
                    fix=f"put it where every node sees it; at most {_FILE_LIMIT // 10**6} MB travel",
                )
            name = f"{_FILES}/{len(self.files)}-{path.name}"
            self.files[name] = path
            return name
        return None


def _needs(command: click.Command, parsed: Mapping[str, Any]) -> Needs:
    def option(name: str, default: Any = None) -> Any:
        for parameter in command.params:
            if name in parameter.opts:
                value = parsed.get(str(parameter.name))
                return default if value is None else value
        return default

    bundle = {"CPU": 1.0} | _resources(option("--resources"))
    gpus = option("--gpus-per-worker")
    if gpus:
        bundle["GPU"] = float(gpus)
    workers = option("--workers-per-trial") or option("--workers") or 1
    return Needs(bundle, int(workers), option("--concurrent"), option("--trials"))


def _resources(value: Any) -> dict[str, float]:
    """``cpu=1,gpu=0.25``, or what a command has made of it, with Ray's names."""
    if value is None:
        return {}
    if isinstance(value, str):
        pairs = [part.partition("=")[::2] for part in value.split(",") if part]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        pairs = [
            (name, getattr(value, name)) for name in ("cpu", "gpu", "cpus", "gpus") if hasattr(value, name)
        ]
    names = {"cpu": "CPU", "cpus": "CPU", "gpu": "GPU", "gpus": "GPU"}
    resources = {}
    for name, amount in pairs:
        try:
            # gpu=auto gives the first trial a GPU of its own
            number = 1.0 if amount == "auto" else float(amount)
        except (TypeError, ValueError):
            number = math.nan
        if not (number >= 0 and math.isfinite(number)):
            raise ClusterError(
                f"resources {value!r}: {name} needs a number", fix="for example --resources cpu=1,gpu=0.25"
            )
        resources[names.get(str(name).lower(), str(name))] = number
    return resources
