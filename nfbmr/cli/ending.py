"""How a command ends: what people and programs are told, and the exit code.

::

    0 done    1 a bug in nfbmr    2 something the user can mend    130 interrupted, can be gone on with

A sweep of which no trial finished ends with 1 as well.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from nfbmr.cli.options import emit
from nfbmr.errors import Interrupted, NfbmrError, OutputError, missing_package

DONE, UNEXPECTED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
"""Exit codes; 1 means a bug, the last two are 128 and the number of the signal."""

_OTHER_FOLDER = "choose another folder (--output, --store)"
_MENDABLE = {
    errno.ENOSPC: f"free some space or {_OTHER_FOLDER}, then run the same command again: it goes on",
    errno.EDQUOT: f"free some space or {_OTHER_FOLDER}, then run the same command again: it goes on",
    errno.EROFS: _OTHER_FOLDER,
    errno.EACCES: f"check the permissions, or {_OTHER_FOLDER}",
}


class ReaderGone(Exception):
    """Whoever read our output has closed it: `nfbmr config | head -1`."""


@contextmanager
def keep_broken_pipe() -> Iterator[None]:
    """Hide a broken pipe from click, which would end with 1: here that means a bug."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error


@dataclass(frozen=True)
class Ending:
    """The end of a command that did not go well.

    Args:
        code: Exit code.
        kind: Name of the error.
        what: What was wrong.
        where: The file, key or object concerned.
        fix: What to do now.
        text: All of it, for people.
    """

    code: int
    kind: str
    what: str
    where: str | None
    fix: str | None
    text: str

    def as_json(self) -> dict[str, Any]:
        """The ``error`` of ``--json``."""
        return {
            "type": self.kind,
            "what": self.what,
            "where": self.where,
            "fix": self.fix,
            "exit_code": self.code,
        }


def exit_code_of(call: Callable[[], Any], *, as_json: bool, debug: Callable[[], bool]) -> int:
    """Run a command and return its exit code; errors go to standard error, and as JSON to output."""
    try:
        result = call()
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, ReaderGone | BrokenPipeError):
            return _close_quietly()
        ending = _ending(error)
        if ending.code == UNEXPECTED and debug():
            click.echo("".join(traceback.format_exception(error)), err=True)
        click.echo(ending.text, err=True)
        if as_json:
            emit({"error": ending.as_json()}, as_json=True)
        return ending.code
    return result if isinstance(result, int) else DONE


def emit_despite(error: NfbmrError, summary: Mapping[str, Any], *, as_json: bool, text: str) -> int:
    """Print what was done although something was wrong: one document, the error in it. The exit code."""
    ending = _ending(error)
    emit({**summary, "error": ending.as_json()}, as_json=as_json, text=text)
    click.echo(ending.text, err=True)
    return ending.code


def _ending(error: BaseException) -> Ending:
    if isinstance(error, OSError) and error.errno in _MENDABLE:  # a full disk is not a bug, whoever met it
        file = error.filename if isinstance(error.filename, str) else None
        error = OutputError((error.strerror or str(error)).lower(), where=file, fix=_MENDABLE[error.errno])
    elif isinstance(error, ModuleNotFoundError) and (package := _outside(error.name)):
        error = missing_package(package)
    kind = type(error).__name__
    if isinstance(error, NfbmrError):
        label = "stopped" if isinstance(error, Interrupted) else "error"
        return Ending(error.exit_code, kind, error.what, error.where, error.fix, f"{label}: {error}")
    if isinstance(error, click.ClickException):
        return _usage(error, kind)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        # Where a run's folder exists, the run itself says how to go on; what is left has nothing half done.
        error = Interrupted("interrupted", fix="run the same command again: nothing is done twice")
        return Ending(INTERRUPTED, "Interrupted", error.what, None, error.fix, str(error))
    fix = "this is a bug in nfbmr: please report it with the traceback that --debug shows"
    what = f"{kind}: {error}"
    return Ending(UNEXPECTED, kind, what, None, fix, f"unexpected error: {what}\n  -> {fix}")


def _outside(module: str | None) -> str:
    """The package that a missing module is part of, unless it is one of ours."""
    package = (module or "").partition(".")[0]
    return "" if package in ("nfbmr", "tune", "cluster", "mlflow_server") else package


def _usage(error: click.ClickException, kind: str) -> Ending:
    """Click's own errors: an option that does not exist, an argument that is missing."""
    what = error.format_message()
    context = getattr(error, "ctx", None)
    fix = None if context is None else f"see {context.command_path} --help"
    text = f"error: {what}" if fix is None else f"error: {what}\n  -> {fix}"
    return Ending(BAD_INPUT, kind, what, None, fix, text)


def _close_quietly() -> int:
    """The reader of our output has gone; Python must not complain when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError):
            continue
    return BROKEN_PIPE
