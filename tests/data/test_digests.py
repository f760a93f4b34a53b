"""Digests that are kept: as right as those that are computed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nfbmr.data import digests
from nfbmr.data.images import file_digest

KNOWN = digests.Known("5e" * 32, digests.Header(48, 64, "RGB", needs_depth=False, is_negative=False))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"one")
    return path


def _state(path: Path, seconds_ago: int = 60) -> digests.State:
    """The file's state, as if it had last changed a while ago."""
    number, size, *_ = digests.state_of(path.stat())
    changed = time.time_ns() - seconds_ago * 1_000_000_000
    return number, size, changed, changed


def test_a_file_that_changes_has_another_digest_whatever_its_size_and_time(file: Path) -> None:
    before = file.stat()
    assert file_digest(file) == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert file_digest(file) == hashlib.sha256(b"two").hexdigest()


def test_what_is_kept_counts_for_another_process_and_for_this_state_alone(file: Path) -> None:
    state = _state(file)
    digests.keep(file, state, KNOWN)
    digests._known.cache_clear()  # as another process begins
    assert digests.kept(file, state) == KNOWN
    assert digests.kept(file.with_name("b.png"), state) is None
    for place in range(4):
        other = tuple(value + (n == place) for n, value in enumerate(state))
        assert digests.kept(file, other) is None


def test_a_file_that_changed_a_moment_ago_is_read_again(file: Path) -> None:
    state = _state(file, seconds_ago=0)
    digests.keep(file, state, KNOWN)
    assert digests.kept(file, state) is None


def test_damaged_lines_are_passed_over(file: Path, cache: Path) -> None:
    state = _state(file)
    digests.keep(file, state, KNOWN)
    (lines,) = cache.glob("digests-*/*")
    damaged = '{"\n[1]\n["a.png", [1, 2], "x", null]\n["a.png", [1, 2, Infinity, 4], "x", null]\n'
    lines.write_text(damaged + lines.read_text() + '["a.png", [1, 2, ')
    digests._known.cache_clear()
    assert digests.kept(file, state) == KNOWN


COUNTED = """
import sys
from pathlib import Path
from nfbmr.data.images import file_digest

opened, path = [], Path(sys.argv[1])
sys.addaudithook(lambda event, given: event == "open" and given[0] == str(path) and opened.append(path))
print(file_digest(path), file_digest(path), len(opened))
"""


def test_a_file_that_is_known_is_not_opened(file: Path) -> None:
    time.sleep(2.1)  # its last change of any kind, which cannot be set back, is then long enough ago
    command = [sys.executable, "-c", COUNTED, str(file)]
    digest = hashlib.sha256(b"one").hexdigest()
    for opened in ("1", "0"):  # once by this process, and not by the next
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert said == [digest, digest, opened]
