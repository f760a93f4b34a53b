"""The command ``nfbmr``: what it can do, and how it is called.

Each package brings its own commands (``tune/cli``, ``cluster/cli``, ``mlflow_server/cli``); here is a table
of their names. They are imported when they are asked for, so that ``nfbmr --help`` and shell completion stay
quick. This is the only place that sets up logging; :mod:`nfbmr.cli.ending` turns errors into exit codes.
Standard output is for results alone; messages and progress go to standard error.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.shell_completion import CompletionItem, get_completion_class

from nfbmr import __version__
from nfbmr.cli.ending import exit_code_of, keep_broken_pipe
from nfbmr.cli.options import emit, json_option
from nfbmr.errors import ConfigError
from nfbmr.neighbours import load_object

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_PROGRAM = "nfbmr"
_COMPLETE_VARIABLE = "_NFBMR_COMPLETE"


class Entry(NamedTuple):
    """Where a command lives, and the line that help shows for it."""

    target: str
    help: str


COMMANDS: dict[str, Entry] = {
    "train": Entry("nfbmr.cli.train:train", "Train a model on a folder of images, and evaluate it."),
    "sweep": Entry("tune.cli.sweep:sweep", "Search a space of configurations, and score the best one once."),
    "ablate": Entry(
        "tune.cli.ablate:ablate", "Run every row of a table with several seeds, and tell them apart."
    ),
    "compare": Entry(
        "tune.cli.compare:compare", "Compare methods on your own data: quality, speed and size."
    ),
    "evaluate": Entry(
        "nfbmr.cli.evaluate:evaluate", "Evaluate a finished run again: other scores, or another data set."
    ),
    "predict": Entry("nfbmr.cli.predict:predict", "Score images with a trained model."),
    "export": Entry(
        "nfbmr.cli.export:export", "Write a model as ONNX or OpenVINO, checked against its scores."
    ),
    "data": Entry("nfbmr.cli.data:data", "Inspect, audit or synthesize a data set."),
    "features": Entry("nfbmr.cli.features:features", "Build, list, verify or prune stored features."),
    "server": Entry(
        "mlflow_server.cli.server:server", "Serve the records of runs, keep them safe, manage users."
    ),
    "track": Entry(
        "mlflow_server.cli.track:track", "See what a tracking server has of runs, and send the rest."
    ),
    "models": Entry(
        "mlflow_server.cli.models:models", "Register models, promote them through gates, and roll back."
    ),
    "serve": Entry("cluster.cli.serve:serve", "Serve a model over HTTP, with a page to try images on."),
    "reconcile": Entry("tune.cli.verify:reconcile", "The old name of: nfbmr track verify --mend."),
    "submit": Entry(
        "cluster.cli.submit:submit", "Check a command against a cluster, and run it there as a job."
    ),
    "jobs": Entry("cluster.cli.jobs:jobs", "List, follow or stop the jobs of a cluster."),
    "cluster": Entry(
        "cluster.cli.cluster:cluster", "Start a private Ray cluster on this machine, or end it."
    ),
    "config": Entry(
        "nfbmr.cli.config:config", "Show the resolved configuration, and where each value came from."
    ),
    "methods": Entry("nfbmr.cli.methods:methods", "List the methods, or show the settings of one."),
    "backbones": Entry("nfbmr.cli.backbones:backbones", "List backbones, or show the taps of one."),
    "completion": Entry("nfbmr.cli.main:completion", "Print the completion script of a shell."),
}
"""Every command by its name: where it is, and the line that help shows."""

SUBCOMMANDS: dict[str, dict[str, str]] = {"track": {"verify": "tune.cli.verify:verify"}}
"""Where commands live that one package adds to the group of another, by group and name."""


GROUP = "nfbmr.commands"
"""Entry points of this group are commands that installed packages add; those of the table come first."""


def added_commands() -> dict[str, EntryPoint]:
    """Commands that installed packages add, by name."""
    if not _any_package_adds_commands():
        return {}
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP) if point.name not in COMMANDS}


def _any_package_adds_commands() -> bool:
    """Look through the files that name entry points: reading them properly takes 30 ms, half of --help."""
    files = (file for folder in sys.path for file in Path(folder).glob("*-info/entry_points.txt"))
    return any(GROUP.encode() in file.read_bytes() for file in files)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used; help reads their texts from a table.

    Commands that installed packages add are looked for where the table does not have the name, and for help.
    """

    def __init__(self, *args: Any, entries: Mapping[str, Entry], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries = dict(entries)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table; then those that installed packages add."""
        return [*self.entries, *added_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name in self.entries:
            command = load_object(self.entries[cmd_name].target)
            for name, target in SUBCOMMANDS.get(cmd_name, {}).items():
                command.add_command(load_object(target), name)
            return _with_common_options(command)
        point = added_commands().get(cmd_name)
        return None if point is None else _with_common_options(_loaded(point))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments; help and version are printed here."""
        with keep_broken_pipe():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with keep_broken_pipe():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a name there is not, say the nearest."""
        if args and args[0] not in self.entries and not args[0].startswith("-"):
            names = self.list_commands(ctx)
            if args[0] in names:
                return super().resolve_command(ctx, args)
            from nfbmr.fields import did_you_mean

            hint = did_you_mean(args[0], names) or f"; commands are {', '.join(names)}"
            ctx.fail(f"no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing ours; what is added has its text in its command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.entries.items()])
        added = added_commands()
        if added:
            with formatter.section("Commands of other packages"):
                formatter.write_dl([(name, _help_of(point)) for name, point in added.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without importing any."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        texts: dict[str, str | None] = {name: entry.help for name, entry in self.entries.items()}
        texts |= dict.fromkeys(added_commands())
        return [
            CompletionItem(name, help=text) for name, text in texts.items() if name.startswith(incomplete)
        ]


def _loaded(point: EntryPoint) -> click.Command:
    """A command that an installed package adds.

    Raises:
        ConfigError: It cannot be imported, or is no command.
    """
    package = point.dist.name if point.dist else point.value
    fix = f"mend or remove the package {package}"
    try:
        command = point.load()
    except Exception as error:  # another package's code: whatever is wrong with it, say whose it is
        what = f"the command {point.name} cannot be loaded ({type(error).__name__}: {error})"
        raise ConfigError(what, where=package, fix=fix) from error
    if not isinstance(command, click.Command):
        raise ConfigError(f"{point.name} is no command of click's", where=package, fix=fix)
    return command


def _help_of(point: EntryPoint) -> str:
    try:
        return _loaded(point).get_short_help_str(limit=90)
    except ConfigError as error:
        return f"({error.what})"


def _common_options() -> list[click.Option]:
    """Options that every command takes, before or after its name."""

    def count(name: str) -> Any:
        def remember(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
            state = ctx.ensure_object(dict)
            state[name] = bool(value or state.get(name))
            set_up_logging(verbose=state.get("verbose", False), quiet=state.get("quiet", False))

        return remember

    texts = {
        "verbose": ("-v", "Say more about what is done."),
        "quiet": ("-q", "Say only what is wrong."),
        "debug": (None, "Show a traceback when something unexpected happens."),
    }
    return [
        click.Option(
            [*filter(None, [short]), f"--{name}"],
            is_flag=True,
            expose_value=False,
            callback=count(name),
            help=text,
        )
        for name, (short, text) in texts.items()
    ]


def _with_common_options(command: click.Command) -> click.Command:
    """Give a command, and those below it, the common options."""
    present = {parameter.name for parameter in command.params}
    command.params.extend(option for option in _common_options() if option.name not in present)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _with_common_options(below)
    return command


class _StandardError(logging.Handler):
    """Lines on the standard error of the moment, above a progress bar if one is being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
            line = f"{level}{self.format(record)}"
            progress = sys.modules.get("tqdm")
            if progress is not None:
                progress.tqdm.write(line, file=sys.stderr)
            else:
                click.echo(line, err=True)
        except Exception:
            self.handleError(record)


def set_up_logging(*, verbose: bool = False, quiet: bool = False) -> None:
    """Send the log to standard error; libraries are heard only when something is wrong."""
    root = logging.getLogger()
    if not any(isinstance(handler, _StandardError) for handler in root.handlers):
        root.addHandler(_StandardError())
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    for package in ("nfbmr", "tune", "cluster", "mlflow_server"):
        logging.getLogger(package).setLevel(level)
    root.setLevel(logging.ERROR if quiet else logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbose else logging.ERROR)


@click.group(
    cls=LazyGroup,
    entries=COMMANDS,
    params=_common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name=_PROGRAM)
def cli() -> None:
    """Find defects in images of parts, learning from good parts alone.

    Start with: nfbmr train --data FOLDER. Without a folder, a synthetic data set is used.
    """


_INSTALL = {
    "bash": "nfbmr completion bash > ~/.local/share/bash-completion/completions/nfbmr",
    "zsh": "nfbmr completion zsh > ~/.nfbmr.zsh && echo 'source ~/.nfbmr.zsh' >> ~/.zshrc",
    "fish": "nfbmr completion fish > ~/.config/fish/completions/nfbmr.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(tuple(_INSTALL)))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print the completion script of a SHELL; its first line says how to install it."""
    kind = get_completion_class(shell)
    if kind is None:  # not reached: every choice above is one that click knows
        raise click.UsageError(f"no completion for {shell}")
    script = kind(cli, {}, _PROGRAM, _COMPLETE_VARIABLE)
    # not script.source(): for bash that starts a bash, to ask for its version
    text = f"# install: {_INSTALL[shell]}\n{script.source_template % script.source_vars()}".rstrip()
    emit({"shell": shell, "install": _INSTALL[shell], "script": text}, as_json=as_json, text=text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    state: dict[str, bool] = {}

    def call() -> Any:
        return cli.main(
            given, prog_name=_PROGRAM, complete_var=_COMPLETE_VARIABLE, standalone_mode=False, obj=state
        )

    def debug() -> bool:
        return state.get("debug", False) or os.environ.get("NFBMR_DEBUG", "") not in ("", "0")

    return exit_code_of(call, as_json="--json" in given, debug=debug)


if __name__ == "__main__":
    sys.exit(main())
