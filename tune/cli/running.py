"""What the commands that run many trials share: how and where these are run, and what the whole is called."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nfbmr.cli.options import emit, settings_given

if TYPE_CHECKING:
    from tune.records.ablation_summary import TableSummary

_Function = TypeVar("_Function", bound=Callable[..., Any])

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[Any]):
    """A time such as ``2h30m``, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        if isinstance(value, int | float):
            return float(value)
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.lower())
        if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*", "", value.lower()):
            self.fail(f"{value!r} is no time; write 90s, 45m or 2h30m", param, ctx)
        unknown = [unit for _, unit in parts if (unit or "s") not in _UNITS]
        if unknown or (len(parts) > 1 and not all(unit for _, unit in parts)):
            self.fail(f"{value!r} is no time; units are s, m, h and d, such as 2h30m", param, ctx)
        return sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)


class Share(click.ParamType[Any]):
    """What each trial gets: ``cpu=1,gpu=0.25``."""

    name = "resources"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Read it."""
        share: dict[str, Any] = {}
        for part in str(value).split(","):
            name, equals, text = (piece.strip() for piece in part.partition("="))
            if name not in ("cpu", "gpu") or not equals or name in share:
                self.fail(f"{value!r}: write cpu=1, gpu=0.25 or both, with a comma between", param, ctx)
            try:
                share[name] = "auto" if (name, text) == ("gpu", "auto") else float(text)
            except ValueError:
                self.fail(f"{name}={text} is no number", param, ctx)
            if share[name] != "auto" and not 0 <= share[name] < math.inf:
                self.fail(f"{name}={text}: give 0 or more", param, ctx)
        return share


def running_options(noun: str, *, auto: str = "") -> Callable[[_Function], _Function]:
    """Give a command the options that say with what its trials are run, and where.

    Args:
        noun: What is run: a trial, a cell.
        auto: What help says of ``gpu=auto``, where the command takes it.
    """
    nouns = f"{noun}s".capitalize()
    options = (
        click.option(
            "--time-budget",
            type=Duration(),
            metavar="T",
            help=f"Time after which no {noun} is begun: 45m, 2h30m.",
        ),
        click.option(
            "--concurrent",
            type=click.IntRange(min=1),
            metavar="K",
            help=f"{nouns} at a time.  [default: as many as fit]",
        ),
        click.option(
            "--resources",
            type=Share(),
            metavar="SHARE",
            help=f"Resources of each {noun} (of each of its workers): cpu=1,gpu=0.25{auto}.",
        ),
        click.option(
            "--workers-per-trial",
            type=click.IntRange(min=1),
            metavar="W",
            help=f"Worker processes of each {noun}.  [default: 1]",
        ),
        click.option(
            "--address",
            metavar="HOST:PORT",
            help="Ray cluster to use.  [default: RAY_ADDRESS, else one is started]",
        ),
        click.option(
            "--local/--ray",
            default=None,
            help=f"Run {noun}s one after another in this process, or on Ray.  [default: ray]",
        ),
    )

    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def words(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names with commas between, as an option's callback."""
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


def cell_resources(asked: Mapping[str, Any]) -> Any:
    """What each cell of an ablation gets: the options of :func:`running_options`.

    Raises:
        click.BadParameter: A share is to be measured, which sweeps alone do.
    """
    from tune.execution.resources import Resources

    share = asked["resources"] or {}
    if share.get("gpu") == "auto":
        raise click.BadParameter("gpu=auto is for sweeps: give a number", param_hint="--resources")
    return Resources(
        backend="local" if asked["local"] else "ray",
        concurrent=asked["concurrent"],
        cpus=share.get("cpu", 1.0),
        gpus=share.get("gpu", 0.0),
        workers=asked["workers_per_trial"] or 1,
        time_budget=asked["time_budget"],
    )


def refuse_changes(given: Sequence[str], resolved: Any) -> None:
    """What goes on keeps what makes its cells comparable.

    Args:
        given: Options and arguments of this command line that would change it.
        resolved: The rest of the command line.

    Raises:
        click.UsageError: Something would change it.
    """
    changes = [*given, *settings_given(resolved, but=("output",))]
    if changes:
        raise click.UsageError(
            f"it goes on as it was begun; with --resume leave out {', '.join(changes)}, or begin another"
        )


def emit_table(summary: TableSummary, plan: Any, text: str, *, as_json: bool) -> int:
    """Print an ablation's or a comparison's summary; 2 where cells failed, and their names then."""
    from nfbmr.cli.ending import emit_despite
    from nfbmr.trackers import ui_url
    from tune.ablation.ablation import how_to_go_on
    from tune.ablation.report import failed_cells

    hint = ui_url(plan.config.tracking, plan.paths.journal)
    text = text if hint is None else f"{text}\n  MLflow    {hint}"
    error = failed_cells(summary, how_to_go_on(plan))
    if error is not None:
        return emit_despite(error, summary.as_json(), as_json=as_json, text=text)
    emit(summary.as_json(), as_json=as_json, text=text)
    return 0


def name_of(given: str | None, kind: str) -> str:
    """The name that was given, or one of the time and the kind.

    Raises:
        click.BadParameter: It cannot be a folder's.
    """
    from datetime import datetime

    name = given or f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{kind}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise click.BadParameter("letters, digits, dots, dashes and underscores", param_hint="--name")
    return name
