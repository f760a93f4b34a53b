"""Signs of life on a terminal, and silence elsewhere."""

from __future__ import annotations

import io
import sys
import threading
import time
from contextlib import redirect_stderr

import pytest
from tqdm import tqdm

from nfbmr import progress
from nfbmr.progress import ticking, working


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(progress, "EVERY", 0.02)
    return Terminal()


def until(written: io.StringIO, text: str) -> None:
    """Wait for it, as the one who watches would."""
    ends = time.monotonic() + 60
    while text not in written.getvalue():
        assert time.monotonic() < ends, written.getvalue()
        time.sleep(0.01)


def test_work_without_a_bar_says_what_it_is(terminal: Terminal) -> None:
    with redirect_stderr(terminal), working("reading images"):
        until(terminal, "reading images ... 0 s")
    assert terminal.getvalue().endswith("\r")  # the line is wiped
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_where_there_is_no_terminal_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(progress, "EVERY", 0.01)
    with (
        redirect_stderr(written),
        working("reading images"),
        ticking(tqdm(total=3, disable=None, leave=False)) as bar,
    ):
        time.sleep(0.1)
        bar.update()
    assert written.getvalue() == ""


@pytest.mark.parametrize("stderr", [None, object()])
def test_a_program_without_a_standard_error_goes_on(stderr: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    with working("reading images"):
        pass


def test_a_bar_is_drawn_anew_while_nothing_is_done_and_speaks_for_what_is_around_it(
    terminal: Terminal,
) -> None:
    with (
        ticking(tqdm(total=3, desc="features", file=terminal, mininterval=0, leave=False)),
        working("reading images"),
    ):
        until(terminal, "features:   0%|          | 0/3 [00:01")
    assert "reading images" not in terminal.getvalue()
    assert not progress._ticking


def test_an_error_ends_it(terminal: Terminal) -> None:
    def broken() -> None:
        with redirect_stderr(terminal), working("reading images"):
            until(terminal, "reading images")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert terminal.getvalue().endswith("\r")
