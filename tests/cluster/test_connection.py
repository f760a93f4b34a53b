"""A cluster that is started here where its processes die: once, or each time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from cluster.connection import connect
from cluster.node import ATTEMPTS
from nfbmr.errors import ConfigError


@contextmanager
def dying(name: str, times: int) -> Iterator[Callable[[], int]]:
    """Kill processes of a name that this process starts from now on, so many; gives how many have been."""
    killed: set[int] = set()
    before = {child.pid for child in psutil.Process().children(recursive=True)}  # another test's cluster
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2) and len(killed) < times:
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    new = child.pid not in before | killed
                    if child.name() == name and new and len(killed) < times:
                        child.kill()
                        killed.add(child.pid)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: len(killed)
    finally:
        ended.set()
        thread.join()


def test_a_start_whose_raylet_ends_itself_is_tried_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.connection.START_SECONDS", 250.0)  # however busy this machine is
    with dying("raylet", 1) as killed, connect("local", cpus=1) as cluster:
        assert killed() == 1
        assert cluster.resources()["CPU"] == 1
    assert "trying once more" in caplog.text


def test_where_no_start_succeeds_the_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (900.0, 900.0, 900.0))
    before = set(psutil.Process().children(recursive=True))
    with (
        dying("raylet", ATTEMPTS) as killed,
        pytest.raises(ConfigError, match=r"busy: load 900 on \d+ cores(.|\n)*--local"),
        connect("local", cpus=1),
    ):
        pass
    assert killed() == ATTEMPTS
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [child for child in left if child.is_running()]
