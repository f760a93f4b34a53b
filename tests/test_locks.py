"""Locks between processes: waiting, giving up, death of the holder, and file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nfbmr import locks
from nfbmr.errors import ConfigError, NfbmrError, OutputError
from nfbmr.locks import always, file_lock, is_locked, lock_open_file, open_lock_file

HOLDER = """
import sys, time
from pathlib import Path
from nfbmr.locks import file_lock

with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def refusing(path: Path):
    return file_lock(path, held=lambda: ConfigError("somebody has it"), give_up=always)


def test_another_process_keeps_it_until_it_is_killed(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    path = tmp_path / "lock"
    assert is_locked(path)
    with pytest.raises(ConfigError, match="somebody has it"), refusing(path):
        pass
    waited: list[str] = []
    threading.Timer(0.3, holder.kill).start()
    with file_lock(path, on_wait=lambda: waited.append("once")):
        assert waited == ["once"]
        assert is_locked(path)
    assert not is_locked(path)


def test_waiting_can_be_given_up(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    asked = iter([False, False, True])
    with (
        pytest.raises(NfbmrError, match="another process holds"),
        file_lock(tmp_path / "lock", give_up=lambda: next(asked)),
    ):
        pass
    assert next(asked, None) is None


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), refusing(tmp_path / "new" / "lock"):
        _ = 1 / 0
    with refusing(tmp_path / "new" / "lock"):
        pass


def test_a_lock_whose_folder_is_removed_meanwhile_is_freed(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "lock"
    with file_lock(path):
        path.unlink()
        path.parent.rmdir()


def test_shared_holders_exclude_only_those_who_want_it_alone(tmp_path: Path) -> None:
    first, second, alone = (open_lock_file(tmp_path / "lock") for _ in range(3))
    try:
        assert lock_open_file(first, shared=True)
        assert lock_open_file(second, shared=True, wait=False)
        with pytest.raises(BlockingIOError):
            lock_open_file(alone, wait=False)
    finally:
        for fd in (first, second, alone):
            os.close(fd)
    assert not is_locked(tmp_path / "lock")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_work_goes_on_and_the_log_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    locks._no_locks.cache_clear()
    monkeypatch.setattr(fcntl, "flock", flock)
    done = []
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            with refusing(tmp_path / name):
                done.append(name)
        fd = open_lock_file(tmp_path / "c")
        assert not lock_open_file(fd, wait=False)
        os.close(fd)
    assert done == ["a", "b"]
    assert not is_locked(tmp_path / "a")
    assert caplog.text.count("no locks") == 1
    locks._no_locks.cache_clear()


def test_a_lock_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"), file_lock(tmp_path / "file" / "lock"):
        pass
    with pytest.raises(OutputError, match="file"):
        open_lock_file(tmp_path / "file" / "lock")
